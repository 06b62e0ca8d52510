//! `coffer-bench-boxes`: what images and boxes cost a user each day, each figure beside what it cannot avoid, measured in the same run.
//!
//! Prints one JSON object with its samples; figures mean something on an idle machine only. `--short` is a tenth of the work: it shows
//! that it runs. `--only PART` measures one of them. What is held against what:
//!
//! - an image of one gzip layer, from a registry on loopback until its root file system is there, beside `gunzip` of that layer;
//! - `exec BOX true`, beside fork and exec of `true` in the guest by its own shell;
//! - 100 MB of a program's output, beside as many bytes that a guest which does nothing else writes to its vsock; of a box without a
//!   machine, which has none, beside a socket of this host;
//! - bytes out of and into a box through a port of `-p`, beside the same through passt alone, with nothing of ours before it;
//! - boxes of the least memory there is, which start at once: none may fail.

use std::{
    fs,
    io::Write as _,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use coffer_platform::files::Platform;
use coffer_tests::{
    World,
    forwarded::{Forwarded, Way},
    image::{busybox_layout, pulled},
    monitors::Monitor,
    raw_vsock::RawVsock,
    services::Registry,
};
use serde_json::{Value, json};

/// Files that a layer is made of: what real images have in theirs.
const SOURCES: &[&str] = &["/usr/lib/x86_64-linux-gnu", "/usr/bin", "/usr/share", "/usr/lib"];
const PARTS: [&str; 5] = ["pull", "exec", "output", "forwarded", "at_once"];
const USAGE: &str =
    "usage: coffer-bench-boxes [--short] [--isolation qemu|kvm|process] [--only pull|exec|output|forwarded|at_once]";
/// Limits aimed at.
const PULL_MOST: f64 = 1.4;
const EXEC_MOST_MS: f64 = 30.0;
const OUTPUT_LEAST: f64 = 0.7;
const FORWARDED_LEAST: f64 = 0.7;
/// What a guest's kernel runs in.
const LEAST_MEMORY: &str = "128m";

/// How much is measured.
struct Extent {
    layers_mib: &'static [usize],
    rounds: usize,
    execs: usize,
    output_mib: u16,
    forwarded_mib: u16,
    boxes: usize,
}

const WHOLE: Extent =
    Extent { layers_mib: &[100, 1024], rounds: 3, execs: 40, output_mib: 100, forwarded_mib: 200, boxes: 20 };
const SHORT: Extent = Extent { layers_mib: &[10], rounds: 1, execs: 4, output_mib: 10, forwarded_mib: 20, boxes: 3 };

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let (mut extent, mut isolation, mut only) = (WHOLE, "qemu".to_owned(), None);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--short" => extent = SHORT,
            "--isolation" => isolation = words.next().context("--isolation needs qemu, kvm or process")?,
            "--only" => only = Some(words.next().filter(|part| PARTS.contains(&part.as_str())).context(USAGE)?),
            _ => bail!(USAGE),
        }
    }
    let monitor = Monitor::of(&isolation).with_context(|| format!("no isolation {isolation}"))?;
    let world = World::on(monitor)?;
    if let Some(why) = monitor.lacks(&world)? {
        bail!("this host has no boxes of --isolation {isolation}: {why}");
    }
    let mut figures = serde_json::Map::from_iter([("isolation".to_owned(), json!(isolation))]);
    let (_registry, image) = pulled(&world)?;
    for part in PARTS.iter().filter(|part| only.as_deref().is_none_or(|only| only == **part)) {
        let found = match *part {
            "pull" => {
                let mut pulls = Vec::new();
                for mib in extent.layers_mib {
                    eprintln!("pulling a layer of {mib} MiB");
                    pulls.push(pull(mib << 20, extent.rounds)?);
                }
                json!(pulls)
            }
            "exec" | "output" => {
                eprintln!("{part} of a box");
                world.coffer(&["run", "-d", "--name", "bench", &image, "sleep", "3600"])?.ok()?;
                let found = match *part {
                    "exec" => exec(&world, extent.execs)?,
                    _ => output(&world, monitor, extent.output_mib, extent.rounds)?,
                };
                world.coffer(&["rm", "-f", "bench"])?.ok()?;
                found
            }
            "forwarded" => {
                eprintln!("through a published port, and through passt alone");
                forwarded(monitor, extent.forwarded_mib, extent.rounds)?
            }
            _ => {
                eprintln!("starting {} boxes at once", extent.boxes);
                // A box without a machine takes the memory that it uses.
                let memory = if monitor.has_machine() { ["--memory", LEAST_MEMORY].as_slice() } else { &[] };
                at_once(&world, &image, memory, extent.boxes)?
            }
        };
        figures.insert((*part).to_owned(), found);
    }
    println!("{}", Value::Object(figures));
    Ok(())
}

