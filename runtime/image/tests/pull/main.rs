//! Pulling: what arrives is checked, what fails is told apart, what breaks is continued, and nothing half-done shows.

#[allow(dead_code, reason = "the test of memory has its faults from here too")]
mod registry;
mod steps;

mod answers;
mod mirrors;
mod pushed;
mod roundabout;

use coffer_image::{Digest, Freed, Image, ImageError, Pace, Progress, PullOptions, Pulled, Store};
use registry::{Fault, INDEX_TYPE, Layer, MANIFEST_TYPE, Registry, TestImage, blob_path, descriptor, noise};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn store() -> (TempDir, Store) {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path().join("images")).unwrap();
    (dir, store)
}

fn options() -> PullOptions {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    PullOptions { backoff: Duration::from_millis(5), ..PullOptions::default() }
}

fn pull_whole(store: &Store, reference: &str, options: &PullOptions) -> Result<Pulled, ImageError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(store.pull(reference, options))
}

fn pull_with(store: &Store, reference: &str, options: &PullOptions) -> Result<Image, ImageError> {
    pull_whole(store, reference, options).map(|pulled| pulled.image)
}

fn pull(store: &Store, reference: &str) -> Result<Image, ImageError> {
    pull_with(store, reference, &options())
}

/// Collects garbage; the store must be free.
fn collect(store: &Store, in_use: &BTreeSet<Digest>) -> Freed {
    store.collector().unwrap().expect("nobody uses the store").collect(in_use).unwrap()
}

