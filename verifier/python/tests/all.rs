//! The package as Python sees it: its own Python beside the extension that was built for this test, and `tests/test_*.py` run on it.

use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "../../../tests/vectors.rs"]
mod vectors;

/// Beside this program, or in the folder above it.
fn built(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no {name} beside {}; run `make build`", own.display()))
}

#[test]
fn the_package_does_in_python_what_its_tests_say() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().unwrap();
    let package = dir.path().join("coffer_verifier");
    std::fs::create_dir(&package).unwrap();
    for entry in std::fs::read_dir(here.join("coffer_verifier")).unwrap().flatten().filter(|e| e.path().is_file()) {
        std::fs::copy(entry.path(), package.join(entry.file_name())).unwrap();
    }
    std::fs::copy(built("libcoffer_verifier_native.so"), package.join("_native.abi3.so")).unwrap();
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir"]).arg(here).arg(here.join("tests"));
    // Python looks where it stands first, and the package there has no extension.
    python.current_dir(dir.path()).env("PYTHONPATH", dir.path()).env("PYTHONDONTWRITEBYTECODE", "1");
    python.env("COFFER", built("coffer")).env("COFFER_VERIFIER", built("coffer-verifier"));
    python.env("COFFER_HOME", dir.path().join("home")).env("TMPDIR", dir.path());
    if let Some(vectors) = vectors::folder("snp") {
        python.env("COFFER_SNP_VECTORS", vectors);
    }
    let output = python.output().expect("python3; `make setup` installs it and its pytest");
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}
