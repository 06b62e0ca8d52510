#![no_main]

mod peer_exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| peer_exercise::words(data));
