use super::*;
use crate::request::tests::{image, request, verity};
use crate::request::{document, tmpfs};
use coffer_image::erofs;
use coffer_image::tree::{Extent, Kind, Meta, Tree as ImageTree};
use coffer_spec::Volume;

/// An image with these links, files and, where the path ends in a slash, folders.
fn look(entries: &[(&str, &str)]) -> Look {
    let mut tree = ImageTree::new();
    for (path, link) in entries {
        let kind = match *link {
            "" if path.ends_with('/') => Kind::Directory(std::collections::BTreeMap::new()),
            "" => Kind::File(Extent { offset: 0, length: 0 }),
            target => Kind::Symlink(target.as_bytes().to_vec()),
        };
        tree.place(path.as_bytes(), Meta { mode: 0o755, ..Meta::default() }, kind).unwrap();
    }
    let (spool, out) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    erofs::write(&tree, &spool, &out, [0; 16]).unwrap();
    Look::of_file(out).unwrap()
}

/// A busybox, with links that lead where they should not.
fn busybox() -> Look {
    look(&[
        ("bin/busybox", ""),
        ("bin/sh", "busybox"),
        ("etc/passwd", ""),
        ("usr/lib/", ""),
        ("lib", "usr/lib"),
        ("var/run", "/run"),
        ("run/", ""),
        ("proc/", ""),
        ("x", "/proc"),
        ("z", "/run/secrets"),
        ("r", "/"),
        ("u", "usr"),
        ("loop", "loop"),
        ("nowhere", "/not/there"),
        ("time", "/etc/time"),
    ])
}

/// `what`: `tmpfs`, `folder` or `file`, and its path.
fn checked(root: &Look, cwd: &str, wanted: &[(&str, &str)]) -> Result<(), PlaceError> {
    let mut request = request();
    request.cwd = Some(cwd.into());
    let mut looks = Vec::new();
    for (what, path) in wanted {
        let kind = match *what {
            "tmpfs" => {
                request.mounts.push(tmpfs(path).unwrap());
                continue;
            }
            "folder" => VolumeKind::Folder,
            _ => VolumeKind::File,
        };
        request.volumes.push(Volume { path: (*path).into(), kind, verity: verity() });
        looks.push(look(&[("inside/deep/", ""), ("plain", "")]));
    }
    let document = document(&image(), verity(), &request).unwrap();
    check(document.spec(), root, &looks)
}

#[test]
fn what_has_its_place_is_taken() {
    let root = busybox();
    let cases: &[(&str, &[(&str, &str)])] = &[
        ("/", &[]),
        ("/made/on/the/way", &[("tmpfs", "/made"), ("folder", "/also/made"), ("file", "/new/file")]),
        ("/usr", &[("folder", "/usr"), ("tmpfs", "/usr/inside"), ("tmpfs", "/usr/inside/x")]),
        ("/u/lib", &[("folder", "/lib"), ("file", "/etc/passwd"), ("file", "/bin/sh")]),
        ("/tmp/a", &[("tmpfs", "/tmp"), ("file", "/tmp/a/b"), ("folder", "/etc")]),
        ("/proc/self", &[("tmpfs", "/run"), ("file", "/etc/hosts"), ("file", "/time")]),
        ("/run/secrets", &[("tmpfs", "/var/run/app"), ("file", "/etc/app/file")]),
        ("/x/sys", &[]),
        ("/etc/../usr/./lib/", &[]),
    ];
    for (cwd, wanted) in cases {
        if let Err(error) = checked(&root, cwd, wanted) {
            panic!("{cwd} {wanted:?}: {error}");
        }
    }
    // An image with nothing in it has room for all.
    checked(&look(&[]), "/work", &[("tmpfs", "/a"), ("folder", "/b/c")]).unwrap();
}

