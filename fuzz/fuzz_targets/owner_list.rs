#![no_main]

mod agent_exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| agent_exercise::owner_list(data));
