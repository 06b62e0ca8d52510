//! What is written is what others read: Debian's erofs-utils, veritysetup, and the kernel where it lets us mount.

use coffer_image::tree::{Extent, Kind, Meta, NodeId, Tree};
use coffer_image::{erofs, verity};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::process::{Command, Output};
use tempfile::{NamedTempFile, TempDir};

/// A tree and the spool its files lie in.
struct Source {
    tree: Tree,
    spool: File,
    length: u64,
}

impl Source {
    fn new() -> Self {
        Self { tree: Tree::new(), spool: tempfile::tempfile().unwrap(), length: 0 }
    }

    fn data(&mut self, length: u64) -> Kind {
        let bytes: Vec<u8> = (0..length).map(|at| ((at + self.length) * 31 % 251) as u8).collect();
        self.spool.write_all(&bytes).unwrap();
        let extent = Extent { offset: self.length, length };
        self.length += length;
        Kind::File(extent)
    }

    fn place(&mut self, path: &str, meta: Meta, kind: Kind) {
        self.tree.place(path.as_bytes(), meta, kind).unwrap();
    }

    fn write(&self) -> NamedTempFile {
        let file = NamedTempFile::new().unwrap();
        let written = erofs::write(&self.tree, &self.spool, file.as_file(), [0x42; 16]).unwrap();
        assert_eq!(file.as_file().metadata().unwrap().len(), written.bytes);
        assert_eq!(written.bytes % 4096, 0);
        file
    }

    /// Compares what another reader made of the image. `all`: also owners, links, devices and attributes.
    fn compare(&self, dir: &Path, all: bool) {
        self.compare_node(NodeId::ROOT, dir, all, true);
    }

    fn compare_node(&self, id: NodeId, path: &Path, all: bool, root: bool) {
        let node = self.tree.node(id);
        let found = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let at = path.display();
        let kind = found.file_type();
        if all || !root {
            // fsck.erofs sets the owner last, which clears set-uid; a symlink's mode is whatever the system says.
            let seen = if kind.is_symlink() {
                0
            } else if all {
                0o7777
            } else {
                0o777
            };
            assert_eq!(found.mode() & seen, u32::from(node.meta.mode) & seen, "{at}");
        }
        if all {
            assert_eq!((found.uid(), found.gid()), (node.meta.uid, node.meta.gid), "{at}");
            assert_eq!(
                (u64::try_from(found.mtime()), u32::try_from(found.mtime_nsec())),
                (Ok(node.meta.mtime), Ok(node.meta.mtime_nsec)),
                "{at}"
            );
            for (name, value) in &node.meta.xattrs {
                let mut buffer = vec![0; 70_000];
                let name = std::str::from_utf8(name).unwrap();
                let length = rustix::fs::lgetxattr(path, name, &mut buffer)
                    .unwrap_or_else(|error| panic!("{at} {name}: {error}"));
                assert!(buffer[..length] == value[..], "{at} {name}");
            }
        }
        match &node.kind {
            Kind::Directory(_) => {
                let mut names: Vec<Vec<u8>> =
                    fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().as_bytes().to_vec()).collect();
                names.sort();
                let expected: Vec<_> = self.tree.children(id).map(|(name, _)| name.to_vec()).collect();
                assert_eq!(names, expected, "{at}");
                for (name, child) in self.tree.children(id) {
                    self.compare_node(child, &path.join(std::ffi::OsStr::from_bytes(name)), all, false);
                }
            }
            Kind::File(extent) => {
                let mut bytes = vec![0; extent.length as usize];
                self.spool.read_exact_at(&mut bytes, extent.offset).unwrap();
                assert!(fs::read(path).unwrap() == bytes, "{at}");
            }
            Kind::Symlink(target) => assert_eq!(fs::read_link(path).unwrap().as_os_str().as_bytes(), target, "{at}"),
            Kind::Fifo => assert!(kind.is_fifo(), "{at}"),
            Kind::CharDevice(major, minor) => {
                assert!(kind.is_char_device(), "{at}");
                assert_eq!(
                    (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev())),
                    (*major, *minor),
                    "{at}"
                );
            }
            Kind::BlockDevice(major, minor) => {
                assert!(kind.is_block_device(), "{at}");
                assert_eq!(
                    (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev())),
                    (*major, *minor),
                    "{at}"
                );
            }
        }
    }

    fn check_with_every_reader(&self) {
        let image = self.write();
        let again = self.write();
        assert!(fs::read(image.path()).unwrap() == fs::read(again.path()).unwrap(), "same tree, other bytes");
        let out = run("fsck.erofs", &[image.path().as_os_str().to_str().unwrap()]);
        assert!(out.status.success(), "{}", text(&out));
        let dir = TempDir::new().unwrap();
        let target = dir.path().join("out");
        let out = run("fsck.erofs", &[&format!("--extract={}", target.display()), image.path().to_str().unwrap()]);
        assert!(out.status.success(), "{}", text(&out));
        if is_root() {
            self.compare(&target, false);
        }
        match Mount::new(image.path()) {
            Ok(mount) => self.compare(mount.0.path(), true),
            Err(reason) => eprintln!("SKIPPED: the kernel's reader: {reason}"),
        }
    }
}

