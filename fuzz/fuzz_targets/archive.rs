//! The program of libFuzzer that calls `bulk_fuzz::archive`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulk_fuzz::archive::target(data));
