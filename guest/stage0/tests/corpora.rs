//! Replays the fuzzing corpora of stage0's parsers on a stable compiler, with mutations: no panic.

#[path = "../../../fuzz/fuzz_targets/boot_exercise.rs"]
mod boot_exercise;
#[path = "../../../tests/mutate.rs"]
mod mutate;

use std::{fs, path::Path};

use mutate::mutate;

#[test]
fn no_input_of_the_corpora_or_near_them_makes_a_parser_panic() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let mut seed = 0x5EED;
    for (name, target) in [("bzimage", boot_exercise::bzimage as fn(&[u8])), ("boot_pages", boot_exercise::boot_pages)]
    {
        let mut seeds = 0;
        for entry in fs::read_dir(corpora.join(name)).unwrap().flatten() {
            let data = fs::read(entry.path()).unwrap();
            target(&data);
            for _ in 0..2000 {
                target(&mutate(&data, &mut seed));
            }
            seeds += 1;
        }
        assert!(seeds >= 2, "{name}: {seeds} seeds");
    }
}
