use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use super::*;

const PLENTY: Bounds = Bounds { entries: 100, bytes: 1 << 20 };

fn entry(path: &str, kind: Kind) -> Entry {
    Entry { path: path.into(), kind, mode: 0o755, uid: 1, gid: 2, modified: 1_700_000_000 }
}

/// A stream of entries, each file's bytes behind it.
fn stream(entries: &[(Entry, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (entry, data) in entries {
        entry.write(&mut bytes).unwrap();
        bytes.extend(*data);
    }
    Entry::write_end(&mut bytes).unwrap();
    bytes
}

fn packed(path: &Path, follow: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    pack(path, follow, &mut bytes).unwrap();
    bytes
}

fn to(path: &Path) -> Vec<u8> {
    path.as_os_str().as_encoded_bytes().to_vec()
}

fn copy(from: &str, bytes: &[u8], at: &Path) -> Result<Unpacked, UnpackError> {
    unpack(&mut &bytes[..], &Source::of(from.as_bytes()), &to(at), Keep::default(), PLENTY)
}

#[test]
fn no_copy_takes_the_place_of_a_device_a_pipe_or_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    let (from, pipe) = (folder.path().join("from"), folder.path().join("pipe"));
    fs::write(&from, "new").unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    let link = folder.path().join("link");
    symlink(&pipe, &link).unwrap();
    for at in [&pipe, &link] {
        let refused = copy("from", &packed(&from, false), at);
        assert!(matches!(refused, Err(UnpackError::Place(PlaceError::NoFile(_)))), "{refused:?}");
    }
    // Beneath the place that was named, too, by a file and by a link.
    for kind in [Kind::File(0), Kind::Link(b"x".to_vec())] {
        let tree = stream(&[(entry("", Kind::Folder), b""), (entry("pipe", kind), b"")]);
        let refused = copy("tree/.", &tree, folder.path());
        let Err(UnpackError::Place(PlaceError::NoFile(path))) = refused else { panic!("{refused:?}") };
        assert_eq!(path, pipe);
    }
    assert!(!fs::symlink_metadata(&pipe).unwrap().is_file());
}

#[test]
fn entries_are_read_as_they_were_written_and_nothing_else_is_an_entry() {
    let entries =
        [entry("", Kind::Folder), entry("a/b", Kind::File(3)), entry("a/c", Kind::Link(b"../../etc/passwd".to_vec()))];
    let mut bytes = Vec::new();
    for entry in &entries {
        entry.write(&mut bytes).unwrap();
    }
    let mut rest = &bytes[..];
    for entry in &entries {
        assert_eq!(Entry::read(&mut rest).unwrap().as_ref(), Some(entry));
    }
    assert!(matches!(Entry::read(&mut rest), Err(CarryError::Stream(_))), "an end says so");
    for path in ["/a", "..", "a/../b", "a//b", "a/", ".", "a/./b", "a\0", &"x".repeat(256), &"x/".repeat(3000)] {
        assert!(entry(path, Kind::Folder).write(&mut Vec::new()).is_err(), "{path}");
        // As somebody else would write it.
        let mut header = vec![2];
        header.extend([0; 28]);
        header.extend(u16::try_from(path.len()).unwrap().to_be_bytes());
        header.extend(path.as_bytes());
        assert!(Entry::parse(&header).is_err(), "{path}");
    }
    for length in [1, FIXED as u32 - 1, (FIXED + 2 * LONGEST_PATH) as u32 + 1, u32::MAX] {
        assert!(matches!(Entry::read(&mut &length.to_be_bytes()[..]), Err(CarryError::Length { .. })), "{length}");
    }
    for kind in [0, 4, 255] {
        let mut header = vec![0; FIXED];
        header[0] = kind;
        assert!(matches!(Entry::parse(&header), Err(CarryError::Kind { found }) if found == kind));
    }
}

#[test]
fn a_copy_is_what_was_copied() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("from");
    fs::create_dir_all(from.join("closed/deep")).unwrap();
    fs::write(from.join("closed/deep/file"), "bytes").unwrap();
    fs::write(from.join("run"), "#!").unwrap();
    fs::set_permissions(from.join("run"), fs::Permissions::from_mode(0o4751)).unwrap();
    symlink("/etc/passwd", from.join("link")).unwrap();
    fs::set_permissions(from.join("closed"), fs::Permissions::from_mode(0o555)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap();
    let mut bytes = Vec::new();
    assert_eq!(pack(&from, false, &mut bytes).unwrap(), Packed { left_out: 1 });
    let done = copy("from", &bytes, &folder.path().join("to")).unwrap();
    assert_eq!(done, Unpacked { entries: 6, bytes: 7 });
    let made = folder.path().join("to");
    assert_eq!(fs::read_to_string(made.join("closed/deep/file")).unwrap(), "bytes");
    assert_eq!(fs::read_link(made.join("link")).unwrap(), Path::new("/etc/passwd"));
    let mode = |name: &str| fs::metadata(made.join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("run"), mode("closed")), (0o751, 0o555), "special bits are not kept unless asked for");
    assert_eq!(fs::metadata(made.join("run")).unwrap().mtime(), fs::metadata(from.join("run")).unwrap().mtime());
    let keep = Keep { special_bits: true, ..Keep::default() };
    unpack(&mut &packed(&from.join("run"), false)[..], &Source::of(b"run"), &to(&made), keep, PLENTY).unwrap();
    assert_eq!(mode("run"), 0o4751, "in place of what was there");
}

