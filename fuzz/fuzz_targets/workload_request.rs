#![no_main]

mod workload_exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| workload_exercise::request(data));
