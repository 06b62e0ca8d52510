//! The bound on the disk: who goes, and who does not.

use super::registry::{Layer, Registry, TestImage, noise};
use super::store;
use coffer_image::{Image, PullOptions};
use std::collections::BTreeSet;
use std::fs::File;
use std::time::{Duration, SystemTime};

/// An image with a layer that all of these have, and one of its own.
fn image(own: usize) -> TestImage {
    TestImage::new(vec![Layer::new(&[("shared", &noise(300_000))]), Layer::new(&[("own", &noise(400_000 + own))])])
}

#[test]
fn those_used_longest_ago_go_and_what_is_shared_counts_once() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (registry, (dir, store)) = (Registry::start(), store());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut images: Vec<Image> = Vec::new();
    for number in 0..3 {
        registry.push("app", &format!("v{number}"), &image(number));
        let name = registry.reference(&format!("app:v{number}"));
        images.push(runtime.block_on(store.pull(&name, &PullOptions::default())).unwrap().image);
    }
    let used = |image: &Image, ago: u64| {
        let lock = std::fs::read_dir(dir.path().join("images/rootfs")).unwrap().flatten().map(|entry| entry.path());
        let wanted = image.config_digest.hex();
        let is_its = |path: &std::path::PathBuf| path.display().to_string().contains(&wanted);
        let lock = lock.filter(is_its).find(|path| path.extension().is_some_and(|end| end == "lock")).unwrap();
        File::options()
            .write(true)
            .open(lock)
            .unwrap()
            .set_modified(SystemTime::now() - Duration::from_secs(ago))
            .unwrap();
    };
    for (image, ago) in images.iter().zip([50, 300, 100]) {
        used(image, ago);
    }
    store.tag(&images[1].reference, "other:1").unwrap();
    let chosen = |limit: u64, keep: &[usize]| {
        let keep: Vec<_> = keep.iter().map(|at| images[*at].config_digest).collect();
        let over = store.over(limit, |image| keep.contains(&image.config_digest)).unwrap();
        over.into_iter().map(|image| image.reference).collect::<Vec<_>>()
    };
    let (all, names) = (store.disk().unwrap(), |at: usize| images[at].reference.clone());
    assert!(chosen(all, &[]).is_empty() && all > 2_000_000);
    let (one, two) = (store.taken_together(&images[..1]), store.taken_together(&images[..2]));
    assert!(two > one && two < one + store.taken_together(&images[1..2]), "what two share counts once: {one} {two}");
    assert!(store.taken_together(&images) <= all);
    let both = BTreeSet::from([names(1), "docker.io/library/other:1".to_owned()]);
    let first = chosen(all - 1, &[]);
    assert_eq!(first.iter().cloned().collect::<BTreeSet<_>>(), both, "with all of its names");
    assert_eq!(chosen(all - 1, &[1]), [names(2)], "the next one, where that is to stay");
    // Its own layer and its root file system are some 1.1 MB; the layer that others have stays, and is not counted as gone.
    assert_eq!(chosen(all - 1_300_000, &[1]), [names(2), names(0)]);
    assert_eq!(chosen(0, &[]).len(), 4, "nothing is left that could go");
    // What is used now is the last to go.
    store.rootfs(&images[1]).unwrap();
    assert_eq!(chosen(all - 1, &[]), [names(2)]);
    for name in chosen(all - 1, &[]) {
        store.remove(&name).unwrap();
    }
    let kept = BTreeSet::new();
    let freed = store.collector().unwrap().unwrap().collect(&kept).unwrap();
    assert!(store.disk().unwrap() < all && freed.bytes > 1_000_000, "{freed:?}");
    assert!(store.rootfs(&images[0]).is_ok() && store.resolve("other:1").is_ok());
}
