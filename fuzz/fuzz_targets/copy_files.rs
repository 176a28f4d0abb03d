#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulk_fuzz::copy_files::target(data));
