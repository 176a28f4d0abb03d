//! The program of libFuzzer that calls `bulk_fuzz::deflate`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulk_fuzz::deflate::target(data));
