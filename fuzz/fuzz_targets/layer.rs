#![no_main]

mod layer_exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| layer_exercise::layer(data));
