#![no_main]

mod changes_exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| changes_exercise::list(data));
