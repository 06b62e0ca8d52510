//! How fast layers become a root file system, next to a plain copy of the same bytes in the same run.
//!
//! `cargo run --release -p coffer-image --example throughput -- FOLDER`: takes what regular files the folder holds (at
//! most 256 MiB), as one layer.

use coffer_image::layer::{Limits, Merger};
use coffer_image::{Digest, erofs, verity};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const MAX_BYTES: u64 = 256 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).ok_or("usage: throughput FOLDER")?;
    let mut builder = tar::Builder::new(Vec::new());
    let mut files = 0;
    let mut pending = vec![folder.clone()];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(dir)?.flatten() {
            let kind = entry.file_type()?;
            if kind.is_dir() {
                pending.push(entry.path());
            } else if kind.is_file() && builder.get_ref().len() as u64 + entry.metadata()?.len() < MAX_BYTES {
                builder.append_path_with_name(entry.path(), entry.path().strip_prefix(&folder)?)?;
                files += 1;
            }
        }
    }
    let tar = builder.into_inner()?;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    gzip.write_all(&tar)?;
    let gzip = gzip.finish()?;
    let diff_id = Digest::of(&tar);
    println!("{files} files, tar of {} MB, gzip of {} MB", mega(tar.len() as u64), mega(gzip.len() as u64));

    let dir = tempfile::tempdir()?;
    for round in 1..=3 {
        println!("round {round}");
        report("plain copy of the tar", tar.len(), || Ok(File::create(dir.path().join("copy"))?.write_all(&tar)?))?;
        report("gunzip alone", tar.len(), || {
            std::io::copy(&mut flate2::read::GzDecoder::new(&gzip[..]), &mut std::io::sink())?;
            Ok(())
        })?;
        report("SHA-256 alone", tar.len(), || {
            assert_eq!(Digest::of(&tar), diff_id);
            Ok(())
        })?;
        report("tar to EROFS", tar.len(), || build(&tar, diff_id, dir.path()).map(drop))?;
        let mut image = None;
        report("gzip to EROFS", tar.len(), || {
            image = Some(build(&gzip, diff_id, dir.path())?);
            Ok(())
        })?;
        let image = image.ok_or("no image")?;
        report("verity tree", image.metadata()?.len() as usize, || {
            verity::append(&image, &[1; 32])?;
            Ok(())
        })?;
        println!("  image with tree: {} MB", mega(image.metadata()?.len()));
    }
    Ok(())
}

fn build(layer: &[u8], diff_id: Digest, dir: &Path) -> Result<File, Box<dyn std::error::Error>> {
    let mut merger = Merger::new(tempfile::tempfile_in(dir)?, dir, Limits::default());
    merger.add(diff_id, layer, diff_id)?;
    let merged = merger.finish()?;
    let out = tempfile::tempfile_in(dir)?;
    erofs::write(&merged.tree, &merged.spool, &out, [0; 16])?;
    Ok(out)
}

fn report(
    what: &str,
    bytes: usize,
    work: impl FnOnce() -> Result<(), Box<dyn std::error::Error>>,
) -> Result<Duration, Box<dyn std::error::Error>> {
    let started = Instant::now();
    work()?;
    let took = started.elapsed();
    let rate = bytes as u128 * 1_000 / took.as_nanos().max(1);
    println!("  {what:24} {:7.1} ms {rate:7} MB/s", took.as_secs_f64() * 1e3);
    Ok(took)
}

fn mega(bytes: u64) -> String {
    format!("{}.{}", bytes / 1_000_000, bytes / 100_000 % 10)
}
