//! Replays the fuzzing corpus of a workload's requests on a stable compiler, with mutations: no panic, bounds kept, nothing repeated.

#[path = "../../tests/mutate.rs"]
mod mutate;
#[path = "../../fuzz/fuzz_targets/workload_exercise.rs"]
mod workload_exercise;

use std::{fs, path::Path};

use coffer_guest::workload_api::Asked;
use mutate::mutate;

#[test]
fn no_request_of_the_corpus_or_near_it_is_read_beyond_its_bounds_or_repeated() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/workload_request");
    let (mut seed, mut calls) = (0x5EED, 0);
    for entry in fs::read_dir(corpus).unwrap().flatten() {
        let data = fs::read(entry.path()).unwrap();
        let line = String::from_utf8(data.clone()).unwrap();
        let (method, target) = line.split_once(' ').unwrap();
        let read = Asked::at_each_door(method, target);
        calls += read.iter().filter(|asked| matches!(asked, Asked::Call { .. })).count();
        workload_exercise::request(&data);
        for _ in 0..2000 {
            workload_exercise::request(&mutate(&data, &mut seed));
        }
    }
    assert_eq!(calls, 11, "each file is a call of one door");
}