/// As if no root file system had been made yet.
fn forget_rootfs(store: &Store) {
    let folder = store.dir().join("rootfs");
    fs::remove_dir_all(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
}

/// All images; none may be damaged.
fn listed(store: &Store) -> Vec<Image> {
    let listing = store.list().unwrap();
    assert!(listing.damaged.is_empty(), "{:?}", listing.damaged);
    listing.images
}

fn count(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

#[test]
fn a_pulled_image_is_found_by_name_tag_digest_and_prefix() {
    let (registry, (_dir, store)) = (Registry::start(), store());
    let sample = TestImage::sample();
    registry.push("app", "v1", &sample);
    let image = pull(&store, &registry.reference("app:v1")).unwrap();
    assert_eq!(image.config_digest, Digest::of(&sample.config()));
    assert_eq!(image.manifest_digest, Digest::of(&sample.manifest()));
    assert_eq!((image.config.entrypoint.as_slice(), image.config.user.as_str()), (&["/bin/sh".to_owned()][..], "7:8"));
    assert_eq!(image.layers.len(), 2);
    assert_eq!(listed(&store), std::slice::from_ref(&image));
    let id = image.config_digest;
    let by_digest = format!("{}@{}", registry.reference("app"), image.repo_digest);
    for name in [&registry.reference("app:v1"), &id.to_string(), &id.hex(), &id.short(), &by_digest] {
        assert_eq!(store.resolve(name).unwrap(), image, "{name}");
    }
    for name in [&registry.reference("app"), "busybox", "000000000000"] {
        assert_eq!(store.resolve(name).unwrap_err().class(), "not-found", "{name}");
    }
    assert_eq!(store.resolve("NOT/A/NAME").unwrap_err().class(), "usage");
}

#[test]
fn a_second_pull_fetches_no_layer_again() {
    let (registry, (_dir, store)) = (Registry::start(), store());
    registry.push("app", "v1", &TestImage::sample());
    pull(&store, &registry.reference("app:v1")).unwrap();
    registry.requests();
    pull(&store, &registry.reference("app:v1")).unwrap();
    assert!(!registry.requests().iter().any(|path| path.contains("/blobs/")));
}

#[test]
fn an_unknown_image_is_not_found_at_once() {
    let (registry, (_dir, store)) = (Registry::start(), store());
    let error = pull(&store, &registry.reference("nothing:here")).unwrap_err();
    assert_eq!(error.class(), "not-found");
    assert!(error.to_string().contains("nothing:here"), "{error}");
    assert_eq!(registry.requests().iter().filter(|path| path.contains("/manifests/")).count(), 1);
}

#[test]
fn a_registry_that_is_down_is_unreachable_after_bounded_tries() {
    let (_dir, store) = store();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let started = Instant::now();
    let error = pull(&store, &format!("127.0.0.1:{port}/app")).unwrap_err();
    assert_eq!(error.class(), "unreachable");
    assert!(error.to_string().to_lowercase().contains("connection refused"), "{error}");
    assert!(error.to_string().contains("4 attempts"), "{error}");
    assert!(started.elapsed() < Duration::from_mins(1));
}

#[test]
fn a_corrupt_layer_is_named_with_both_digests_and_not_kept() {
    let (registry, (dir, store)) = (Registry::start(), store());
    let sample = TestImage::sample();
    registry.push("app", "v1", &sample);
    let good = &sample.layers[0].blob;
    let mut bad = good.clone();
    bad[5000] ^= 1;
    registry.put(&blob_path("app", good), "application/octet-stream", &bad);
    let error = pull(&store, &registry.reference("app:v1")).unwrap_err();
    assert_eq!(error.class(), "corrupt");
    let text = error.to_string();
    assert!(text.contains(&Digest::of(good).to_string()) && text.contains(&Digest::of(&bad).to_string()), "{text}");
    assert!(listed(&store).is_empty());
    assert!(!dir.path().join("images/blobs/sha256").join(Digest::of(good).hex()).exists());
    assert_eq!(count(&dir.path().join("images/tmp")), 0, "partial downloads are removed");
}

#[test]
fn a_layer_of_another_length_is_corrupt() {
    for change in [-1_isize, 1] {
        let (registry, (_dir, store)) = (Registry::start(), store());
        let sample = TestImage::sample();
        registry.push("app", "v1", &sample);
        let mut blob = sample.layers[1].blob.clone();
        blob.resize(blob.len().saturating_add_signed(change), 0);
        registry.put(&blob_path("app", &sample.layers[1].blob), "application/octet-stream", &blob);
        let error = pull(&store, &registry.reference("app:v1")).unwrap_err();
        assert!(matches!(error, ImageError::CorruptSize { what: "layer", .. }), "{error}");
    }
}

#[test]
fn a_manifest_must_have_the_digest_asked_for() {
    let (registry, (_dir, store)) = (Registry::start(), store());
    let asked = Digest::of(b"another manifest");
    registry.put(&format!("/v2/app/manifests/{asked}"), MANIFEST_TYPE, &TestImage::sample().manifest());
    let error = pull(&store, &format!("{}@{asked}", registry.reference("app"))).unwrap_err();
    assert!(matches!(error, ImageError::CorruptBlob { expected, .. } if expected == asked), "{error}");
}

#[test]
fn passing_failures_are_retried_and_reported() {
    let (registry, (_dir, store)) = (Registry::start(), store());
    let sample = TestImage::sample();
    registry.push("app", "v1", &sample);
    registry.fail("/v2/app/manifests/v1", [Fault::Status(429), Fault::Status(503)]);
    registry.fail(&blob_path("app", &sample.layers[0].blob), [Fault::Status(429)]);
    let retries = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&retries);
    let progress = move |progress: &Progress| {
        if let Progress::Retrying { attempt, reason, .. } = progress {
            seen.lock().unwrap().push((*attempt, reason.clone()));
        }
    };
    pull_with(&store, &registry.reference("app:v1"), &PullOptions { progress: Some(Arc::new(progress)), ..options() })
        .unwrap();
    let retries = retries.lock().unwrap();
    assert_eq!(retries.iter().map(|(attempt, _)| *attempt).collect::<Vec<_>>(), [1, 2, 1]);
    assert!(retries[0].1.contains("429"), "{retries:?}");
}

#[test]
fn endless_failure_is_unreachable() {
    let (registry, (_dir, store)) = (Registry::start(), store());
    registry.push("app", "v1", &TestImage::sample());
    registry.fail("/v2/app/manifests/v1", [Fault::Status(500); 100]);
    let error = pull(&store, &registry.reference("app:v1")).unwrap_err();
    assert_eq!(error.class(), "unreachable");
    assert!(error.to_string().contains("500"), "{error}");
}

#[test]
fn a_broken_download_goes_on_where_it_broke() {
    let (registry, (_dir, store)) = (Registry::start(), store());
    let sample = TestImage::new(vec![Layer::new(&[("big", &noise(4 << 20))])]);
    registry.push("app", "v1", &sample);
    let path = blob_path("app", &sample.layers[0].blob);
    // More breaks than retries: each other one brings it a mebibyte further.
    registry.fail(&path, [Fault::Cut(600_000); 5]);
    pull(&store, &registry.reference("app:v1")).unwrap();
    let from: Vec<usize> = registry
        .requests()
        .iter()
        .filter_map(|request| request.strip_prefix(&format!("{path} ")).map(|from| from.parse().unwrap()))
        .collect();
    assert!(from.len() == 6 && from.is_sorted() && from[5] > 0, "{from:?}");
}

#[test]
fn the_linux_amd64_image_of_an_index_is_taken() {
    let (registry, (_dir, store)) = (Registry::start(), store());
    let sample = TestImage::sample();
    let other = TestImage { architecture: "arm64", ..sample.clone() };
    registry.push("app", "unused", &sample);
    let entry = |image: &TestImage| {
        let mut entry = descriptor(MANIFEST_TYPE, &image.manifest());
        entry["platform"] = serde_json::json!({"os": "linux", "architecture": image.architecture});
        entry
    };
    let index = |entries: &[serde_json::Value]| {
        serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries}))
            .unwrap()
    };
    let both = index(&[entry(&other), entry(&sample)]);
    registry.put("/v2/app/manifests/both", INDEX_TYPE, &both);
    registry.put("/v2/app/manifests/arm", INDEX_TYPE, &index(&[entry(&other)]));
    let image = pull(&store, &registry.reference("app:both")).unwrap();
    assert_eq!((image.manifest_digest, image.repo_digest), (Digest::of(&sample.manifest()), Digest::of(&both)));
    let error = pull(&store, &registry.reference("app:arm")).unwrap_err();
    assert_eq!(error.class(), "platform");
    assert!(error.to_string().contains("linux/arm64"), "{error}");
    registry.push("arm", "only", &other);
    assert_eq!(pull(&store, &registry.reference("arm:only")).unwrap_err().class(), "platform");
}

