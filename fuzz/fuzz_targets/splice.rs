//! The program of libFuzzer that calls `bulk_fuzz::splice`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulk_fuzz::splice::target(data));
