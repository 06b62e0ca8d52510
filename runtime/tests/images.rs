//! A store with one image that is whole and one that is not.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use coffer_image::Digest;

/// Runs `coffer` with this home.
fn coffer(home: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_coffer")).env("COFFER_HOME", home).args(words).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A home whose store knows `a/whole:1` and, if asked, `a/lost:1`, whose manifest is gone.
fn home(dir: &Path, lost: bool) -> (Digest, Digest) {
    let blobs = dir.join("images/blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let manifest = serde_json::json!({"schemaVersion": 2, "layers": [], "config": {
        "mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(config), "size": config.len()}});
    let manifest = manifest.to_string();
    for bytes in [&config[..], manifest.as_bytes()] {
        fs::write(blobs.join(Digest::of(bytes).hex()), bytes).unwrap();
    }
    let (whole, gone) = (Digest::of(manifest.as_bytes()), Digest::of(b"gone"));
    let mut references = serde_json::json!({"docker.io/a/whole:1": {"manifest": whole, "index": null}});
    if lost {
        references["docker.io/a/lost:1"] = serde_json::json!({"manifest": gone, "index": null});
    }
    let index = serde_json::json!({"version": 1, "references": references});
    fs::write(dir.join("images/index.json"), index.to_string()).unwrap();
    (Digest::of(config), gone)
}

#[test]
fn a_damaged_image_hides_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (id, gone) = home(dir.path(), true);
    let output = coffer(dir.path(), &["images"]);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(3), "{out}{err}");
    assert!(out.contains("a/whole") && out.contains(&id.short()), "{out}");
    assert!(err.contains("docker.io/a/lost:1: manifest") && err.contains(&gone.to_string()), "{err}");
    assert!(err.contains("hint: coffer pull docker.io/a/lost:1 brings it back"), "{err}");

    let output = coffer(dir.path(), &["images", "-q"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(3), format!("{}\n", id.short())));

    let output = coffer(dir.path(), &["--json", "images"]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(3), String::new()));
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&list[0]["reference"], &list[0]["id"]), (&"docker.io/a/whole:1".into(), &id.to_string().into()));
    assert_eq!((&list[1]["reference"], &list[1]["error"]["class"]), (&"docker.io/a/lost:1".into(), &"config".into()));
    assert!(list[0].get("error").is_none() && list[1]["id"].is_null(), "{list}");
}

#[test]
fn a_damaged_image_can_be_removed_and_then_all_is_well() {
    let dir = tempfile::tempdir().unwrap();
    home(dir.path(), true);
    let output = coffer(dir.path(), &["rmi", "a/lost:1"]);
    assert_eq!(text(&output.stdout), "Untagged: docker.io/a/lost:1\n", "{output:?}");
    let output = coffer(dir.path(), &["images"]);
    assert!(output.status.success() && text(&output.stdout).contains("a/whole"), "{output:?}");
}

#[test]
fn a_store_without_damage_says_so_by_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    home(dir.path(), false);
    let output = coffer(dir.path(), &["images"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