#[test]
fn what_would_end_in_the_guest_is_refused_by_name() {
    let root = busybox();
    type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str);
    let cases: &[Case] = &[
        ("/bin/busybox", &[], "the working directory /bin/busybox has no place: /bin/busybox is no folder"),
        ("/bin/sh", &[], "/bin/busybox is no folder"),
        ("/etc/passwd/x", &[], "/etc/passwd is no folder"),
        ("/etc/hosts", &[], "/etc/hosts is no folder"),
        ("/usr/x", &[("folder", "/usr")], "/usr/x is not there, and what it would be made in is read-only"),
        ("/a/x", &[("tmpfs", "/a:ro")], "/a/x is not there, and what it would be made in is read-only"),
        ("/nowhere", &[], "leads nowhere (/not/there)"),
        ("/loop", &[], "leads nowhere"),
        ("/usr/plain", &[("folder", "/usr")], "/usr/plain is no folder"),
        ("/", &[("tmpfs", "/bin/busybox")], "the tmpfs at /bin/busybox has no place"),
        ("/", &[("folder", "/bin/busybox")], "the volume at /bin/busybox has no place"),
        ("/", &[("file", "/etc")], "the volume at /etc is a file, and /etc is a folder"),
        ("/", &[("file", "/lib")], "is a file, and /usr/lib is a folder"),
        ("/", &[("folder", "/etc/passwd/x")], "/etc/passwd is no folder"),
        ("/", &[("folder", "/usr"), ("tmpfs", "/usr/x")], "the tmpfs at /usr/x has no place: /usr/x is not there"),
        ("/", &[("file", "/etc/f"), ("tmpfs", "/etc/f/x")], "/etc/f is no folder"),
        ("/", &[("folder", "/etc/hosts")], "/etc/hosts is no folder"),
        ("/", &[("tmpfs", "/nowhere")], "leads nowhere"),
        ("/", &[("file", "/nowhere")], "leads nowhere"),
    ];
    for (cwd, wanted, words) in cases {
        let error = checked(&root, cwd, wanted).expect_err(words);
        assert!(error.to_string().contains(words), "{cwd} {wanted:?}: {error}");
        assert_eq!(error.class(), Class::Usage, "{error}");
    }
}

#[test]
fn where_a_link_leads_to_what_something_else_owns_nothing_is_mounted() {
    let root = busybox();
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[("tmpfs", "/x")], "the tmpfs at /x would hide what is at /proc"),
        (&[("folder", "/x")], "/proc"),
        (&[("tmpfs", "/x/sys")], "/proc"),
        (&[("tmpfs", "/z")], "the tmpfs at /z would hide what is at /run/secrets"),
        (&[("folder", "/var/run/secrets")], "/run/secrets"),
        (&[("tmpfs", "/var/run/secrets/x")], "/run/secrets/x"),
        (&[("file", "/bin/busybox"), ("file", "/bin/sh")], "would hide what is at /bin/busybox"),
        (&[("tmpfs", "/r")], "would hide what is at /"),
        (&[("tmpfs", "/r/dev")], "/dev"),
        (&[("tmpfs", "/lib"), ("tmpfs", "/usr/lib")], "would hide what is at /usr/lib"),
        // The path that comes first is below the one that comes later.
        (&[("tmpfs", "/lib/a"), ("tmpfs", "/u")], "would hide what is at /usr/lib/a"),
        // A read-only folder has no room for the guest's own.
        (&[("folder", "/var/run")], "the guest's own /run/secrets"),
    ];
    for (wanted, words) in cases {
        let error = checked(&root, "/", wanted).expect_err(words);
        assert!(error.to_string().contains(words), "{wanted:?}: {error}");
    }
}

#[test]
fn an_image_without_room_for_the_guests_own_folders_is_refused() {
    for (entry, words) in [
        (("proc", ""), "the guest's own /proc has no place"),
        (("etc", ""), "the guest's own /etc has no place"),
        (("etc/hosts/x", ""), "the guest's own /etc/hosts is a file"),
        (("run", ""), "/run is no folder"),
        (("dev", "/proc"), "/dev would hide what is at /proc"),
        (("sys", "nothing"), "the guest's own /sys has no place"),
    ] {
        let error = checked(&look(&[entry]), "/", &[]).expect_err(words);
        assert!(error.to_string().contains(words), "{entry:?}: {error}");
        assert_eq!(error.class(), Class::Config);
    }
}
