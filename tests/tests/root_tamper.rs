//! Disks of the host's, booted for real: what differs from the spec is never read, and what leaves the guest is ciphertext.
//! Told on each monitor that works here.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use coffer_spec::{Document, VerityTable};
use coffer_tests::{
    World,
    image::busybox_layout,
    monitors::{Monitor, on_each, on_each_machine},
    process::{Finished, wait_for},
    services::Registry,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Stands in a file of the image, and nowhere else.
const MARKER: &str = "this is what the owner measured";
const BLOCK: u64 = 4096;

struct Boxes {
    world: World,
    registry: Registry,
    image: String,
    payload: Vec<u8>,
}

impl Boxes {
    fn on(monitor: Monitor) -> Result<Self> {
        let world = World::on(monitor)?;
        let payload: Vec<u8> =
            (0..(1 << 20) / 64).flat_map(|line| format!("{MARKER} {line:031}\n").into_bytes()).collect();
        let registry = Registry::start(world.folder.path())?;
        let push = |tag: &str, files: &[(&str, &[u8])]| -> Result<String> {
            let layout = world.folder.path().join(tag);
            busybox_layout(&layout, tag, files)?;
            let image = registry.push(&layout, tag, &format!("{tag}:1"))?;
            world.coffer(&["pull", "-q", &image])?.ok()?;
            Ok(image)
        };
        let image = push("app", &[("payload", &payload)])?;
        Ok(Self { world, registry, image, payload })
    }

    fn create(&self, name: &str, flags: &[&str], script: &str) -> Result<PathBuf> {
        let mut words = vec!["create", "--name", name];
        words.extend_from_slice(flags);
        words.extend([self.image.as_str(), "sh", "-c", script]);
        self.world.coffer(&words)?.ok()?;
        let list: Value = serde_json::from_str(&self.world.coffer(&["inspect", name])?.ok()?)?;
        Ok(PathBuf::from(list[0]["Folder"].as_str().context("a folder")?))
    }

    /// What a box and its guest said of themselves.
    fn told(&self, name: &str) -> String {
        let words: [&[&str]; 3] = [&["ps", "-a"], &["logs", name], &["logs", "--console", name]];
        let said = words.map(|words| self.world.coffer(words).map(|finished| finished.describe()));
        said.map(|said| said.unwrap_or_else(|error| error.to_string())).join("\n")
    }

    fn start(&self, name: &str) -> Result<Finished> {
        self.world.coffer(&["start", "-a", name])
    }

    /// The root image of the one image there is.
    fn root(&self) -> Result<PathBuf> {
        let mut found = self.world.roots()?;
        ensure!(found.len() == 1, "{found:?}");
        found.pop().context("a root image")
    }
}

fn document(folder: &Path) -> Result<Document> {
    Ok(Document::parse(fs::read(folder.join("spec.toml"))?)?)
}

/// Offset of `needle` in `bytes`, not before `from`.
fn find(bytes: &[u8], from: usize, needle: &[u8]) -> Result<usize> {
    let at = bytes[from..].windows(needle.len()).position(|window| window == needle);
    Ok(from + at.context("the image does not hold it")?)
}

/// Offset of a byte of the payload, in a block whose digest stands in a hash block of nothing but the payload.
fn in_payload(image: &[u8]) -> Result<usize> {
    let first = find(image, 0, MARKER.as_bytes())? / BLOCK as usize;
    Ok((first.next_multiple_of(128) + 40) * BLOCK as usize)
}

/// Offset of the digest of the payload's block in the hash tree.
fn in_tree(image: &[u8], verity: &VerityTable) -> Result<usize> {
    let start = in_payload(image)? / BLOCK as usize * BLOCK as usize;
    let block = &image[start..start + BLOCK as usize];
    let digest = Sha256::new().chain_update(hex::decode(&verity.salt)?).chain_update(block).finalize();
    find(image, usize::try_from(verity.hash_start * BLOCK)?, &digest)
}

fn flip(path: &Path, at: usize) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64)?;
    file.write_all_at(&[byte[0] ^ 1], at as u64)?;
    Ok(())
}

const TEE: [&str; 3] = ["--tee-simulate", "--host-may", "stop,logs"];

/// One change of the root, made between `create` and `start`.
struct Tampered {
    what: &'static str,
    flags: &'static [&'static str],
    change: fn(&Path, &VerityTable) -> Result<()>,
    /// Words of the outcome.
    says: &'static str,
}

#[test]
fn a_root_that_differs_from_the_spec_is_an_error_and_never_other_bytes() -> Result<()> {
    on_each_machine(|monitor| changed_root(&Boxes::on(monitor)?))
}

