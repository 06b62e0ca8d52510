//! Replays the fuzzing corpora of stage0's parsers on a stable compiler, with mutations: no panic.

#[path = "../../../fuzz/fuzz_targets/boot_exercise.rs"]
mod boot_exercise;

use std::{fs, path::Path};

/// Flips, cuts and extends by xorshift; the same in every run.
fn mutate(data: &[u8], seed: &mut u64) -> Vec<u8> {
    let mut next = |below: usize| {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        (*seed >> 11) as usize % below.max(1)
    };
    let mut out = data.to_vec();
    for _ in 0..=next(4) {
        let at = next(out.len());
        match next(4) {
            0 | 1 if !out.is_empty() => out[at] ^= 1 << next(8),
            2 => out.truncate(at),
            _ => out.insert(at, next(256) as u8),
        }
    }
    out
}

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