struct Mount(TempDir);

impl Mount {
    fn new(image: &Path) -> Result<Self, String> {
        if !is_root() {
            return Err("mounting needs root".to_owned());
        }
        let dir = TempDir::new().unwrap();
        let out =
            run("mount", &["-t", "erofs", "-o", "loop,ro", image.to_str().unwrap(), dir.path().to_str().unwrap()]);
        if out.status.success() {
            return Ok(Self(dir));
        }
        let reason = text(&out);
        // A kernel that can mount others must mount ours.
        let empty = TempDir::new().unwrap();
        let reference = NamedTempFile::new().unwrap();
        run("mkfs.erofs", &[reference.path().to_str().unwrap(), empty.path().to_str().unwrap()]);
        let at = dir.path().to_str().unwrap();
        let out = run("mount", &["-t", "erofs", "-o", "loop,ro", reference.path().to_str().unwrap(), at]);
        if out.status.success() {
            run("umount", &[at]);
            panic!("the kernel mounts the image of mkfs.erofs, but not ours: {reason}");
        }
        Err(reason)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run("umount", &[self.0.path().to_str().unwrap()]);
    }
}

fn run(program: &str, arguments: &[&str]) -> Output {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    Command::new(program)
        .args(arguments)
        .env("PATH", path)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; install erofs-utils, cryptsetup-bin and mount"))
}

fn text(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)).trim().to_owned()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn plain(mode: u16) -> Meta {
    Meta { mode, ..Meta::default() }
}

fn directory() -> Kind {
    Kind::Directory(BTreeMap::new())
}

