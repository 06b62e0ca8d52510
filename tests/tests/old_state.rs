//! State written by version 0.1.0 opens, or is refused by name with a way out. `testdata/state-0.1.0/README.md` says how it was
//! made.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use coffer_tests::process::{Finished, binary, run};
use serde_json::Value;
use tempfile::TempDir;

/// A copy of a kept folder, private again: git keeps no modes.
fn copied(name: &str) -> Result<(TempDir, PathBuf)> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/state-0.1.0").join(name);
    let dir = tempfile::tempdir()?;
    let to = dir.path().join(name);
    copy(&from, &to)?;
    Ok((dir, to))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            fs::set_permissions(&target, Permissions::from_mode(0o600))?;
        }
    }
    Ok(())
}

fn coffer(home: &Path, words: &[&str]) -> Result<Finished> {
    run(Command::new(binary("coffer")?).arg("--home").arg(home).args(words), b"")
}

fn json(finished: Finished) -> Result<Value> {
    let text = finished.ok()?;
    serde_json::from_str(&text).with_context(|| text)
}

#[test]
fn a_home_opens_with_its_boxes_and_images() -> Result<()> {
    let (_dir, home) = copied("home")?;
    let boxes = coffer(&home, &["ps", "-a"])?.ok()?;
    for name in ["plain", "simulated"] {
        assert!(boxes.contains(name), "{boxes}");
        let inspected = json(coffer(&home, &["inspect", name])?)?;
        assert_eq!(
            inspected[0]["Name"].as_str().map(|found| found.trim_start_matches('/')),
            Some(name),
            "{inspected:#}"
        );
    }
    let images = coffer(&home, &["images"])?.ok()?;
    assert!(images.contains("hello"), "{images}");
    // The image is whole: a reference and its blobs.
    let listed = json(coffer(&home, &["--json", "images"])?)?;
    let reference = listed[0]["reference"].as_str().context("a reference")?;
    let refused = coffer(&home, &["rmi", reference])?;
    assert!(refused.status == 3 && refused.stderr.contains("is used by box"), "{}", refused.describe());
    for name in ["plain", "simulated"] {
        coffer(&home, &["rm", name])?.ok()?;
    }
    coffer(&home, &["rmi", reference])?.ok()?;
    Ok(())
}

#[test]
fn the_simulator_and_the_owner_are_who_they_were() -> Result<()> {
    let (dir, home) = copied("home")?;
    let kept: Value = serde_json::from_slice(&fs::read(home.join("expect.json"))?)?;
    let out = dir.path().join("evidence");
    let out_text = out.to_str().context("a plain name")?;
    let made = json(coffer(&home, &["--json", "sim", "evidence", "--product", "milan", "--out", out_text])?)?;
    assert_eq!((&made["anchor"], &made["chip_id"]), (&kept["anchor"], &kept["chip_id"]));
    let record = format!("{out_text}/evidence.cmw");
    coffer(&home, &["verify", &record, "--allow-simulated"])?.ok()?;
    let owner = coffer(&home, &["owner", "show"])?.ok()?;
    assert_eq!(owner.trim(), kept["owner"].as_str().context("an owner")?);
    Ok(())
}

/// A box that was made for another platform, in a home that was moved: it starts, or says by name why not.
#[test]
fn an_old_box_starts_or_says_why_not() -> Result<()> {
    let (_dir, home) = copied("home")?;
    for name in ["plain", "simulated"] {
        let started = coffer(&home, &["start", name])?;
        if started.status != 0 {
            assert!(started.stderr.contains("hint: "), "{}", started.describe());
            assert!(
                !started.stderr.contains("internal") && !started.stderr.contains("panicked"),
                "{}",
                started.describe()
            );
        }
        coffer(&home, &["rm", "-f", name])?.ok()?;
    }
    Ok(())
}