#[test]
fn credentials_come_from_dockers_configuration() {
    let (registry, (dir, store)) = (Registry::start(), store());
    registry.push("app", "v1", &TestImage::sample());
    registry.require("dXNlcjpwYXNz");
    let reference = registry.reference("app:v1");
    let error = pull(&store, &reference).unwrap_err();
    assert_eq!(error.class(), "unauthorized");
    let file = dir.path().join("config.json");
    fs::write(&file, format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpwYXNz"}}}}}}"#, registry.address)).unwrap();
    pull_with(&store, &reference, &PullOptions { docker_config: Some(file), ..options() }).unwrap();
}

#[test]
fn the_root_file_system_is_the_same_everywhere_and_made_once() {
    let registry = Registry::start();
    registry.push("app", "v1", &TestImage::sample());
    let made = [(), ()].map(|()| {
        let (dir, store) = store();
        let Pulled { image, rootfs } = pull_whole(&store, &registry.reference("app:v1"), &options()).unwrap();
        assert!(!rootfs.cached);
        let again = store.rootfs(&image).unwrap();
        assert!(again.cached);
        assert_eq!((&again.verity, &again.path, again.size), (&rootfs.verity, &rootfs.path, rootfs.size));
        assert_eq!(fs::metadata(&rootfs.path).unwrap().len(), rootfs.size);
        (fs::read(&rootfs.path).unwrap(), rootfs.verity, dir)
    });
    assert!(made[0].0 == made[1].0);
    assert_eq!(made[0].1, made[1].1);
    assert_eq!(hex::decode(&made[0].1.salt).unwrap().len(), 32);
}

/// A layer with one entry under a path that a tar library would not write.
fn layer_with(path: &str) -> Layer {
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_size(0);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&header, &[][..]).unwrap();
    Layer::of_tar(&builder.into_inner().unwrap())
}

