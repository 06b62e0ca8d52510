#![no_main]

mod ratls_exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| ratls_exercise::messages(data));