fn changed_root(boxes: &Boxes) -> Result<()> {
    let root = boxes.root()?;
    let genuine = fs::read(&root)?;
    let cases = [
        Tampered {
            what: "a data block, without a TEE",
            flags: &[],
            change: |root, _| flip(root, in_payload(&fs::read(root)?)?),
            says: "Input/output error",
        },
        Tampered {
            what: "a data block",
            flags: &TEE,
            change: |root, _| flip(root, in_payload(&fs::read(root)?)?),
            says: "(block-corrupt)",
        },
        Tampered {
            what: "the hash tree",
            flags: &TEE,
            change: |root, verity| flip(root, in_tree(&fs::read(root)?, verity)?),
            says: "(block-corrupt)",
        },
    ];
    for (index, Tampered { what, flags, change, says }) in cases.into_iter().enumerate() {
        let name = format!("box{index}");
        let folder = boxes.create(&name, flags, "echo ready; sleep 1; cat /payload; echo over $?")?;
        change(&root, &document(&folder)?.spec().root.verity)?;
        let finished = boxes.start(&name)?;
        fs::write(&root, &genuine)?;
        println!("{what}: {} {}", finished.status, finished.stderr);
        ensure!(finished.stdout.contains("ready"), "{what}\n{}", finished.describe());
        ensure!(finished.text().contains(says), "{what}\n{}", finished.describe());
        ensure!(!finished.stdout.contains("over 0"), "{what}\n{}", finished.describe());
        let read = finished.stdout.trim_start_matches("ready\n").trim_end_matches("over 1\n");
        ensure!(boxes.payload.starts_with(read.as_bytes()), "{what}: the guest read other bytes");
        if !flags.is_empty() {
            ensure!(finished.status == 137 && !finished.stdout.contains("over"), "{what}\n{}", finished.describe());
            let inspected = boxes.world.coffer(&["inspect", &name])?.ok()?;
            let listed = boxes.world.coffer(&["ps", "-a", "--no-trunc"])?.ok()?;
            ensure!(inspected.contains("block-corrupt") && listed.contains("block-corrupt"), "{inspected}\n{listed}");
        }
        boxes.world.coffer(&["rm", "-f", &name])?.ok()?;
    }
    Ok(())
}

#[test]
fn another_boxs_root_or_spec_is_refused_before_anything_runs() -> Result<()> {
    on_each(|monitor| exchanged(Boxes::on(monitor)?))
}

fn exchanged(boxes: Boxes) -> Result<()> {
    let one = boxes.create("one", &TEE, "echo ran")?;
    let root = boxes.root()?;
    let genuine = fs::read(&root)?;
    let layout = boxes.world.folder.path().join("other");
    busybox_layout(&layout, "other", &[("payload", b"not what the owner measured")])?;
    let image = boxes.registry.push(&layout, "other", "other:1")?;
    boxes.world.coffer(&["pull", "-q", &image])?.ok()?;
    let two = Boxes { image, ..boxes };
    let folder = two.create("two", &TEE, "echo ran")?;
    let mut roots = two.world.roots()?;
    roots.retain(|path| *path != root);
    let other = fs::read(roots.first().context("the second root")?)?;

    fs::write(&root, &other)?;
    let with_root = two.start("one")?;
    fs::write(&root, &genuine)?;
    fs::copy(folder.join("spec.toml"), one.join("spec.toml"))?;
    let with_spec = two.start("one")?;
    // A spec that is another's is refused on the host already; that its guest would be another: measured_boot.rs.
    for (finished, why) in
        [(with_root, "the root file system is damaged"), (with_spec, "is not the spec that the box was created with")]
    {
        ensure!(finished.status == 125 && finished.stdout.is_empty(), "{}", finished.describe());
        ensure!(finished.stderr.contains(why), "{}", finished.describe());
    }
    Ok(())
}

#[test]
fn volumes_are_what_the_host_had_when_the_box_was_made() -> Result<()> {
    on_each(|monitor| volumes(&Boxes::on(monitor)?))
}