#[test]
fn a_name_never_moves_to_an_image_that_cannot_be_unpacked() {
    let good = TestImage::sample();
    let with = |layer: Layer| TestImage::new(vec![good.layers[0].clone(), layer]);
    let mut other_diff_id = good.clone();
    other_diff_id.layers[1].diff_id = Digest::of(b"other");
    let cut = |mut layer: Layer| {
        layer.blob.truncate(layer.blob.len() - 20);
        layer
    };
    let cases = [
        ("path", with(layer_with("a/../../etc/x"))),
        ("file as folder", with(Layer::new(&[("f", b"1"), ("f/x", b"2")]))),
        ("diff_id", other_diff_id),
        ("compression", with(cut(Layer::new(&[("big", &noise(50_000))])))),
    ];
    for (what, bad) in cases {
        let (registry, (_dir, store)) = (Registry::start(), store());
        let name = registry.reference("app:v1");
        registry.push("app", "v1", &good);
        let image = pull(&store, &name).unwrap();
        registry.push("app", "v1", &bad);
        let error = pull(&store, &name).unwrap_err();
        assert_eq!(error.class(), "corrupt", "{what}: {error}");
        assert!(error.to_string().contains(&bad.layers[1].digest().to_string()), "{what}: {error}");
        assert_eq!(listed(&store), std::slice::from_ref(&image), "{what}");
        collect(&store, &BTreeSet::new());
        forget_rootfs(&store);
        store.rootfs(&store.resolve(&name).unwrap()).unwrap();
        assert_eq!(pull(&store, &name).unwrap_err().class(), "corrupt", "{what}: a second try is no better");
        let (_fresh_dir, fresh) = self::store();
        assert_eq!(pull(&fresh, &name).unwrap_err().class(), "corrupt", "{what}");
        assert!(listed(&fresh).is_empty(), "{what}");
    }
}

#[test]
fn blobs_are_unpacked_although_others_were_made_into_the_same_root_file_system() {
    let (registry, (_dir, store)) = (Registry::start(), store());
    let name = registry.reference("app:v1");
    let good = TestImage::sample();
    registry.push("app", "v1", &good);
    let image = pull(&store, &name).unwrap();
    // The configuration is the same to the byte, so the image's id is.
    let mut bad = good.clone();
    bad.layers[1].blob = Layer::new(&[("else", b"x")]).blob;
    registry.push("app", "v1", &bad);
    let error = pull(&store, &name).unwrap_err();
    assert!(matches!(error, ImageError::CorruptDiffId { layer, .. } if layer == bad.layers[1].digest()), "{error}");
    assert_eq!(listed(&store), [image]);
}

#[test]
fn a_blob_damaged_on_disk_is_told_and_mended_by_a_pull() {
    let (registry, (dir, store)) = (Registry::start(), store());
    let sample = TestImage::sample();
    registry.push("app", "v1", &sample);
    let image = pull(&store, &registry.reference("app:v1")).unwrap();
    let blob = dir.path().join("images/blobs/sha256").join(sample.layers[0].digest().hex());
    let mut bytes = fs::read(&blob).unwrap();
    bytes[2000] ^= 1;
    fs::write(&blob, bytes).unwrap();
    forget_rootfs(&store);
    let error = store.rootfs(&image).unwrap_err();
    assert!(
        matches!(error, ImageError::DamagedBlob { expected, .. } if expected == sample.layers[0].digest()),
        "{error}"
    );
    assert!(matches!(store.rootfs(&image).unwrap_err(), ImageError::MissingBlob { .. }));
    pull(&store, &registry.reference("app:v1")).unwrap();
    store.rootfs(&image).unwrap();
}