#[test]
fn a_copy_goes_where_docker_would_put_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (file, tree) = (
        stream(&[(entry("", Kind::File(1)), b"f")]),
        stream(&[(entry("", Kind::Folder), b""), (entry("x", Kind::File(1)), b"x")]),
    );
    fs::create_dir(at("there")).unwrap();
    copy("/a/file", &file, &at("there")).unwrap();
    copy("/a/file", &file, &at("other")).unwrap();
    copy("/a/file", &file, &at("other")).unwrap();
    copy("/a/tree", &tree, &at("there")).unwrap();
    copy("/a/tree/", &tree, &at("new")).unwrap();
    copy("/a/tree/.", &tree, &at("there")).unwrap();
    for path in ["there/file", "other", "there/tree/x", "new/x", "there/x"] {
        assert!(at(path).is_file(), "{path}");
    }
    assert!(matches!(copy("t", &tree, &at("other")), Err(UnpackError::Place(PlaceError::NoFolder(_)))));
    let slash = format!("{}/", at("absent").display());
    assert!(matches!(copy("f", &file, Path::new(&slash)), Err(UnpackError::Place(PlaceError::Absent(_)))));
    assert!(matches!(copy("f", &file, &at("absent/deep")), Err(UnpackError::Place(PlaceError::Parent(..)))));
    assert!(matches!(copy("/", &file, &at("there")), Err(UnpackError::Place(PlaceError::Nameless))));
    assert!(copy("tree", &file, &at("there")).is_err(), "a folder is not replaced by a file");
    assert!(copy("file", &tree, &at("there")).is_err(), "nor a file by a folder");
    for (path, name, contents) in [
        ("a", "a", false),
        ("/a/b/", "b", false),
        ("a/.", "", true),
        (".", "", true),
        ("/", "", true),
        ("a/..", "", true),
    ] {
        assert_eq!(Source::of(path.as_bytes()), Source { name: name.into(), contents }, "{path}");
    }
}

#[test]
fn a_link_that_leads_to_nothing_is_neither_replaced_nor_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (link, slash) = (folder.path().join("link"), folder.path().join("link/"));
    symlink("none", &link).unwrap();
    for kind in [Kind::File(0), Kind::Folder] {
        for at in [&link, &slash] {
            let refused = copy("from", &stream(&[(entry("", kind.clone()), b"")]), at);
            let Err(UnpackError::Place(PlaceError::NoTarget(path))) = refused else { panic!("{refused:?}") };
            assert_eq!(path, **at);
        }
    }
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("none"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_folder_that_was_there_keeps_its_mode_and_one_that_was_not_gets_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let mode = |path: &str| fs::metadata(folder.path().join(path)).unwrap().mode() & 0o7777;
    let before = |path: &str, mode| {
        fs::create_dir(folder.path().join(path)).unwrap();
        fs::set_permissions(folder.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    before("tmp", 0o1770);
    before("tmp/was", 0o700);
    let tree =
        stream(&[(entry("", Kind::Folder), b""), (entry("was", Kind::Folder), b""), (entry("new", Kind::Folder), b"")]);
    for _ in 0..2 {
        copy("tmp", &tree, folder.path()).unwrap();
        assert_eq!([mode("tmp"), mode("tmp/was"), mode("tmp/new")], [0o1770, 0o700, 0o755]);
    }
}

#[test]
fn nothing_a_stream_says_leads_out_of_the_place_it_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let (outside, inside) = (folder.path().join("outside"), folder.path().join("inside"));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "whole").unwrap();
    let up = Kind::Link(to(&outside));
    // A link of the stream's own, and then something through it, or over what it leads to.
    for (path, kind) in [("link/new", Kind::File(0)), ("link/file", Kind::File(0)), ("link/dir", Kind::Folder)] {
        let bytes =
            stream(&[(entry("", Kind::Folder), b""), (entry("link", up.clone()), b""), (entry(path, kind), b"")]);
        assert!(copy("x", &bytes, &inside).is_err(), "{path}");
        fs::remove_dir_all(&inside).unwrap();
    }
    let over = stream(&[
        (entry("", Kind::Folder), b""),
        (entry("link", Kind::Link(to(&outside.join("file")))), b""),
        (entry("link", Kind::File(4)), b"mine"),
    ]);
    copy("x", &over, &inside).unwrap();
    assert_eq!(fs::read_to_string(inside.join("link")).unwrap(), "mine");
    fs::remove_dir_all(&inside).unwrap();
    // A link that was there before.
    fs::create_dir(&inside).unwrap();
    symlink(&outside, inside.join("was")).unwrap();
    let through = stream(&[(entry("", Kind::Folder), b""), (entry("was/new", Kind::File(0)), b"")]);
    assert!(copy("x/.", &through, &inside).is_err());
    let as_folder = stream(&[(entry("", Kind::Folder), b""), (entry("was", Kind::Folder), b"")]);
    assert!(copy("x/.", &as_folder, &inside).is_err());
    let left: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["file"]);
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "whole");
}