fn volumes(boxes: &Boxes) -> Result<()> {
    let source = boxes.world.folder.path().join("conf");
    fs::create_dir_all(source.join("sub"))?;
    fs::write(source.join("a"), "first")?;
    fs::write(source.join("sub/tool"), "#!/bin/sh\necho tool ran\n")?;
    fs::set_permissions(source.join("sub/tool"), fs::Permissions::from_mode(0o755))?;
    let text = source.to_str().context("a plain name")?;
    let folder_bind = format!("{text}:/etc/app:ro");
    let file_bind = format!("type=bind,source={text}/a,target=/payload,readonly");
    let flags = [&TEE[..], &["-v", &folder_bind, "--mount", &file_bind]].concat();
    let script = "cat /etc/app/a; echo; /etc/app/sub/tool; cat /payload; echo; touch /etc/app/new /payload || df -T /payload >/dev/null";
    let folder = boxes.create("box", &flags, script)?;
    fs::write(source.join("a"), "later")?;
    // Nothing on a disk is read that the table does not cover: behind the tree there may be anything.
    let mut root = OpenOptions::new().append(true).open(boxes.root()?)?;
    root.write_all(&[b"verity\0\0".as_slice(), &[0xff; 4088]].concat())?;
    let finished = boxes.start("box")?;
    ensure!(finished.stdout == "first\ntool ran\nfirst\n", "{}", finished.describe());
    ensure!(finished.stderr.matches("Read-only file system").count() == 2, "{}", finished.describe());

    let (one, two, aside) = (folder.join("volume-0.img"), folder.join("volume-1.img"), folder.join("aside"));
    fs::rename(&one, &aside)?;
    fs::rename(&two, &one)?;
    fs::rename(&aside, &two)?;
    let finished = boxes.start("box")?;
    ensure!(finished.status == 125 && finished.stdout.is_empty(), "{}", finished.describe());
    ensure!(finished.stderr.contains("a volume is damaged"), "{}", finished.describe());

    let refused = boxes.world.coffer(&["run", "-v", &format!("{text}:/etc/app"), &boxes.image])?;
    ensure!(refused.status == 125 && refused.stderr.contains("never writable"), "{}", refused.describe());
    Ok(())
}

#[test]
fn what_memory_does_not_hold_goes_to_the_scratch_disk_as_ciphertext_and_cannot_be_changed_there() -> Result<()> {
    on_each_machine(|monitor| scratch_disk(&Boxes::on(monitor)?))
}

fn scratch_disk(boxes: &Boxes) -> Result<()> {
    const MEBIBYTES: usize = 128;
    let script = format!(
        "i=0; while [ $i -lt {MEBIBYTES} ]; do cat /payload; i=$((i+1)); done >/big && sha256sum /big; sleep 600"
    );
    let folder = boxes.create("box", &["-m", "192m", "--scratch", "256m"], &script)?;
    boxes.world.coffer(&["start", "box"])?.ok()?;
    let expected = hex::encode(Sha256::digest(boxes.payload.repeat(MEBIBYTES)));
    let logs = || boxes.world.coffer(&["logs", "box"]).map(|finished| finished.text());
    // A box that ends before it says so never will.
    let ended = || boxes.world.coffer(&["ps", "-q"]).is_ok_and(|running| running.stdout.trim().is_empty());
    wait_for(Duration::from_mins(4), || ended() || logs().is_ok_and(|text| text.contains("/big")))
        .with_context(|| boxes.told("box"))?;
    ensure!(logs()?.contains(&expected), "{}", boxes.told("box"));

    let path = folder.join("scratch.img");
    let meta = fs::metadata(&path)?;
    ensure!((meta.len(), meta.mode() & 0o777) == (256 << 20, 0o600), "{meta:?}");
    let disk = fs::read(&path)?;
    let blocks: Vec<_> =
        disk.chunks(BLOCK as usize).enumerate().filter(|(_, block)| block.iter().any(|b| *b != 0)).collect();
    println!("{} MiB of the scratch disk were written", blocks.len() >> 8);
    ensure!(blocks.len() > (16 << 20) / BLOCK as usize, "only {} blocks were written", blocks.len());
    for (index, block) in &blocks {
        let plain = block.windows(16).any(|window| window == &MARKER.as_bytes()[..16]);
        ensure!(!plain, "block {index} is plain text");
    }
    // Every block, so that whatever the guest reads next from there is not what it wrote.
    let file = OpenOptions::new().write(true).open(&path)?;
    for (index, block) in &blocks {
        file.write_all_at(&[block[7] ^ 1], *index as u64 * BLOCK + 7)?;
    }
    let read = boxes.world.coffer(&["exec", "box", "sha256sum", "/big"])?;
    println!("{}", read.describe());
    ensure!(read.status != 0 && !read.stdout.contains("/big"), "{}", read.describe());
    boxes.world.coffer(&["stop", "-t", "1", "box"])?;
    ensure!(!path.exists(), "the scratch disk is left");
    Ok(())
}

#[test]
fn a_workload_that_wants_more_than_memory_and_scratch_ends_and_its_guest_says_so() -> Result<()> {
    on_each_machine(|monitor| more_than_there_is(&Boxes::on(monitor)?))
}

fn more_than_there_is(boxes: &Boxes) -> Result<()> {
    // In pieces: the kernel refuses a single demand that is plainly too large.
    let hold = r"(piece=$(head -c 16000000 /dev/zero | tr '\0' a); sleep 600) &";
    let script = format!("echo ready; i=0; while [ $i -lt 40 ]; do i=$((i+1)); {hold} done; wait; echo survived");
    boxes.create("box", &["-m", "192m", "--scratch", "4m"], &script)?;
    let finished = boxes.start("box")?;
    ensure!(finished.status == 137 && finished.stdout == "ready\n", "{}", finished.describe());
    ensure!(!finished.stderr.contains("without saying"), "the guest fell with it\n{}", finished.describe());
    Ok(())
}
