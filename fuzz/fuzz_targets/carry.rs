#![no_main]

mod carry_exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| carry_exercise::stream(data));
