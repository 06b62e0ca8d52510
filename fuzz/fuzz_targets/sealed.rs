#![no_main]

mod seal_exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| seal_exercise::sealed(data));