/// Seconds of some work.
fn seconds(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed().as_secs_f64())
}

fn best(samples: &[f64]) -> f64 {
    samples.iter().copied().fold(f64::INFINITY, f64::min)
}

/// From a registry until the root file system is there, each time into a home that has nothing.
fn pull(bytes: usize, rounds: usize) -> Result<Value> {
    let source = tempfile::Builder::new().prefix("coffer-").tempdir()?;
    let files = real_files(bytes)?;
    let extra: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
    let layout = source.path().join("layout");
    busybox_layout(&layout, "t", &extra)?;
    drop(files);
    let blob = largest(&layout.join("blobs/sha256"))?;
    let registry = Registry::start(source.path())?;
    let image = registry.push(&layout, "t", "bench:1")?;
    let (mut ready, mut unpacked) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let world = World::new()?;
        let one = [
            seconds(|| {
                let mut gunzip = Command::new("gunzip");
                gunzip.arg("-c").stdin(fs::File::open(&blob)?).stdout(Stdio::null());
                let done = gunzip.status().context("cannot start gunzip")?;
                ensure!(done.success(), "gunzip ended with {done}");
                Ok(())
            })?,
            seconds(|| world.coffer(&["pull", "-q", &image])?.ok().map(drop))?,
        ];
        // The first round fills the page cache.
        if round > 0 {
            unpacked.push(one[0]);
            ready.push(one[1]);
        }
    }
    let ratio = best(&ready) / best(&unpacked);
    Ok(json!({
        "unpacked_bytes": bytes, "packed_bytes": fs::metadata(&blob)?.len(),
        "ready_s": ready, "gunzip_s": unpacked, "ratio": ratio, "most": PULL_MOST, "held": ratio <= PULL_MOST,
    }))
}

/// Files of this host, about so many bytes of them.
fn real_files(bytes: usize) -> Result<Vec<(String, Vec<u8>)>> {
    let (mut files, mut left) = (Vec::new(), bytes);
    let mut folders: Vec<PathBuf> = SOURCES.iter().rev().map(PathBuf::from).collect();
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<_> = fs::read_dir(&folder)?.flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for path in entries {
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if meta.is_dir() {
                folders.push(path);
            } else if meta.is_file() && left > 0 {
                let Ok(mut contents) = fs::read(&path) else { continue };
                contents.truncate(left);
                left -= contents.len();
                files.push((format!("data/{}", files.len()), contents));
            }
            if left == 0 {
                return Ok(files);
            }
        }
    }
    bail!("this host has {left} bytes of files too few")
}

fn largest(folder: &Path) -> Result<PathBuf> {
    let mut all: Vec<_> = fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    all.sort_by_key(|path| fs::metadata(path).map_or(0, |meta| meta.len()));
    all.pop().context("a blob")
}

/// A command in a box, and what the guest itself takes for it.
fn exec(world: &World, count: usize) -> Result<Value> {
    let turns = |turns: usize| -> Result<f64> {
        let script = format!("i=0; while [ $i -lt {turns} ]; do /bin/busybox true; i=$((i+1)); done");
        seconds(|| world.coffer(&["exec", "bench", "sh", "-c", &script])?.ok().map(drop))
    };
    let (mut whole, mut own) = (Vec::new(), Vec::new());
    for round in 0..=count {
        let one = seconds(|| world.coffer(&["exec", "bench", "true"])?.ok().map(drop))?;
        let guest = (turns(21)? - turns(1)?) / 20.0;
        if round > 0 {
            whole.push(one * 1e3);
            own.push(guest * 1e3);
        }
    }
    let (median_whole, median_own) = (median(&whole), median(&own));
    let over = median_whole - median_own;
    Ok(json!({
        "exec_ms": whole, "fork_and_exec_ms": own, "median_ms": median_whole, "over_ms": over,
        "most_ms": EXEC_MOST_MS, "held": over <= EXEC_MOST_MS,
    }))
}

