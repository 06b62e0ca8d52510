//! A name moves last: an act that fails at any step of any file it writes leaves what was there, or the whole new thing, and
//! the next try succeeds.

use std::cell::Cell;
use std::fs;
use std::io;
use std::path::Path;
use std::rc::Rc;

use coffer_kbs_client::AdminProfile;
use coffer_ratls::Identity;
use coffer_rim::file::{Step, before_steps};
use coffer_rim::{Class, Classify as _, Failure};
use coffer_runtime::boxes::files;
use coffer_runtime::id_block::{GUEST_POLICY, LaunchNames, SignedLaunch};
use coffer_runtime::owner_access;
use coffer_runtime::signing_key::{KeyPurpose, SigningKey, read_public, write_over};
use coffer_verifier::abi::{Measurement, SpkiDigest};

/// An act that publishes names in a folder, and what must hold of the folder however it ended.
struct Act {
    name: &'static str,
    perform: fn(&Path) -> Result<(), Failure>,
    /// Whether the new thing is there. Panics where there is half of it.
    is_there: fn(&Path) -> bool,
}

const ACTS: &[Act] = &[
    Act {
        name: "owner init",
        perform: |folder| Ok(owner_access::init(&folder.join("owner")).map(drop)?),
        is_there: |folder| match owner_access::load(&folder.join("owner")) {
            Ok(_) => true,
            Err(owner_access::OwnerKeyError::Missing(_)) => false,
            Err(half) => panic!("{half}"),
        },
    },
    Act {
        name: "the owner's key on first use",
        perform: |folder| Ok(owner_access::load_or_init(&folder.join("owner")).map(drop)?),
        is_there: |folder| owner_access::load(&folder.join("owner")).is_ok(),
    },
    Act {
        name: "id-key init",
        perform: |folder| SigningKey::generate()?.write_pair(&folder.join("id.pem"), KeyPurpose::Id).map(drop),
        is_there: |folder| {
            let (key, public) = (folder.join("id.pem"), folder.join("id.pem.pub"));
            assert_eq!(key.exists(), public.exists());
            let whole = || SigningKey::read(&key, KeyPurpose::Id).unwrap().public() == &read_public(&public).unwrap();
            key.exists() && whole()
        },
    },
    Act {
        name: "id-block sign",
        perform: |folder| signed(7).write(folder, 0o644),
        is_there: |folder| {
            let (block, auth) = (folder.join(files::ID_BLOCK), folder.join(files::ID_AUTH));
            if block.exists() {
                let read = SignedLaunch::read(&block, &auth).unwrap();
                read.auth.verify(&read.block).unwrap();
            }
            assert_eq!(block.exists(), auth.exists());
            block.exists()
        },
    },
    Act {
        name: "the broker's admin profile",
        perform: |folder| {
            let identity = Identity::generate("admin").class(Class::Internal)?;
            let profile =
                AdminProfile { address: "127.0.0.1:1".into(), pins: vec![SpkiDigest::new([7; 32])], identity };
            profile.write(&folder.join("admin.toml")).class(Class::Config)
        },
        is_there: |folder| {
            let path = folder.join("admin.toml");
            path.exists() && AdminProfile::read(&path).unwrap().address == "127.0.0.1:1"
        },
    },
    Act {
        name: "measure --manifest, manifest sign",
        perform: |folder| write_over(&folder.join("signed.json"), b"signed", 0o644),
        is_there: |folder| match fs::read(folder.join("signed.json")) {
            Ok(bytes) => bytes == b"signed",
            Err(_) => false,
        },
    },
];

fn signed(svn: u32) -> SignedLaunch {
    let names = LaunchNames { guest_svn: svn, ..LaunchNames::default() };
    let key = SigningKey::generate().unwrap();
    SignedLaunch::sign(Measurement::new([3; 48]), GUEST_POLICY, names, &key, None).unwrap()
}

/// Performs it with step `at` failing; gives how many steps there were, and how it ended.
fn with_step_failing(act: &Act, folder: &Path, at: usize) -> (usize, Result<(), Failure>) {
    let steps = Rc::new(Cell::new(0));
    let seen = steps.clone();
    let look = move |step: Step, path: &Path| {
        seen.set(seen.get() + 1);
        if seen.get() - 1 == at {
            return Err(io::Error::other(format!("failed at {step:?} of {}", path.display())));
        }
        Ok(())
    };
    let ended = before_steps(Rc::new(look), || (act.perform)(folder));
    (steps.get(), ended)
}

fn files_in(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files_in(&path) } else { 1 }).sum()
}

#[test]
fn an_act_that_fails_at_any_step_leaves_nothing_or_all_of_it() {
    for act in ACTS {
        let dir = tempfile::tempdir().unwrap();
        let (steps, ended) = with_step_failing(act, dir.path(), usize::MAX);
        assert!(ended.is_ok() && (act.is_there)(dir.path()) && steps >= 5, "{}: {steps} steps, {ended:?}", act.name);
        let whole = files_in(dir.path());
        for at in 0..steps {
            let dir = tempfile::tempdir().unwrap();
            assert!(!(act.is_there)(dir.path()));
            let (_, ended) = with_step_failing(act, dir.path(), at);
            let failure = ended.expect_err(act.name);
            assert!(failure.message.contains("failed at"), "{}, step {at}: {failure}", act.name);
            if !(act.is_there)(dir.path()) {
                (act.perform)(dir.path()).unwrap_or_else(|error| panic!("{}, after step {at}: {error}", act.name));
            }
            assert!((act.is_there)(dir.path()), "{}, step {at}", act.name);
            assert_eq!(files_in(dir.path()), whole, "{}, step {at}: something else is left", act.name);
        }
    }
}

#[test]
fn an_id_block_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let first = signed(7);
    first.write(dir.path(), 0o644).unwrap();
    let failure = signed(8).write(dir.path(), 0o644).unwrap_err();
    assert!(failure.message.contains("id_block.bin is there already"), "{failure}");
    let there = SignedLaunch::read(&dir.path().join(files::ID_BLOCK), &dir.path().join(files::ID_AUTH)).unwrap();
    assert_eq!(there.facts(), first.facts());
}
