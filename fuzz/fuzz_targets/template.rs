//! The program of libFuzzer that calls `bulk_fuzz::template`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulk_fuzz::template::target(data));
