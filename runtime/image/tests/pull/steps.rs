//! A name moves last: an act that fails or dies at any step leaves the old state whole, and the next try succeeds.

use super::registry::{Layer, Registry, TestImage, noise};
use super::{collect, count, forget_rootfs, listed, options, pull_with};
use coffer_image::archive::LoadOptions;
use coffer_image::store::Step;
use coffer_image::{Image, ImageError, Limits, Store};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Acts that publish a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Pull,
    Rootfs,
    Remove,
    Collect,
    Tag,
    Load,
}

const ACTS: [Act; 6] = [Act::Pull, Act::Rootfs, Act::Remove, Act::Collect, Act::Tag, Act::Load];

fn old_image() -> TestImage {
    TestImage::new(vec![Layer::new(&[("bin/sh", b"old")])])
}

fn new_image() -> TestImage {
    TestImage::new(vec![Layer::new(&[("bin/sh", &noise(20_000))]), Layer::new(&[("etc/new", b"new")])])
}

/// A store with the old image under the name that the act is about. The registry has the new one there, where the act is
/// a pull.
fn prepared(dir: &Path, act: Act) -> (Registry, Store, String) {
    let registry = Registry::start();
    let store = Store::open(dir.join("images")).unwrap();
    registry.push("app", "v1", &old_image());
    let name = registry.reference("app:v1");
    let image = pull_with(&store, &name, &options()).unwrap();
    match act {
        Act::Pull => registry.push("app", "v1", &new_image()),
        Act::Collect => {
            store.rootfs(&image).unwrap();
            registry.push("app", "v2", &new_image());
            let other = pull_with(&store, &registry.reference("app:v2"), &options()).unwrap();
            store.rootfs(&other).unwrap();
            store.remove(&registry.reference("app:v2")).unwrap();
        }
        Act::Tag => {
            registry.push("app", "v2", &new_image());
            pull_with(&store, &registry.reference("app:v2"), &options()).unwrap();
        }
        Act::Load => {
            registry.push("app", "v1", &new_image());
            let other = Store::open(dir.join("other")).unwrap();
            pull_with(&other, &name, &options()).unwrap();
            let to = dir.join("new.tar");
            other.save(std::slice::from_ref(&name), &to, File::create(&to).unwrap()).unwrap();
        }
        Act::Rootfs => forget_rootfs(&store),
        Act::Remove => {}
    }
    (registry, store, name)
}

fn perform(store: &Store, act: Act, name: &str) -> Result<(), ImageError> {
    match act {
        Act::Pull => pull_with(store, name, &options()).map(drop),
        Act::Rootfs => store.rootfs(&store.resolve(name)?).map(drop),
        Act::Remove => store.remove(name).map(drop),
        Act::Tag => store.tag(&new_name(name), name).map(drop),
        Act::Load => {
            let from = store.dir().with_file_name("new.tar");
            store.load(&from, File::open(&from).unwrap(), &LoadOptions::default(), Limits::default()).map(drop)
        }
        Act::Collect => store.collector()?.expect("nobody uses the store").collect(&BTreeSet::new()).map(drop),
    }
}

/// Where the new image is, for an act that gives it the name.
fn new_name(name: &str) -> String {
    name.replace("app:v1", "app:v2")
}

/// What must hold however an act ended: the name leads to the old or to the new image, or nowhere where it was to be
/// removed, and wherever it leads there is a whole image.
fn check(store: &Store, act: Act, name: &str, at: usize) {
    let ids = [old_image(), new_image()].map(|image| coffer_image::Digest::of(&image.config()));
    let mut listed = listed(store);
    listed.retain(|image| image.reference != new_name(name));
    let whole = |image: &Image| {
        let rootfs = store.rootfs(image).unwrap_or_else(|error| panic!("{act:?}, step {at}: {error}"));
        assert_eq!(std::fs::metadata(&rootfs.path).unwrap().len(), rootfs.size);
    };
    match act {
        Act::Remove if listed.is_empty() => {}
        _ => {
            assert_eq!(listed.len(), 1, "{act:?}, step {at}");
            let may = if [Act::Pull, Act::Tag, Act::Load].contains(&act) { &ids[..] } else { &ids[..1] };
            assert!(may.contains(&listed[0].config_digest), "{act:?}, step {at}");
            assert_eq!(listed[0].reference, name);
            whole(&listed[0]);
        }
    }
}

