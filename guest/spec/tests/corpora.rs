//! Replays the fuzzing corpus of workload specs on a stable compiler, with mutations: no panic, and nothing is read as something else.

#[path = "../../../tests/mutate.rs"]
mod mutate;
#[path = "../../../fuzz/fuzz_targets/spec_exercise.rs"]
mod spec_exercise;

use std::{fs, path::Path};

use mutate::mutate;

#[test]
fn no_spec_of_the_corpus_or_near_it_is_read_as_another() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/spec");
    let (mut seed, mut seeds) = (0x5EED, 0);
    for entry in fs::read_dir(corpus).unwrap().flatten() {
        let data = fs::read(entry.path()).unwrap();
        assert_eq!(spec_exercise::spec(&data), 1, "{:?} is a disk, a document or a command line", entry.path());
        for _ in 0..1000 {
            spec_exercise::spec(&mutate(&data, &mut seed));
        }
        seeds += 1;
    }
    assert_eq!(seeds, 4);
}
