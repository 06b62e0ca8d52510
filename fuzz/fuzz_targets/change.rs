#![no_main]

mod archive_exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| archive_exercise::change(data));