#[test]
fn everything_an_image_can_hold_is_read_back() {
    let mut source = Source::new();
    for size in [0, 1, 2047, 2048, 2049, 4032, 4095, 4096, 4097, 6143, 6144, 6145, 8192, 1 << 20] {
        let data = source.data(size);
        source.place(&format!("sizes/{size}"), plain(0o644), data);
    }
    for number in 0..3000 {
        let data = source.data(number % 7);
        source.place(&format!("many/{number:0width$}", width = 4 + number as usize % 200), plain(0o600), data);
    }
    for name in ["!", "-", "..x", ".x", "0", "\u{fc}", &"n".repeat(255)] {
        let data = source.data(3);
        source.place(&format!("odd/{name}"), plain(0o4755), data);
    }
    for length in [1, 60, 2048, 2049, 4000, 4095] {
        source.place(&format!("links/{length}"), plain(0o777), Kind::Symlink(vec![b't'; length]));
    }
    source.place("deep/a/b/c/d/e", plain(0o1777), directory());
    source.place("fifo", plain(0o640), Kind::Fifo);
    source.place("char", plain(0o666), Kind::CharDevice(1, 3));
    source.place("block", plain(0o660), Kind::BlockDevice(259, 70_000));
    let wide = Meta { uid: 70_000, gid: u32::MAX - 1, mtime: 1 << 33, mtime_nsec: 999_999_999, ..plain(0o644) };
    let data = source.data(100);
    source.place("wide", wide, data);
    source.tree.link(b"hard/one", b"wide").unwrap();
    source.tree.link(b"hard/two", b"sizes/8192").unwrap();
    let big = Meta { uid: 65_535, gid: 65_535, ..plain(0o644) };
    let data = source.data(10);
    source.place("narrow", big, data);
    source.check_with_every_reader();
    let image = source.write();
    if let Ok(mount) = Mount::new(image.path()) {
        let links = |path: &str| fs::metadata(mount.0.path().join(path)).unwrap().nlink();
        assert_eq!((links("wide"), links("hard/two"), links("narrow"), links("deep/a")), (2, 2, 1, 3));
        let inode = |path: &str| fs::metadata(mount.0.path().join(path)).unwrap().ino();
        assert_eq!(inode("wide"), inode("hard/one"));
        assert_ne!(inode("wide"), inode("hard/two"));
        // Names are found by bisection, so each has to be looked up by itself, and one that is not there.
        for number in 0..3000 {
            let name = format!("many/{number:0width$}", width = 4 + number % 200);
            assert!(mount.0.path().join(&name).exists(), "{name}");
        }
        assert!(!mount.0.path().join("many/zzz").exists());
    }
}

#[test]
fn attributes_of_every_kind_and_size_are_read_back() {
    let mut source = Source::new();
    let meta = |xattrs: &[(&str, usize)]| Meta {
        xattrs: xattrs.iter().map(|(name, size)| (name.as_bytes().to_vec(), vec![0x5A; *size])).collect(),
        mtime: 5,
        ..plain(0o755)
    };
    let data = source.data(1000);
    source.place("small", meta(&[("user.a", 1), ("trusted.b", 2), ("security.c", 3)]), data);
    let data = source.data(2000);
    source.place("large", meta(&[("user.large", 3000), ("user.larger", 9000), ("user.small", 0)]), data);
    let data = source.data(5000);
    source.place("largest", meta(&[("user.x", 65_000), ("user.y", 60_000)]), data);
    source.place("dir", meta(&[("user.d", 10)]), directory());
    source.place(
        "link",
        Meta { xattrs: BTreeMap::from([(b"trusted.l".to_vec(), b"v".to_vec())]), ..plain(0o777) },
        Kind::Symlink(b"x".to_vec()),
    );
    source.check_with_every_reader();
}

#[test]
fn attributes_beyond_the_format_are_refused() {
    let mut source = Source::new();
    let xattrs = (0..5).map(|number| (format!("user.{number}").into_bytes(), vec![0; 60_000])).collect();
    source.place("f", Meta { xattrs, ..plain(0o644) }, Kind::Fifo);
    let file = tempfile::tempfile().unwrap();
    assert!(matches!(erofs::write(&source.tree, &source.spool, &file, [0; 16]), Err(erofs::WriteError::Attributes)));
}

#[test]
fn an_empty_tree_is_a_file_system() {
    let source = Source::new();
    source.check_with_every_reader();
    let image = source.write();
    let out = text(&run("dump.erofs", &["-s", image.path().to_str().unwrap()]));
    assert!(out.contains("42424242-4242-4242-4242-424242424242"), "{out}");
}

