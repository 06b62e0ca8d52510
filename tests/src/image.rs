//! A small real OCI image made from Debian's busybox-static.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};
use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{World, monitors::Monitor, process::run, services::Registry};

/// Commands the image has.
const APPLETS: &[&str] = &[
    "sh",
    "cat",
    "ls",
    "sha256sum",
    "echo",
    "sleep",
    "true",
    "false",
    "id",
    "env",
    "head",
    "dd",
    "wc",
    "mount",
    "ps",
    "hostname",
    "kill",
    "rm",
    "touch",
    "mkdir",
    "grep",
    "cut",
    "tr",
    "test",
    "df",
    "uname",
];

/// Writes an OCI layout with one image, tagged `tag`, into `folder`. `extra` files go in beside busybox.
///
/// # Errors
/// If busybox is missing or a file cannot be written.
pub fn busybox_layout(folder: &Path, tag: &str, extra: &[(&str, &[u8])]) -> Result<()> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .find_map(|path| fs::read(path).ok())
        .context("no busybox on this machine; run `make setup`")?;
    let mut tar = tar::Builder::new(Vec::new());
    for path in ["bin/", "etc/", "proc/", "sys/", "dev/", "run/", "tmp/", "lib64/"] {
        append(&mut tar, path, tar::EntryType::Directory, if path == "tmp/" { 0o1777 } else { 0o755 }, &[], None)?;
    }
    append(&mut tar, "bin/busybox", tar::EntryType::Regular, 0o755, &busybox, None)?;
    for applet in APPLETS {
        append(&mut tar, &format!("bin/{applet}"), tar::EntryType::Symlink, 0o777, &[], Some("busybox"))?;
    }
    let passwd = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
    append(&mut tar, "etc/passwd", tar::EntryType::Regular, 0o644, passwd, None)?;
    append(&mut tar, "etc/group", tar::EntryType::Regular, 0o644, b"root:x:0:\nnogroup:x:65534:\n", None)?;
    for (path, contents) in extra {
        let mode = if path.starts_with("bin/") || path.starts_with("lib64/") { 0o755 } else { 0o644 };
        append(&mut tar, path, tar::EntryType::Regular, mode, contents, None)?;
    }
    let layer = tar.into_inner()?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::Write::write_all(&mut gzip, &layer)?;
    let packed = gzip.finish()?;

    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let put = |bytes: &[u8]| -> Result<(String, usize)> {
        let digest = hex::encode(Sha256::digest(bytes));
        fs::write(blobs.join(&digest), bytes)?;
        Ok((format!("sha256:{digest}"), bytes.len()))
    };
    let config = json!({
        "architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z",
        "config": { "Env": ["PATH=/bin"], "Cmd": ["/bin/sh"], "WorkingDir": "/" },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", hex::encode(Sha256::digest(&layer)))] },
    });
    let (config_digest, config_size) = put(&serde_json::to_vec(&config)?)?;
    let (layer_digest, layer_size) = put(&packed)?;
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": manifest_type,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config_size },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": layer_digest, "size": layer_size }],
    });
    let (manifest_digest, manifest_size) = put(&serde_json::to_vec(&manifest)?)?;
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": manifest_type, "digest": manifest_digest, "size": manifest_size,
            "annotations": { "org.opencontainers.image.ref.name": tag },
        }],
    });
    fs::write(folder.join("index.json"), serde_json::to_vec(&index)?)?;
    fs::write(folder.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(())
}

fn append(
    tar: &mut tar::Builder<Vec<u8>>,
    path: &str,
    kind: tar::EntryType,
    mode: u32,
    contents: &[u8],
    link: Option<&str>,
) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(1_767_225_600);
    header.set_size(contents.len() as u64);
    if let Some(link) = link {
        header.set_link_name(link)?;
    }
    tar.append_data(&mut header, path, contents)?;
    Ok(())
}

/// A world whose boxes have no machine, with an image; nothing where this host has none such, which is said.
///
/// # Errors
/// As what it starts.
pub fn without_a_machine() -> Result<Option<(World, Registry, String)>> {
    let monitor = Monitor::of("process").context("a row")?;
    let world = World::on(monitor)?;
    if let Some(why) = monitor.lacks(&world)? {
        println!("skipped: {why}");
        return Ok(None);
    }
    let (registry, image) = pulled(&world)?;
    Ok(Some((world, registry, image)))
}

/// A program of one file of Rust that needs nothing of an image. `source`: under `tests/testdata`.
///
/// # Errors
/// What the compiler said.
pub fn program(folder: &Path, source: &str) -> Result<Vec<u8>> {
    let built = folder.join("program");
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "-C", "target-feature=+crt-static", "-C", "strip=symbols", "-o"]).arg(&built);
    run(rustc.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(source)), b"")?.ok()?;
    Ok(fs::read(built)?)
}

/// The plain image in a registry of its own, pulled into this world.
///
/// # Errors
/// What a tool said.
pub fn pulled(world: &World) -> Result<(Registry, String)> {
    pulled_with(world, &[])
}

/// The same with `extra` files.
///
/// # Errors
/// What a tool said.
pub fn pulled_with(world: &World, extra: &[(&str, &[u8])]) -> Result<(Registry, String)> {
    let layout = world.folder.path().join("layout");
    busybox_layout(&layout, "t", extra)?;
    let registry = Registry::start(world.folder.path())?;
    let image = registry.push(&layout, "t", "app:1")?;
    world.coffer(&["pull", "-q", &image])?.ok()?;
    Ok((registry, image))
}