#[test]
fn garbage_is_what_no_reference_and_no_box_needs() {
    let (registry, (dir, store)) = (Registry::start(), store());
    let shared = Layer::new(&[("shared", b"s")]);
    let one = TestImage::new(vec![shared.clone(), Layer::new(&[("one", b"1")])]);
    let two = TestImage::new(vec![shared.clone(), Layer::new(&[("two", b"2")])]);
    registry.push("one", "latest", &one);
    registry.push("two", "latest", &two);
    let images = ["one", "two"].map(|name| pull(&store, &registry.reference(name)).unwrap());
    let rootfs = store.rootfs(&images[0]).unwrap();
    assert!(store.collector().unwrap().is_none(), "a root file system that is held keeps the store busy");
    let path = rootfs.path.clone();
    drop(rootfs);
    assert_eq!(collect(&store, &BTreeSet::new()).files, 0);
    let removed = store.remove(&images[0].config_digest.short()).unwrap();
    assert_eq!(
        (removed.references.as_slice(), removed.config_digest),
        (&[registry.reference("one:latest")][..], Some(images[0].config_digest))
    );
    assert_eq!(store.remove(&registry.reference("one")).unwrap_err().class(), "not-found");
    let in_use = BTreeSet::from([images[0].config_digest]);
    assert_eq!(collect(&store, &in_use).files, 3, "manifest, configuration and own layer");
    assert!(path.exists(), "a box uses it");
    collect(&store, &BTreeSet::new());
    assert!(!path.exists());
    assert_eq!(count(&dir.path().join("images/blobs/sha256")), 4);
    store.rootfs(&images[1]).unwrap();
    assert_eq!(listed(&store), [images[1].clone()]);
}

#[test]
fn pulls_and_root_file_systems_at_once_do_not_disturb_each_other() {
    let (registry, (_dir, store)) = (Registry::start(), store());
    for number in 0..6 {
        registry.push("app", &format!("v{number}"), &TestImage::sample());
    }
    std::thread::scope(|scope| {
        for number in 0..6 {
            let (store, registry) = (&store, &registry);
            scope.spawn(move || {
                let image = pull(store, &registry.reference(&format!("app:v{number}"))).unwrap();
                store.rootfs(&image).unwrap();
                if let Some(collector) = store.collector().unwrap() {
                    collector.collect(&BTreeSet::new()).unwrap();
                }
            });
        }
    });
    assert_eq!(listed(&store).len(), 6);
    store.rootfs(&listed(&store)[0]).unwrap();
}

#[test]
fn a_full_disk_is_named_with_path_and_bytes() {
    let dir = TempDir::new().unwrap();
    let at = dir.path().to_str().unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=320k", "tmpfs", at]).output();
    if !mounted.is_ok_and(|out| out.status.success()) {
        return eprintln!("SKIPPED: a small file system to fill needs the right to mount");
    }
    let result = std::panic::catch_unwind(|| {
        let registry = Registry::start();
        registry.push("small", "v1", &TestImage::sample());
        registry.push("big", "v1", &TestImage::new(vec![Layer::new(&[("big", &noise(1 << 20))])]));
        let store = Store::open(dir.path().join("images")).unwrap();
        let error = pull(&store, &registry.reference("big:v1")).unwrap_err();
        assert_eq!(error.class(), "disk-full");
        assert!(error.to_string().contains(at) && error.to_string().contains("bytes"), "{error}");
        // Its blobs fit, and its root file system does not.
        let error = pull(&store, &registry.reference("small:v1")).unwrap_err();
        assert_eq!(error.class(), "disk-full");
        assert!(listed(&store).is_empty());
        assert!(error.hint().unwrap().contains("free space"), "{error}");
        assert_eq!(count(&dir.path().join("images/tmp")), 0);
    });
    Command::new("umount").arg(at).status().unwrap();
    result.unwrap();
}

#[test]
fn two_pulls_of_one_image_at_once_both_succeed() {
    let (registry, (dir, store)) = (Registry::start(), store());
    registry.push("app", "v1", &TestImage::sample());
    let name = registry.reference("app:v1");
    for _ in 0..5 {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| store.rootfs(&pull(&store, &name).unwrap()).unwrap());
            }
        });
        assert_eq!(listed(&store).len(), 1);
        assert_eq!(count(&dir.path().join("images/tmp")), 0);
        store.remove(&name).unwrap();
        collect(&store, &BTreeSet::new());
        assert_eq!(count(&dir.path().join("images/blobs/sha256")), 0);
    }
}

