#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| galerna_fuzz::ndjson(data));
