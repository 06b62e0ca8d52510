//! Replays the fuzzing corpora of bundles and of Rego on a stable compiler, with mutations: no panic, and an error has a text.

#[path = "../../tests/mutate.rs"]
mod mutate;
#[path = "../../fuzz/fuzz_targets/policies_exercise.rs"]
mod policies_exercise;

use std::{fs, io::Write as _, path::Path};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use mutate::mutate;

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let all: Vec<Vec<u8>> =
        fs::read_dir(folder).unwrap().flatten().map(|entry| fs::read(entry.path()).unwrap()).collect();
    assert!(all.len() >= 4, "no corpus for {name}");
    all
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn no_bundle_of_the_corpus_or_near_it_makes_the_reader_panic() {
    let mut seed = 0x5EED;
    for data in corpus("bundle") {
        policies_exercise::bundle(&data);
        let mut tar = Vec::new();
        std::io::copy(&mut GzDecoder::new(&data[..]), &mut tar).unwrap();
        for _ in 0..200 {
            policies_exercise::bundle(&mutate(&data, &mut seed));
            policies_exercise::bundle(&gzip(&mutate(&tar, &mut seed)));
        }
    }
}

#[test]
fn no_text_of_the_corpus_or_near_it_makes_the_parser_or_lint_panic() {
    let mut seed = 0x5EED;
    for data in corpus("rego") {
        policies_exercise::rego(&data);
        for _ in 0..100 {
            policies_exercise::rego(&mutate(&data, &mut seed));
        }
    }
}
