//! The initrd: our init, the kernel modules it loads, and the empty folders it mounts on. Nothing else.
//!
//! Deterministic: same init and modules, same bytes. Uncompressed, so that no compressor's version is part of the
//! measurement and the kernel only copies.

use std::{
    io::{self, Read, Write},
    ops::Range,
};

use coffer_machine::initrd::{INIT, MODULES, NETWORK_MODULES, SCRATCH_MODULES};

use sha2::{Digest as _, Sha256};

use crate::cpio::{Writer, place_of};

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

/// What of an initrd is read at a time; the first of it tells where init lies.
const CHUNK: usize = 1 << 16;

/// Copies init out of an initrd that [`build`] made, and gives the SHA-256 of all that was read. Nothing of the archive is kept:
/// what was copied is init only if the digest is the expected one.
///
/// # Errors
/// Of reading and writing; [`io::ErrorKind::InvalidData`] if there is no init in it.
pub fn copy_init(initrd: &mut impl Read, to: &mut impl Write) -> io::Result<[u8; 32]> {
    let none = || io::Error::new(io::ErrorKind::InvalidData, "it holds no init");
    let (mut hash, mut chunk) = (Sha256::new(), Vec::with_capacity(CHUNK));
    let (mut at, mut place) = (0, None);
    while initrd.by_ref().take(CHUNK as u64).read_to_end(&mut chunk)? > 0 {
        hash.update(&chunk);
        let Range { start, end } = match &place {
            Some(place) => Range::clone(place),
            None => place.insert(place_of(&chunk, INIT).ok_or_else(none)?).clone(),
        };
        let within = |offset: usize| offset.saturating_sub(at).min(chunk.len());
        to.write_all(&chunk[within(start)..within(end)])?;
        at += chunk.len();
        chunk.clear();
    }
    match place {
        Some(place) if place.end <= at => Ok(hash.finalize().into()),
        _ => Err(none()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

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
        let copied = |archive: &[u8]| {
            let mut init = Vec::new();
            let digest = copy_init(&mut &archive[..], &mut init);
            digest.map(|digest| (init, hex::encode(digest))).map_err(|error| error.to_string())
        };
        let archive = sample();
        let digest = |archive: &[u8]| hex::encode(Sha256::digest(archive));
        assert_eq!(copied(&archive), Ok((b"#!init".to_vec(), digest(&archive))));
        for size in [0, 1, CHUNK - 1, CHUNK, 3 * CHUNK + 5] {
            let init: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let archive = build(&init, &[Module { name: "a.ko".into(), object: vec![9; 2 * CHUNK] }]);
            assert_eq!(copied(&archive), Ok((init, digest(&archive))), "{size}");
        }
        for end in 0..archive.len() {
            let found = copied(&archive[..end]);
            assert!(found.is_err() || found == Ok((b"#!init".to_vec(), digest(&archive[..end]))), "{end}: {found:?}");
        }
        let renamed: Vec<u8> = archive.iter().map(|byte| if *byte == b'7' { b'8' } else { *byte }).collect();
        for none in [&b"no archive"[..], b"", &renamed, &sample()[..300]] {
            assert_eq!(copied(none), Err("it holds no init".to_owned()));
        }
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
