#![no_main]

mod policies_exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| policies_exercise::bundle(data));
