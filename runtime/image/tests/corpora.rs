//! Replays the fuzzing corpus of image layers on a stable compiler, with mutations: no panic, bounds kept.

#[path = "../../../fuzz/fuzz_targets/layer_exercise.rs"]
mod layer_exercise;
#[path = "../../../tests/mutate.rs"]
mod mutate;

use std::{fs, path::Path};

use coffer_image::tarball::Archive;
use mutate::mutate;

#[test]
fn no_layer_of_the_corpus_or_near_it_gets_beyond_its_limits() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/layer");
    let (mut seed, mut sparse) = (0x5EED, 0);
    for file in fs::read_dir(corpus).unwrap().flatten() {
        let data = fs::read(file.path()).unwrap();
        let first = Archive::new(&data[..]).next_entry();
        sparse += usize::from(first.is_ok_and(|entry| entry.is_some_and(|entry| entry.parts.is_some())));
        layer_exercise::layer(&data);
        for _ in 0..300 {
            layer_exercise::layer(&mutate(&data, &mut seed));
        }
    }
    assert_eq!(sparse, 3, "three ways to write holes");
}
