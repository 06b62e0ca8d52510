//! The list of mutants goes along with the code: each names an item by name, and its text stands there exactly once. Whether a test
//! notices is `make mutants`, half an hour.

use std::{path::Path, process::Command};

#[test]
fn every_mutation_has_its_place() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/mutants");
    let output = Command::new("perl").arg(script).arg("--applies").output().expect("perl is part of Debian");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let listed: usize = text.split(' ').next().and_then(|count| count.parse().ok()).expect("a count");
    assert!(listed > 250, "only {listed} mutations listed");
}
