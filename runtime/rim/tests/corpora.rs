//! Replays the fuzzing corpora of streams of files and of templates on a stable compiler, with mutations: no panic, bounds kept,
//! nothing leads elsewhere.

#[path = "../../../fuzz/fuzz_targets/carry_exercise.rs"]
mod carry_exercise;
#[path = "../../../tests/mutate.rs"]
mod mutate;
#[path = "../../../fuzz/fuzz_targets/template_exercise.rs"]
mod template_exercise;

use std::{fs, path::Path};

use coffer_rim::carry::Entry;
use mutate::mutate;

#[test]
fn no_stream_of_the_corpus_or_near_it_leads_elsewhere() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/carry");
    let (mut seed, mut entries) = (0x5EED, 0);
    for file in fs::read_dir(corpus).unwrap().flatten() {
        let data = fs::read(file.path()).unwrap();
        entries += usize::from(Entry::read(&mut &data[..]).unwrap().is_some());
        carry_exercise::stream(&data);
        for _ in 0..5000 {
            carry_exercise::stream(&mutate(&data, &mut seed));
        }
    }
    assert_eq!(entries, 2, "two of the three have an entry");
}

#[test]
fn no_template_of_the_corpus_or_near_it_goes_beyond_its_bounds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/template");
    let (mut seed, mut count) = (0x5EED, 0);
    for file in fs::read_dir(corpus).unwrap().flatten() {
        let data = fs::read(file.path()).unwrap();
        let text = std::str::from_utf8(&data).unwrap();
        coffer_rim::template::Template::parse(text).unwrap();
        count += 1;
        for _ in 0..5000 {
            template_exercise::template(&mutate(&data, &mut seed));
        }
    }
    assert_eq!(count, 3);
}
