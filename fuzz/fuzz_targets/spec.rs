#![no_main]

mod spec_exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| spec_exercise::spec(data));
