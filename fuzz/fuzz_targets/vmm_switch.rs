#![no_main]

mod vmm_exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmm_exercise::switched_frames(data));
