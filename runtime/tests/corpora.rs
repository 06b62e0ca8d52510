//! Replays the fuzzing corpora of `--peer` and `--guests` and of guests' lists of changes on a stable compiler, with mutations: no panic,
//! and nothing that was not said.

#[path = "../../fuzz/fuzz_targets/changes_exercise.rs"]
mod changes_exercise;
#[path = "../../tests/mutate.rs"]
mod mutate;
#[path = "../../fuzz/fuzz_targets/peer_exercise.rs"]
mod peer_exercise;

use std::fs;
use std::path::Path;

use coffer_runtime::request::{guests, peer};
use mutate::mutate;

#[test]
fn no_words_of_the_corpus_or_near_them_name_what_they_do_not_say() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/peer");
    let (mut seed, mut taken) = (0x5EED, 0);
    for file in fs::read_dir(corpus).unwrap().flatten() {
        let data = fs::read(file.path()).unwrap();
        let text = std::str::from_utf8(&data).unwrap();
        taken += usize::from(peer(text).is_ok() || guests(text).is_ok());
        peer_exercise::words(&data);
        for _ in 0..5000 {
            peer_exercise::words(&mutate(&data, &mut seed));
        }
    }
    assert_eq!(taken, 3);
}

#[test]
fn no_list_of_changes_of_the_corpus_or_near_it_says_what_does_not_stand_there() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/changes");
    let (mut seed, mut taken) = (0xC4A6E5, 0);
    for file in fs::read_dir(corpus).unwrap().flatten() {
        let data = fs::read(file.path()).unwrap();
        taken += usize::from(coffer_runtime::changes::read(&data).is_ok());
        changes_exercise::list(&data);
        for _ in 0..5000 {
            changes_exercise::list(&mutate(&data, &mut seed));
        }
    }
    assert_eq!(taken, 3);
}
