//! Replays the fuzzing corpus of sealed files on a stable compiler, with mutations: no panic, and what opens was sealed so.

#[path = "../../../tests/mutate.rs"]
mod mutate;
#[path = "../../../fuzz/fuzz_targets/seal_exercise.rs"]
mod seal_exercise;

use std::{fs, path::Path};

use mutate::mutate;

#[test]
fn no_input_of_the_corpus_or_near_it_makes_the_reader_panic() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/sealed");
    let (mut seed, mut seeds) = (0x5EED, 0);
    for entry in fs::read_dir(corpus).unwrap().flatten() {
        let data = fs::read(entry.path()).unwrap();
        seal_exercise::sealed(&data);
        for _ in 0..2000 {
            seal_exercise::sealed(&mutate(&data, &mut seed));
        }
        seeds += 1;
    }
    assert_eq!(seeds, 5, "one file for each policy");
}