/// Says that it is over when dropped, also by a panic.
struct Over<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Removes an image and collects what it had, until `act` is over, whatever its end.
fn beside_removals(store: &Store, name: &str, act: impl FnOnce()) {
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = store.remove(name);
                if let Some(collector) = store.collector().unwrap() {
                    collector.collect(&BTreeSet::new()).unwrap();
                }
            }
        });
        let _over = Over(&over);
        act();
    });
}

#[test]
fn a_pull_beside_removals_ends_with_a_whole_image() {
    let (registry, (_dir, store)) = (Registry::start(), store());
    registry.push("app", "v1", &TestImage::sample());
    let name = registry.reference("app:v1");
    beside_removals(&store, &name, || {
        for _ in 0..20 {
            let image = pull(&store, &name).unwrap();
            // Removed meanwhile or whole, never half.
            for _ in 0..20 {
                for whole in listed(&store) {
                    assert_eq!(whole, image);
                }
                match store.resolve(&name) {
                    Ok(resolved) => assert_eq!(resolved, image),
                    Err(error) => assert!(matches!(error, ImageError::NotStored { .. }), "{error}"),
                }
            }
        }
    });
    let image = pull(&store, &name).unwrap();
    store.rootfs(&image).unwrap();
}

#[test]
fn an_image_that_was_found_can_be_used_while_the_store_is_held() {
    let (registry, (_dir, store)) = (Registry::start(), store());
    registry.push("app", "v1", &TestImage::sample());
    let name = registry.reference("app:v1");
    beside_removals(&store, &name, || {
        for _ in 0..10 {
            let _held = store.hold().unwrap();
            let image = pull(&store, &name).unwrap();
            store.rootfs(&image).unwrap();
            if let Ok(image) = store.resolve(&name) {
                store.rootfs(&image).unwrap();
            }
        }
    });
}

#[test]
fn a_damaged_image_is_listed_as_that_and_can_be_removed() {
    for part in ["manifest", "configuration"] {
        for gone in [false, true] {
            let (registry, (dir, store)) = (Registry::start(), store());
            let (good, bad) = (TestImage::sample(), TestImage::new(vec![Layer::new(&[("a", b"b")])]));
            registry.push("good", "v1", &good);
            registry.push("bad", "v1", &bad);
            let image = pull(&store, &registry.reference("good:v1")).unwrap();
            let lost = pull(&store, &registry.reference("bad:v1")).unwrap();
            let digest = if part == "manifest" { lost.manifest_digest } else { lost.config_digest };
            let path = dir.path().join("images/blobs/sha256").join(digest.hex());
            if gone { fs::remove_file(&path) } else { fs::write(&path, b"{") }.unwrap();
            let listing = store.list().unwrap();
            assert_eq!(listing.images, std::slice::from_ref(&image));
            let [damaged] = listing.damaged.as_slice() else { panic!("{listing:?}") };
            assert_eq!((damaged.reference.as_str(), damaged.repo_digest), (&*lost.reference, lost.repo_digest));
            let text = damaged.error.to_string();
            assert!(text.contains(part) && text.contains(&digest.to_string()), "{text}");
            assert_eq!(store.resolve(&lost.reference).unwrap_err().class(), "corrupt");
            assert_eq!(store.remove(&lost.reference).unwrap().references, std::slice::from_ref(&lost.reference));
            assert_eq!(listed(&store), [image]);
        }
    }
}

#[test]
fn a_blob_that_was_damaged_on_the_disk_is_fetched_again() {
    let (registry, (dir, store)) = (Registry::start(), store());
    let sample = TestImage::sample();
    registry.push("app", "v1", &sample);
    let name = registry.reference("app:v1");
    pull(&store, &name).unwrap();
    for digest in [sample.layers[1].digest(), Digest::of(&sample.config()), Digest::of(&sample.manifest())] {
        let path = dir.path().join("images/blobs/sha256").join(digest.hex());
        let mut bytes = fs::read(&path).unwrap();
        bytes[9] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let image = pull(&store, &name).unwrap();
        assert_eq!(listed(&store), [image]);
        assert_eq!(Digest::of(&fs::read(&path).unwrap()), digest);
    }
}