/// The store, failing or dying at step `at`; counts the steps.
fn at_step(store: &Store, at: usize, dies: bool) -> (Store, Arc<AtomicUsize>) {
    let steps = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&steps);
    let look = move |step: Step, path: &Path| {
        if seen.fetch_add(1, Ordering::SeqCst) != at {
            return Ok(());
        }
        if dies {
            std::process::abort();
        }
        Err(io::Error::other(format!("failed at {step:?} of {}", path.display())))
    };
    (store.clone().before_steps(Arc::new(look)), steps)
}

#[test]
fn an_act_that_fails_at_any_step_leaves_whole_images() {
    for act in ACTS {
        let dir = tempfile::tempdir().unwrap();
        let (_registry, store, name) = prepared(dir.path(), act);
        let (counting, steps) = at_step(&store, usize::MAX, false);
        perform(&counting, act, &name).unwrap();
        let steps = steps.load(Ordering::SeqCst);
        println!("{act:?}: {steps} steps");
        assert!(steps >= 5, "{act:?} took {steps} steps");
        for at in 0..steps {
            let dir = tempfile::tempdir().unwrap();
            let (_registry, store, name) = prepared(dir.path(), act);
            let before = std::fs::read(dir.path().join("images/index.json")).unwrap();
            let (failing, _) = at_step(&store, at, false);
            let error = perform(&failing, act, &name).unwrap_err();
            assert!(error.to_string().contains("failed at"), "{act:?}, step {at}: {error}");
            let after = std::fs::read(dir.path().join("images/index.json")).unwrap();
            // Once the name has moved, all that can fail is making that last.
            let synced_only = at + 1 == steps;
            assert!(after == before || synced_only, "{act:?}: step {at} of {steps} moved the name");
            check(&store, act, &name, at);
            // Also without what was made before: the blobs are all there.
            forget_rootfs(&store);
            check(&store, act, &name, at);
            assert!(act == Act::Collect || count(&dir.path().join("images/tmp")) == 0, "{act:?}, step {at}");
            if act != Act::Remove || !listed(&store).is_empty() {
                perform(&store, act, &name).unwrap();
            }
        }
    }
}

const DYING: &str = "COFFER_IMAGE_DYING";

#[test]
#[ignore = "run by the next test, in a process of its own, which it ends"]
fn one_that_dies() {
    let Ok(what) = std::env::var(DYING) else { return };
    let mut words = what.split(' ');
    let (act, at): (usize, usize) = (words.next().unwrap().parse().unwrap(), words.next().unwrap().parse().unwrap());
    let (dir, name) = (words.next().unwrap(), words.next().unwrap());
    let (dying, _) = at_step(&Store::open(Path::new(dir).join("images")).unwrap(), at, true);
    perform(&dying, ACTS[act], name).unwrap();
}

#[test]
fn an_act_that_dies_at_any_step_leaves_whole_images() {
    for (number, act) in ACTS.into_iter().enumerate() {
        for at in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let (_registry, store, name) = prepared(dir.path(), act);
            let status = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "steps::one_that_dies", "--ignored", "--test-threads=1"])
                .env(DYING, format!("{number} {at} {} {name}", dir.path().display()))
                .output()
                .unwrap()
                .status;
            check(&store, act, &name, at);
            if act != Act::Remove || !listed(&store).is_empty() {
                perform(&store, act, &name).unwrap();
            }
            collect(&store, &BTreeSet::new());
            assert_eq!(count(&dir.path().join("images/tmp")), 0, "what died is swept away");
            if status.success() {
                assert!(at >= 5, "{act:?} took {at} steps");
                break;
            }
        }
    }
}
