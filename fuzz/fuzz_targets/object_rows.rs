//! The program of libFuzzer that calls `bulk_fuzz::object_rows`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulk_fuzz::object_rows::target(data));