#[test]
fn veritysetup_agrees_about_root_hash_and_damage() {
    for (blocks, salt) in [(2_u64, "aa"), (3, "-"), (128, "00ff"), (129, "-"), (128 * 128 + 5, &"5c".repeat(32)[..])] {
        let file = NamedTempFile::new().unwrap();
        let mut bytes = vec![0; (blocks * 4096) as usize];
        bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at / 4096 * 7 + at) as u8);
        fs::write(file.path(), &bytes).unwrap();
        let file_rw = File::options().read(true).write(true).open(file.path()).unwrap();
        let table = verity::append(&file_rw, &hex::decode(salt.replace('-', "")).unwrap()).unwrap();
        let verify = || {
            let path = file.path().to_str().unwrap();
            let offset = format!("--hash-offset={}", table.hash_start * 4096);
            let data = format!("--data-blocks={}", table.data_blocks);
            let salt = format!("--salt={salt}");
            run(
                "veritysetup",
                &[
                    "verify",
                    "--no-superblock",
                    "--hash=sha256",
                    "--data-block-size=4096",
                    "--hash-block-size=4096",
                    &offset,
                    &data,
                    &salt,
                    path,
                    path,
                    &table.root_hash,
                ],
            )
        };
        let out = verify();
        assert!(out.status.success(), "{blocks} blocks: {}", text(&out));
        file_rw.write_all_at(b"!", (blocks - 1) * 4096 + 17).unwrap();
        assert!(!verify().status.success(), "{blocks} blocks");
    }
}

#[derive(Clone, Debug)]
enum Step {
    File(u64),
    Directory,
    Symlink(usize),
    Fifo,
    HardLink(String),
}

fn path() -> impl Strategy<Value = String> {
    proptest::collection::vec("[a-c.]{1,3}|[\\x20-\\x2e0-9]{1,40}|z{200,255}", 1..4)
        .prop_map(|names| names.join("/"))
        .prop_filter("not a climb", |path| path.split('/').all(|name| !matches!(name, "." | "..")))
}

fn step() -> impl Strategy<Value = (String, Step, Meta)> {
    let size = prop_oneof![0..200_u64, 1900..2200_u64, 3900..4200_u64, 0..20_000_u64];
    let kind = prop_oneof![
        4 => size.prop_map(Step::File),
        2 => Just(Step::Directory),
        1 => (1..4000_usize).prop_map(Step::Symlink),
        1 => Just(Step::Fifo),
        1 => path().prop_map(Step::HardLink),
    ];
    let xattrs = proptest::collection::btree_map(
        "(user|trusted|security)\\.[a-z]{1,20}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..300),
        0..3,
    );
    let id = prop_oneof![3 => Just(0_u32), 1 => 0..100_000_u32];
    let time = prop_oneof![1 => Just(0_u64), 1 => 0..1_u64 << 34];
    (path(), kind, (0..0o1000_u16, id.clone(), id, time, xattrs)).prop_map(
        |(path, step, (mode, uid, gid, mtime, xattrs))| {
            let mtime_nsec = (mtime % 1_000_000_000) as u32;
            // user.* attributes are for files and directories only; the kernel refuses to show others.
            let plain = matches!(step, Step::File(_) | Step::Directory);
            let xattrs = xattrs.into_iter().filter(|(name, _)| plain || !name.starts_with(b"user.")).collect();
            (path, step, Meta { mode: mode | 0o400, uid, gid, mtime, mtime_nsec, xattrs })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_is_read_back(steps in proptest::collection::vec(step(), 0..60)) {
        let mut source = Source::new();
        for (path, step, meta) in steps {
            let kind = match step {
                Step::File(size) => source.data(size),
                Step::Directory => directory(),
                Step::Symlink(length) => Kind::Symlink(vec![b'/'; length]),
                Step::Fifo => Kind::Fifo,
                Step::HardLink(target) => {
                    let _ = source.tree.link(path.as_bytes(), target.as_bytes());
                    continue;
                }
            };
            // A path through a file is refused; the rest of the tree is as good.
            let _ = source.tree.place(path.as_bytes(), meta, kind);
        }
        source.check_with_every_reader();
    }
}
