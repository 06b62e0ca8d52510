#![no_main]

mod template_exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| template_exercise::template(data));
