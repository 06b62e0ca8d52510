//! What a hostile registry or image can make a process take: little, and no more for a larger attack.
//!
//! Each case runs in a process of its own, whose peak is measured. A case that took what it is offered would take
//! gigabytes.

mod layers;
mod registries;
#[allow(dead_code, reason = "it is the registry of another test, with more faults than are needed here")]
#[path = "../pull/registry.rs"]
mod registry;

use std::process::Command;

/// What a pull may take, whatever the registry answers: the process itself, and a few documents.
const PULL: u64 = 96 << 20;

/// Names the case to the process that runs it.
const CASE: &str = "COFFER_MEMORY_CASE";

/// Runs a case in a process of its own. Gives its peak in bytes, and its last word: the error it ended with.
fn peak_of(case: &str) -> (u64, String) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "one_case", "--ignored", "--nocapture", "--test-threads=1"])
        .env(CASE, case)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{case}: {text}{}", String::from_utf8_lossy(&output.stderr));
    let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    (line("peak ").unwrap().parse().unwrap(), line("error ").unwrap_or_default())
}

#[test]
#[ignore = "run by the other tests, in a process of its own"]
fn one_case() {
    let Ok(case) = std::env::var(CASE) else { return };
    let (kind, name) = case.split_once(' ').unwrap();
    let error = match kind {
        "layer" => layers::run(name),
        _ => registries::run(name),
    };
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    println!("\npeak {}\nerror {error}", peak * 1024);
}

#[test]
fn a_registry_without_end_is_refused_within_a_bound() {
    for (case, words) in registries::CASES {
        let (peak, error) = peak_of(&format!("registry {case}"));
        println!("{case}: {} MiB, {error}", peak >> 20);
        assert!(error.contains(words), "{case}: {error}");
        assert!(peak <= PULL, "{case}: took {peak} bytes");
    }
}

#[test]
fn an_image_takes_no_more_than_its_limit() {
    for (case, words) in layers::REFUSED {
        let (peak, error) = peak_of(&format!("layer {case}"));
        println!("{case}: {} MiB, {error}", peak >> 20);
        assert!(error.contains(words), "{case}: {error}");
        assert!(peak <= layers::FIXED, "{case}: took {peak} bytes");
    }
}

#[test]
fn the_largest_image_within_the_limit_takes_what_was_charged_for_it() {
    for case in layers::SHAPES {
        let (peak, error) = peak_of(&format!("layer {case}"));
        println!("{case}: {} MiB", peak >> 20);
        assert!(error.contains("memory for names and attributes"), "{case}: {error}");
        assert!(peak <= layers::FIXED + layers::MEMORY, "{case}: took {peak} bytes");
    }
}
