//! Replays the fuzzing corpora of image layers and archives on a stable compiler, with mutations: no panic, bounds kept.

#[path = "../../../fuzz/fuzz_targets/archive_exercise.rs"]
mod archive_exercise;
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

#[test]
fn no_archive_of_the_corpus_or_near_it_leaves_half_an_image() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/archive");
    let (mut seed, mut loaded) = (0xA5EED, 0);
    for file in fs::read_dir(corpus).unwrap().flatten() {
        let data = fs::read(file.path()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let store = coffer_image::Store::open(dir.path().join("images")).unwrap();
        let options = coffer_image::archive::LoadOptions::default();
        loaded += usize::from(store.load(Path::new("a"), &data[..], &options, coffer_image::Limits::default()).is_ok());
        archive_exercise::archive(&data);
        for _ in 0..60 {
            archive_exercise::archive(&mutate(&data, &mut seed));
        }
    }
    assert_eq!(loaded, 3, "images of both kinds, one of them compressed");
}

#[test]
fn no_instruction_of_the_corpus_or_near_it_makes_an_image_that_cannot_be_read() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/change");
    let (mut seed, mut taken) = (0xC4A6E, 0);
    for file in fs::read_dir(corpus).unwrap().flatten() {
        let data = fs::read(file.path()).unwrap();
        let changes = vec![String::from_utf8(data.clone()).unwrap()];
        taken += usize::from(coffer_image::archive::Commit { changes, ..Default::default() }.check().is_ok());
        archive_exercise::change(&data);
        for _ in 0..60 {
            archive_exercise::change(&mutate(&data, &mut seed));
        }
    }
    assert!(taken >= 6, "{taken} are instructions");
}
