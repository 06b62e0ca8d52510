//! The long way to an image: a registry that asks for patience, indexes in indexes, downloads that another pull began.

use super::registry::{Fault, INDEX_TYPE, Layer, MANIFEST_TYPE, Registry, TestImage, blob_path, descriptor, noise};
use super::{collect, options, pull, pull_with, store};
use coffer_image::store::Step;
use coffer_image::{Digest, ImageError, Progress, PullOptions};
use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[test]
fn a_registry_that_limits_requests_is_waited_for_and_no_longer_than_anybody_wants() {
    let (registry, (_dir, store)) = (Registry::start(), store());
    registry.push("app", "v1", &TestImage::sample());
    let waits: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let heard = Arc::clone(&waits);
    let patient = PullOptions {
        progress: Some(Arc::new(move |step: &Progress| {
            if let Progress::Retrying { reason, wait, .. } = step {
                assert!(reason.contains("429"), "{reason}");
                heard.lock().unwrap().push(*wait);
            }
        })),
        ..options()
    };
    registry.fail("/v2/app/manifests/v1", [Fault::Busy("1")]);
    pull_with(&store, &registry.reference("app:v1"), &patient).unwrap();
    assert_eq!(*waits.lock().unwrap(), [Duration::from_secs(1)], "what it asked for, not what we would wait");

    registry.fail("/v2/app/manifests/v1", [Fault::Busy("3600")]);
    registry.requests();
    let error = pull(&store, &registry.reference("app:v1")).unwrap_err();
    assert_eq!(registry.requests().len(), 1, "it was not asked again");
    assert!(matches!(error, ImageError::TooManyRequests { after: Some(3600), attempts: 1, .. }), "{error:?}");
    assert_eq!(error.class(), "too-many-requests");
    assert!(error.to_string().contains("429") && error.to_string().contains("3600 s"), "{error}");
    assert!(error.hint().unwrap().contains("3600 s"));

    registry.fail("/v2/app/manifests/v1", [Fault::Status(429); 4]);
    let error = pull(&store, &registry.reference("app:v1")).unwrap_err();
    assert!(matches!(error, ImageError::TooManyRequests { after: None, attempts: 4, .. }), "{error:?}");
}

/// An index of these documents, some of them for a platform.
fn index(entries: &[(&str, &[u8], Option<&str>)]) -> Vec<u8> {
    let entries: Vec<_> = entries
        .iter()
        .map(|(kind, bytes, architecture)| {
            let mut entry = descriptor(kind, bytes);
            if let Some(architecture) = architecture {
                entry["platform"] = serde_json::json!({"os": "linux", "architecture": architecture});
            }
            entry
        })
        .collect();
    serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries})).unwrap()
}

fn put(registry: &Registry, name: &str, document: &[u8]) {
    registry.put(&format!("/v2/app/manifests/{name}"), INDEX_TYPE, document);
    registry.put(&format!("/v2/app/manifests/{}", Digest::of(document)), INDEX_TYPE, document);
}

#[test]
fn an_image_is_found_in_an_index_inside_an_index() {
    let (registry, (_dir, store)) = (Registry::start(), store());
    let (ours, other) = (TestImage::sample(), TestImage { architecture: "arm64", ..TestImage::sample() });
    registry.push("app", "v1", &ours);
    registry.push("app", "arm", &other);
    let (ours, other) = (ours.manifest(), other.manifest());
    let inner = index(&[(MANIFEST_TYPE, &other, Some("arm64")), (MANIFEST_TYPE, &ours, Some("amd64"))]);
    let middle = index(&[(INDEX_TYPE, &inner, None)]);
    let empty = index(&[]);
    let top = index(&[(INDEX_TYPE, &empty, None), (MANIFEST_TYPE, &other, Some("arm64")), (INDEX_TYPE, &middle, None)]);
    for (name, document) in [("inner", &inner), ("middle", &middle), ("empty", &empty), ("top", &top)] {
        put(&registry, name, document);
    }
    let image = pull(&store, &registry.reference("app:top")).unwrap();
    assert_eq!((image.manifest_digest, image.repo_digest), (Digest::of(&ours), Digest::of(&top)));
    // One without a word about platforms leads to its only image.
    put(&registry, "plain", &index(&[(MANIFEST_TYPE, &ours, None)]));
    assert_eq!(pull(&store, &registry.reference("app:plain")).unwrap().manifest_digest, Digest::of(&ours));
    let error = pull(&store, &registry.reference("app:empty")).unwrap_err();
    assert_eq!(error.class(), "platform");
    let other_level = PullOptions { platform: "linux/amd64/v3".parse().unwrap(), ..options() };
    let error = pull_with(&store, &registry.reference("app:inner"), &other_level).unwrap_err();
    assert!(error.class() == "platform" && error.to_string().contains("has no linux/amd64/v3 image"), "{error}");
}

#[test]
fn indexes_without_end_are_given_up() {
    let (registry, (_dir, store)) = (Registry::start(), store());
    let mut document = index(&[]);
    for _ in 0..40 {
        put(&registry, "deep", &document);
        document = index(&[(INDEX_TYPE, &document, None)]);
    }
    registry.requests();
    let error = pull(&store, &registry.reference("app:deep")).unwrap_err();
    assert!(error.class() == "corrupt" && error.to_string().contains("more than 16 documents"), "{error}");
    assert!(registry.requests().len() <= 16);
}

