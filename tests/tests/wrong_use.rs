//! Wrong use is answered well: each test is of a message and an exit code.

use std::{
    fs,
    net::TcpListener,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Result;
use coffer_tests::{
    World,
    image::busybox_layout,
    process::{Finished, binary, run},
    services::{Registry, free_port},
};

fn pushed(world: &World) -> Result<(Registry, String)> {
    let layout = world.folder.path().join("layout");
    busybox_layout(&layout, "t", &[])?;
    let registry = Registry::start(world.folder.path())?;
    let image = registry.push(&layout, "t", "app:1")?;
    Ok((registry, image))
}

#[track_caller]
fn says(finished: &Finished, status: i32, words: &[&str]) {
    assert_eq!(finished.status, status, "{}", finished.describe());
    for word in words {
        assert!(finished.stderr.contains(word), "expected {word:?}\n{}", finished.describe());
    }
    assert!(!finished.text().contains("panicked"), "{}", finished.describe());
}

#[test]
fn an_unknown_image_is_named() -> Result<()> {
    let world = World::new()?;
    let (registry, _) = pushed(&world)?;
    let image = format!("{}/nosuch:1", registry.address);
    says(&world.coffer(&["pull", &image])?, 1, &[&image]);
    says(&world.coffer(&["run", &image])?, 125, &[&image]);
    says(&world.coffer(&["run", "--pull", "never", &image])?, 125, &[&image]);
    Ok(())
}

#[test]
fn a_registry_that_is_down_is_unreachable() -> Result<()> {
    let world = World::new()?;
    let address = format!("127.0.0.1:{}", free_port()?);
    let image = format!("{address}/app:1");
    says(&world.coffer(&["pull", &image])?, 7, &[&address]);
    says(&world.coffer(&["run", &image])?, 125, &[&address]);
    let json = world.coffer(&["--json", "pull", &image])?;
    let value: serde_json::Value = serde_json::from_str(&json.stdout)?;
    assert_eq!(value["error"]["class"], "unreachable", "{}", json.describe());
    Ok(())
}

#[test]
fn a_corrupt_layer_is_refused_with_both_digests() -> Result<()> {
    let world = World::new()?;
    let (registry, image) = pushed(&world)?;
    let blobs = registry.storage.join("docker/registry/v2/blobs/sha256");
    let mut layer = (0, std::path::PathBuf::new());
    for entry in fs::read_dir(&blobs)?.flatten().flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten()) {
        let data = entry?.path().join("data");
        layer = layer.max((fs::metadata(&data)?.len(), data));
    }
    let mut bytes = fs::read(&layer.1)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&layer.1, bytes)?;
    let digest = layer.1.parent().and_then(|p| p.file_name()).unwrap_or_default().to_string_lossy().into_owned();
    says(&world.coffer(&["pull", &image])?, 3, &[&digest, "sha256:"]);
    says(&world.coffer(&["run", &image])?, 125, &[&digest]);
    assert!(world.coffer(&["images"])?.ok()?.lines().count() <= 1, "a corrupt image is listed");
    Ok(())
}

#[test]
fn a_full_disk_is_named_and_nothing_half_written_stays() -> Result<()> {
    let world = World::new()?;
    let (_registry, image) = pushed(&world)?;
    let small = world.folder.path().join("small");
    fs::create_dir(&small)?;
    let mounted = run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=900k", "tmpfs"]).arg(&small), b"")?;
    if mounted.status != 0 {
        eprintln!("skipped: no tmpfs can be mounted here: {}", mounted.stderr);
        return Ok(());
    }
    let finished = run(world.command(&["pull", &image]).env("COFFER_HOME", small.join("home")), b"");
    let listed = run(world.command(&["images", "-q"]).env("COFFER_HOME", small.join("home")), b"");
    run(Command::new("umount").arg(&small), b"")?;
    says(&finished?, 3, &["full"]);
    assert_eq!(listed?.stdout, "");
    Ok(())
}

#[test]
fn tee_without_hardware_refuses_and_names_the_simulator() -> Result<()> {
    let world = World::new()?;
    let (_registry, image) = pushed(&world)?;
    says(&world.coffer(&["run", "--tee", &image])?, 125, &["SEV-SNP", "--tee-simulate"]);
    assert_eq!(world.coffer(&["ps", "-aq"])?.ok()?, "", "a box was left behind");
    Ok(())
}

#[test]
fn a_key_broker_that_is_down_is_named_and_nothing_hangs() -> Result<()> {
    let world = World::new()?;
    let (_registry, image) = pushed(&world)?;
    let address = format!("127.0.0.1:{}", free_port()?);
    let pin = "ab".repeat(32);
    let start = Instant::now();
    let finished = world.coffer(&[
        "run",
        "-d",
        "--name",
        "lonely",
        "--tee-simulate",
        "--kbs",
        &address,
        "--kbs-pin",
        &pin,
        "--secret",
        "c=kbs:///a/b/c",
        &image,
        "true",
    ])?;
    says(&finished, 125, &[&address, "key broker"]);
    assert!(start.elapsed() < Duration::from_secs(100), "{:?}", start.elapsed());
    Ok(())
}

#[test]
fn a_port_in_use_is_named() -> Result<()> {
    let world = World::new()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let state = world.folder.path().join("kbs");
    let kbs = binary("coffer-kbs")?;
    run(Command::new(&kbs).args(["init", "--state"]).arg(&state), b"")?.ok()?;
    let finished = run(
        Command::new(&kbs)
            .args(["serve", "--listen", &address, "--admin-listen", "127.0.0.1:0", "--state"])
            .arg(&state),
        b"",
    )?;
    says(&finished, 3, &[&address]);
    Ok(())
}

#[test]
fn bad_flags_are_usage_errors_with_dockers_codes() -> Result<()> {
    let world = World::new()?;
    says(&world.coffer(&["run", "--nosuch", "x"])?, 125, &["--nosuch"]);
    says(&world.coffer(&["exec", "--nosuch", "x"])?, 125, &["--nosuch"]);
    says(&world.coffer(&["ps", "--nosuch"])?, 2, &["--nosuch"]);
    says(&world.coffer(&["ps", "--filter", "bogus=1"])?, 2, &["bogus"]);
    says(&world.coffer(&["run", "--name", "bad/name", "x"])?, 125, &["bad/name"]);
    says(&world.coffer(&["frobnicate"])?, 2, &["frobnicate"]);
    Ok(())
}

#[test]
fn unknown_boxes_and_missing_parts_are_named() -> Result<()> {
    let world = World::new()?;
    says(&world.coffer(&["logs", "nosuch"])?, 1, &["nosuch"]);
    says(&world.coffer(&["stop", "nosuch"])?, 1, &["nosuch"]);
    says(&world.coffer(&["attest", "nosuch"])?, 1, &["nosuch"]);
    says(&world.coffer(&["rm", "nosuch"])?, 1, &["nosuch"]);
    assert_eq!(world.coffer(&["rm", "-f", "nosuch"])?.status, 0);

    let (_registry, image) = pushed(&world)?;
    let empty = world.folder.path().join("empty");
    fs::create_dir(&empty)?;
    let finished = run(world.command(&["run", &image, "true"]).env("COFFER_PLATFORM", &empty), b"")?;
    says(&finished, 125, &["platform", "make platform"]);
    let finished = run(world.command(&["run", &image, "true"]).env("COFFER_QEMU", "/nosuch/qemu"), b"")?;
    says(&finished, 125, &["COFFER_QEMU"]);
    Ok(())
}
