//! The program of libFuzzer that calls `bulk_fuzz::codecs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulk_fuzz::codecs::target(data));
