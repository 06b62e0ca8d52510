//! The initrd: our init, the kernel modules it loads, and the empty folders it mounts on. Nothing else.
//!
//! Deterministic: same init and modules, same bytes. Uncompressed, so that no compressor's version is part of the
//! measurement and the kernel only copies.

use coffer_machine::initrd::{INIT, MODULES, NETWORK_MODULES, SCRATCH_MODULES};

use crate::cpio::{Reader, Writer};

/// A kernel module and where it stands in load order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// File name, such as `virtio_mmio.ko`; behind [`SCRATCH`] or [`NETWORK`] where only a guest with a scratch disk or a network
    /// card loads it.
    pub name: String,
    /// The ELF object, not compressed.
    pub object: Vec<u8>,
}

/// Folder of the modules that only a guest with a scratch disk loads.
pub const SCRATCH: &str = "scratch/";
/// Folder of the modules that only a guest with a network card loads.
pub const NETWORK: &str = "network/";

/// Builds the initrd from the static init and the modules in the order they are to be loaded.
pub fn build(init: &[u8], modules: &[Module]) -> Vec<u8> {
    let mut archive = Writer::new();
    for (path, mode) in [
        ("dev", 0o755),
        ("proc", 0o555),
        ("sys", 0o555),
        ("run", 0o755),
        ("root", 0o700),
        (MODULES, 0o755),
        (NETWORK_MODULES, 0o755),
        (SCRATCH_MODULES, 0o755),
    ] {
        archive.directory(path, mode);
    }
    // The kernel opens this for init before anything is mounted.
    archive.character_device("dev/console", 0o600, 5, 1);
    archive.file(INIT, 0o755, init);
    for (index, module) in modules.iter().enumerate() {
        let of = [(SCRATCH, SCRATCH_MODULES), (NETWORK, NETWORK_MODULES)];
        let apart = of.into_iter().find_map(|(prefix, folder)| Some((folder, module.name.strip_prefix(prefix)?)));
        let (folder, name) = apart.unwrap_or((MODULES, module.name.as_str()));
        archive.file(&format!("{folder}/{index:02}-{name}"), 0o644, &module.object);
    }
    archive.finish()
}

/// The init in an initrd that [`build`] made.
pub fn init_of(archive: &[u8]) -> Option<&[u8]> {
    Reader::new(archive).find(|(path, _)| *path == INIT.as_bytes()).map(|(_, contents)| contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Write,
        process::{Command, Stdio},
    };

    fn sample() -> Vec<u8> {
        let module = |name: &str| Module { name: name.into(), object: name.as_bytes().repeat(100) };
        build(b"#!init", &[module("b.ko"), module("a.ko"), module("scratch/c.ko"), module("network/d.ko")])
    }

    #[test]
    fn same_inputs_give_the_same_bytes_and_others_do_not() {
        assert_eq!(sample(), sample());
        assert_ne!(build(b"x", &[]), build(b"y", &[]));
    }

    #[test]
    fn the_init_that_was_put_in_is_found_and_no_other_bytes_are_taken_for_it() {
        let archive = sample();
        assert_eq!(init_of(&archive), Some(&b"#!init"[..]));
        assert_eq!(init_of(&build(b"", &[])), Some(&b""[..]));
        for end in 0..archive.len() {
            let found = init_of(&archive[..end]);
            assert!(found.is_none_or(|init| init == b"#!init"), "{end}");
        }
        assert_eq!(init_of(b"no archive"), None);
        let renamed: Vec<u8> = archive.iter().map(|byte| if *byte == b'7' { b'8' } else { *byte }).collect();
        assert_eq!(init_of(&renamed), None, "not this format");
    }

    #[test]
    fn cpio_lists_what_was_put_in() {
        let Ok(mut child) =
            Command::new("cpio").arg("-t").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
        else {
            eprintln!("skipped: no cpio program on this machine");
            return;
        };
        child.stdin.take().unwrap().write_all(&sample()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!(
            String::from_utf8(output.stdout).unwrap().lines().collect::<Vec<_>>(),
            [
                "dev",
                "proc",
                "sys",
                "run",
                "root",
                "modules",
                "modules/network",
                "modules/scratch",
                "dev/console",
                "init",
                "modules/00-b.ko",
                "modules/01-a.ko",
                "modules/scratch/02-c.ko",
                "modules/network/03-d.ko"
            ]
        );
    }
}
