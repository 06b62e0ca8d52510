#![no_main]

mod boot_exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| boot_exercise::bzimage(data));
