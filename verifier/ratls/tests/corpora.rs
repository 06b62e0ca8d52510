//! Replays the fuzzing corpus of RA-TLS messages on a stable compiler, with mutations: no panic, bounds kept, nothing repeated.

#[path = "../../../tests/mutate.rs"]
mod mutate;
#[path = "../../../fuzz/fuzz_targets/ratls_exercise.rs"]
mod ratls_exercise;

use std::{fs, path::Path};

use mutate::mutate;

#[test]
fn no_message_of_the_corpus_or_near_it_goes_beyond_its_bounds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/ratls");
    let (mut seed, mut seeds) = (0x5EED, 0);
    for entry in fs::read_dir(corpus).unwrap().flatten() {
        let data = fs::read(entry.path()).unwrap();
        assert!(ratls_exercise::messages(&data) > 0, "{:?} says something", entry.path());
        for _ in 0..5000 {
            ratls_exercise::messages(&mutate(&data, &mut seed));
        }
        seeds += 1;
    }
    assert_eq!(seeds, 4);
}