#[test]
fn what_the_kernel_says_has_no_bytes_is_copied_with_those_it_has() {
    let bytes = packed(Path::new("/proc/cpuinfo"), false);
    let mut rest = &bytes[..];
    let entry = Entry::read(&mut rest).unwrap().unwrap();
    let Kind::File(size) = entry.kind else { panic!("{entry:?}") };
    assert!(size > 0 && rest.len() as u64 == size + 4, "{size} {}", rest.len());
    // One that cannot be read at its beginning is an error where it was named.
    assert!(pack(Path::new("/proc/self/mem"), true, &mut Vec::new()).is_err());
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("empty"), "").unwrap();
    assert_eq!(
        Entry::read(&mut &packed(&folder.path().join("empty"), false)[..]).unwrap().unwrap().kind,
        Kind::File(0)
    );
}

#[test]
fn what_cannot_be_made_is_named_as_whoever_copies_would() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("there");
    fs::create_dir_all(at.join("file/x")).unwrap();
    let file = stream(&[(entry("", Kind::File(1)), b"f")]);
    let tree = stream(&[(entry("", Kind::Folder), b""), (entry("x", Kind::File(1)), b"x")]);
    for (from, bytes, to, path) in
        [("a/file", &file, at.clone(), at.join("file")), ("a/.", &tree, at.join("file"), at.join("file/x"))]
    {
        let refused = copy(from, bytes, &to).unwrap_err();
        let UnpackError::Make { path: found, .. } = &refused else { panic!("{refused:?}") };
        assert_eq!(*found, path);
    }
}

#[test]
fn what_comes_is_bounded_and_whole() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("to");
    let tree = stream(&[(entry("", Kind::Folder), b""), (entry("x", Kind::File(9)), b"123456789")]);
    let bounded = |bounds| unpack(&mut &tree[..], &Source::of(b"x"), &to(&at), Keep::default(), bounds);
    assert!(matches!(bounded(Bounds { entries: 1, bytes: 9 }), Err(UnpackError::TooMuch { what: "files", .. })));
    assert!(matches!(bounded(Bounds { entries: 2, bytes: 8 }), Err(UnpackError::TooMuch { what: "bytes", .. })));
    bounded(Bounds { entries: 2, bytes: 9 }).unwrap();
    fs::remove_dir_all(&at).unwrap();
    for before in [false, true] {
        let file = at.join("x");
        for length in 0..tree.len() {
            assert!(copy("x/.", &tree[..length], &at).is_err(), "cut at {length}");
            // What was there is there until what takes its place is whole, and nothing else ever is.
            let whole = length >= tree.len() - 4;
            let expected = if whole { Some("123456789") } else { before.then_some("before") };
            assert_eq!(fs::read_to_string(&file).ok().as_deref(), expected, "cut at {length}");
            let left = fs::read_dir(&at).map_or(0, Iterator::count);
            assert_eq!(left, usize::from(expected.is_some()), "cut at {length}");
            if whole {
                fs::write(&file, "before").unwrap();
            }
            if whole && !before {
                fs::remove_file(&file).unwrap();
            }
        }
        fs::write(&file, "before").unwrap();
    }
    for entries in [
        vec![(entry("x", Kind::Folder), &b""[..])],
        vec![(entry("", Kind::Folder), b""), (entry("", Kind::Folder), b"")],
        vec![(entry("", Kind::File(0)), b""), (entry("x", Kind::File(0)), b"")],
        vec![(entry("", Kind::Folder), b""), (entry("no/x", Kind::File(0)), b"")],
        vec![],
    ] {
        let other = folder.path().join("other");
        assert!(copy("x", &stream(&entries), &other).is_err(), "{entries:?}");
    }
}