#[test]
fn a_layer_is_continued_by_the_next_pull_and_checked_whole() {
    let (registry, (dir, store)) = (Registry::start(), store());
    let image = TestImage::new(vec![Layer::new(&[("data", &noise(3 << 20))])]);
    registry.push("app", "v1", &image);
    let blob = &image.layers[0].blob;
    let path = blob_path("app", blob);
    let partial = dir.path().join("images/partial").join(Digest::of(blob).hex());
    let hasty = PullOptions { retries: 0, ..options() };
    registry.fail(&path, [Fault::Cut(2 << 20)]);
    let error = pull_with(&store, &registry.reference("app:v1"), &hasty).unwrap_err();
    assert_eq!(error.class(), "unreachable");
    assert_eq!(fs::metadata(&partial).unwrap().len(), 2 << 20);
    registry.requests();
    pull_with(&store, &registry.reference("app:v1"), &hasty).unwrap();
    assert!(registry.requests().contains(&format!("{path} {}", 2 << 20)), "only the rest is asked for");
    assert!(!partial.exists());

    // What lies there may be anything.
    for found in [vec![0; 1 << 20], blob[..blob.len() - 1].iter().map(|byte| !byte).collect(), vec![7; blob.len() + 9]]
    {
        store.remove(&registry.reference("app:v1")).unwrap();
        collect(&store, &BTreeSet::new());
        fs::write(&partial, &found).unwrap();
        let image = pull_with(&store, &registry.reference("app:v1"), &hasty).unwrap();
        assert!(!store.rootfs(&image).unwrap().cached || !partial.exists());
    }
    // A download that nobody goes on with is garbage.
    fs::write(&partial, b"x").unwrap();
    collect(&store, &BTreeSet::new());
    assert!(!partial.exists());
}

#[test]
fn a_few_bytes_each_time_are_no_progress() {
    let (registry, (_dir, store)) = (Registry::start(), store());
    let image = TestImage::new(vec![Layer::new(&[("data", &noise(2 << 20))])]);
    registry.push("app", "v1", &image);
    let path = blob_path("app", &image.layers[0].blob);
    registry.fail(&path, [Fault::Cut(10); 20]);
    let error = pull(&store, &registry.reference("app:v1")).unwrap_err();
    assert_eq!(error.class(), "unreachable");
    let asked = registry.requests().iter().filter(|request| request.starts_with(&path)).count();
    assert_eq!(asked, 1 + options().retries as usize);
}

#[test]
fn what_nobody_can_go_on_with_is_not_kept() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let (registry, (dir, store)) = (Registry::start(), store());
    let image = TestImage::new(vec![Layer::new(&[("data", &noise(2 << 20))])]);
    registry.push("app", "v1", &image);
    let (blob, partial) = (&image.layers[0].blob, dir.path().join("images/partial"));
    let path = blob_path("app", blob);
    for length in [blob.len() - 1, blob.len() + 1] {
        let mut other = blob.clone();
        other.resize(length, 0);
        registry.put(&path, "application/octet-stream", &other);
        let error = pull(&store, &registry.reference("app:v1")).unwrap_err();
        assert!(matches!(error, ImageError::CorruptSize { .. }), "{error}");
        assert_eq!(fs::read_dir(&partial).unwrap().count(), 0);
    }
    registry.put(&path, "application/octet-stream", blob);
    let written = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&written);
    let full = store.clone().before_steps(Arc::new(move |step, path| {
        let second = step == Step::Write
            && path.parent().is_some_and(|folder| folder.ends_with("partial"))
            && seen.swap(true, Ordering::Relaxed);
        if second { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }));
    let error = pull(&full, &registry.reference("app:v1")).unwrap_err();
    assert!(error.class() == "disk-full" && written.load(Ordering::Relaxed), "{error}");
    assert_eq!(fs::read_dir(&partial).unwrap().count(), 0);
}

#[test]
fn folders_of_volumes_are_made_and_what_is_left_out_is_told() {
    let (registry, (_dir, store)) = (Registry::start(), store());
    let mut tar = tar::Builder::new(Vec::new());
    for (path, kind) in [("dev/sda", tar::EntryType::Block), ("file", tar::EntryType::Regular)] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, &[][..]).unwrap();
    }
    let layer = Layer::of_tar(&tar.into_inner().unwrap());
    let image = TestImage { volumes: &["/var/lib/data", "/file/below", "/../up"], ..TestImage::new(vec![layer]) };
    registry.push("app", "v1", &image);
    let told: Arc<Mutex<Vec<Progress>>> = Arc::default();
    let heard = Arc::clone(&told);
    let telling = PullOptions {
        progress: Some(Arc::new(move |step: &Progress| {
            if matches!(step, Progress::LeftOut(_)) {
                heard.lock().unwrap().push(step.clone());
            }
        })),
        ..options()
    };
    for _ in 0..2 {
        let image = pull_with(&store, &registry.reference("app:v1"), &telling).unwrap();
        let rootfs = store.rootfs(&image).unwrap();
        assert_eq!((rootfs.dropped.devices, rootfs.dropped.volumes, rootfs.dropped.attributes), (1, 2, 0));
        let look = rootfs.look().unwrap();
        let mut folder = look.root();
        for name in ["var", "lib", "data"] {
            let Some(coffer_image::erofs::Found::Folder(below)) = look.find(folder, name.as_bytes()).unwrap() else {
                panic!("no {name}")
            };
            folder = below;
        }
        let space = store.space(&image);
        assert_eq!(space.unpacked, Some(rootfs.verity.data_blocks * 4096));
        assert!(space.disk > 0);
    }
    assert_eq!(told.lock().unwrap().len(), 2, "also where it was made before");
}
