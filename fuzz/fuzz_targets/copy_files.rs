//! The program of libFuzzer that calls `bulk_fuzz::copy_files`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulk_fuzz::copy_files::target(data));