/// What a program writes, until the last byte of it is here.
fn output(world: &World, monitor: Monitor, mib: u16, rounds: usize) -> Result<Value> {
    let bytes = usize::from(mib) << 20;
    let line = monitor.has_machine().then(|| RawVsock::start(&Platform::load(&world.platform)?, bytes)).transpose()?;
    let (mut through, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        raw.push(match &line {
            Some(line) => line.once()?,
            None => seconds(|| socket_copy(bytes))?,
        });
        through.push(seconds(|| {
            // In pieces that are large for the program too: what it takes itself is not what is measured.
            let count = format!("count={}", bytes >> 16);
            let mut child = world
                .command(&["exec", "bench", "dd", "if=/dev/zero", "bs=64k", &count])
                .stderr(Stdio::null())
                .stdout(Stdio::piped())
                .stdin(Stdio::null())
                .spawn()?;
            let came = drain(child.stdout.take().context("piped")?)?;
            ensure!(child.wait()?.success() && came == bytes, "{came} bytes of {bytes} came");
            Ok(())
        })?);
    }
    let against = if line.is_some() { "a guest's raw vsock" } else { "a socket of this host: no vsock is on the way" };
    // The host's socket is quicker than any line out of a guest: it says how far there is to go, and is no limit.
    let least = line.is_some().then_some(OUTPUT_LEAST);
    let (through_rate, raw_rate) = (rate(mib, &through), rate(mib, &raw));
    let ratio = through_rate / raw_rate;
    Ok(json!({
        "bytes": bytes, "through_s": through, "raw_s": raw, "through_mib_s": through_rate, "raw_mib_s": raw_rate,
        "against": against, "ratio": ratio, "least": least, "held": least.map(|least| ratio >= least),
    }))
}

fn rate(mib: u16, samples: &[f64]) -> f64 {
    f64::from(mib) / best(samples)
}

/// Each way through a port of `-p`, and through passt alone, by turns.
fn forwarded(monitor: Monitor, mib: u16, rounds: usize) -> Result<Value> {
    let bytes = usize::from(mib) << 20;
    let (ours, alone) = (Forwarded::published(monitor, bytes)?, Forwarded::by_passt_alone(monitor, bytes)?);
    let of = |way: Way| -> Result<Value> {
        let (mut through, mut passt) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            through.push(ours.once(way)?);
            passt.push(alone.once(way)?);
        }
        let (through_rate, passt_rate) = (rate(mib, &through), rate(mib, &passt));
        let ratio = through_rate / passt_rate;
        Ok(json!({
            "bytes": bytes, "through_s": through, "passt_s": passt, "through_mib_s": through_rate, "passt_mib_s": passt_rate,
            "ratio": ratio, "least": FORWARDED_LEAST, "held": ratio >= FORWARDED_LEAST,
        }))
    };
    Ok(json!({ "out": of(Way::Out)?, "into": of(Way::Into)? }))
}

fn socket_copy(bytes: usize) -> Result<()> {
    let (mut from, to) = UnixStream::pair()?;
    let writer = std::thread::spawn(move || -> std::io::Result<()> {
        let (piece, mut left) = (vec![0; 64 << 10], bytes);
        while left > 0 {
            let next = left.min(piece.len());
            from.write_all(&piece[..next])?;
            left -= next;
        }
        Ok(())
    });
    let came = drain(to)?;
    writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    ensure!(came == bytes, "{came} bytes of {bytes} came");
    Ok(())
}

fn drain(mut from: impl std::io::Read) -> Result<usize> {
    let (mut piece, mut came) = (vec![0; 64 << 10], 0);
    loop {
        match from.read(&mut piece)? {
            0 => return Ok(came),
            count => came += count,
        }
    }
}

/// So many boxes, started at once.
fn at_once(world: &World, image: &str, memory: &[&str], count: usize) -> Result<Value> {
    let begun = Instant::now();
    let mut running = Vec::new();
    for _ in 0..count {
        let words = [&["run", "--rm"], memory, &[image, "true"]].concat();
        running.push(world.command(&words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?);
    }
    let mut failed = Vec::new();
    for child in running {
        let ended = child.wait_with_output()?;
        if !ended.status.success() {
            failed.push(format!("{}: {}", ended.status, String::from_utf8_lossy(&ended.stderr).trim()));
        }
    }
    Ok(json!({ "boxes": count, "all_s": begun.elapsed().as_secs_f64(), "failed": failed, "held": failed.is_empty() }))
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
