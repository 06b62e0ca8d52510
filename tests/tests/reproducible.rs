//! The platform is the same, byte for byte, wherever it is built.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use coffer_tests::{
    World,
    process::{binary, run},
};

/// Copies what git tracks, as it stands in the work tree.
fn copy_sources(from: &Path, to: &Path) -> Result<usize> {
    let listed = run(Command::new("git").arg("-C").arg(from).args(["ls-files", "-z", "--cached"]), b"")?.ok()?;
    let mut copied = 0;
    for name in listed.split_terminator('\0') {
        let (source, target) = (from.join(name), to.join(name));
        if source.is_file() {
            fs::create_dir_all(target.parent().context("a file lies in a folder")?)?;
            fs::copy(&source, &target)?;
            copied += 1;
        }
    }
    Ok(copied)
}

#[test]
fn another_folder_gives_identical_bytes() -> Result<()> {
    let world = World::new()?;
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let elsewhere = world.folder.path().join("some other place/coffer");
    ensure!(copy_sources(&repository, &elsewhere)? > 200, "sources were copied");
    let mut build = Command::new(elsewhere.join("scripts/platform"));
    build
        .arg("out")
        .current_dir(&elsewhere)
        .env("CARGO_TARGET_DIR", elsewhere.join("target"))
        .env("CARGO_NET_OFFLINE", "true")
        // What packs is the same program in each folder; what it packs is built anew.
        .env("COFFER_PLATFORM_TOOL", binary("coffer-platform")?);
    // Nothing of the build that runs this test.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO") || name.starts_with("RUST")) {
        if !["CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_NET_OFFLINE", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"]
            .contains(&name.as_str())
        {
            build.env_remove(name);
        }
    }
    run(&mut build, b"")?.ok()?;
    for name in ["stage0.bin", "initrd", "kernel", "platform.json", "build/coffer-init"] {
        let (here, there) = (fs::read(world.platform.join(name))?, fs::read(elsewhere.join("out").join(name))?);
        ensure!(here == there, "{name} differs: {} and {} bytes", here.len(), there.len());
    }
    let init = fs::read(elsewhere.join("out/build/coffer-init"))?;
    let place = elsewhere.to_string_lossy().into_owned();
    ensure!(
        !init.windows(place.len()).any(|window| window == place.as_bytes()),
        "init names the folder it was built in"
    );
    Ok(())
}
