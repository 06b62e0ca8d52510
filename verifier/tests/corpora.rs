//! Replays the fuzzing corpora and the genuine vectors on a stable compiler, with mutations: no panic, and no allocation
//! beyond 16 times the input.

use crate::exercise;
use crate::vectors;
use std::path::{Path, PathBuf};

use crate::mutate::mutate;
use crate::sys::{HELD, MOST};

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 11] = [
    ("report", exercise::report),
    ("certificate", exercise::certificate),
    ("crl", exercise::crl),
    ("cert_table", exercise::cert_table),
    ("hcl", exercise::hcl),
    ("cmw", exercise::cmw),
    ("tsm", exercise::tsm),
    ("policy", exercise::policy),
    ("manifest", exercise::manifest),
    ("id_block", exercise::id_block),
    ("token", exercise::token),
];

/// Runs one input and checks how much it made us hold. Small inputs may cost a fixed amount: tables of the parsers.
fn run((name, target): Target, data: &[u8], origin: &dyn std::fmt::Display) {
    const FIXED: usize = 64 * 1024;
    HELD.with(|held| held.set(0));
    MOST.with(|most| most.set(0));
    target(data);
    let most = MOST.with(std::cell::Cell::get);
    assert!(most <= FIXED + 16 * data.len(), "{name} {origin}: {} bytes made it hold {most}", data.len());
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    all.sort();
    all
}

#[test]
fn corpora_and_mutated_vectors_neither_panic_nor_swell() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let mut seeds: Vec<(Target, Vec<u8>)> = Vec::new();
    for target in TARGETS {
        let found = files(&corpora.join(target.0));
        assert!(!found.is_empty(), "no corpus for {}", target.0);
        for path in found {
            let data = std::fs::read(&path).unwrap();
            run(target, &data, &path.display());
            seeds.push((target, data));
        }
    }
    if let Some(root) = vectors::root() {
        for path in files(&root).iter().flat_map(|folder| files(folder)) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let target = match name.as_str() {
                "report.bin" => "report",
                "hcl.bin" => "hcl",
                "certs.bin" => "cert_table",
                other if other.contains("crl") => "crl",
                _ if path.extension().is_some_and(|end| end == "der") => "certificate",
                _ => continue,
            };
            let target = *TARGETS.iter().find(|(name, _)| *name == target).unwrap();
            let data = std::fs::read(&path).unwrap();
            run(target, &data, &path.display());
            seeds.push((target, data));
        }
    }
    let mut seed = 0x1234_5678_9abc_def1;
    for (target, data) in &seeds {
        for round in 0..300 {
            run(*target, &mutate(data, &mut seed), &format!("mutation {round}"));
        }
    }
    // Every target sees every seed too: a parser must bear whatever it is handed.
    for target in TARGETS {
        for (_, data) in &seeds {
            run(target, data, &"foreign seed");
        }
    }
}
