//! Mirrors: asked first and in order, passed by where they have not what is wanted or not whole, and named nowhere in the store.

use super::{options, pull_with, store};
use crate::registry::{Fault, Registry, TestImage, blob_path};
use coffer_image::{Progress, PullOptions};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

#[test]
fn mirrors_are_asked_in_order_before_the_registry() {
    let (own, empty, broken, good) = (Registry::start(), Registry::start(), Registry::start(), Registry::start());
    let sample = TestImage::sample();
    for registry in [&own, &broken, &good] {
        registry.push("app", "v1", &sample);
    }
    let layer = &sample.layers[0].blob;
    broken.put(&blob_path("app", layer), "application/octet-stream", &vec![0; layer.len()]);
    let passed = Arc::new(Mutex::new(Vec::new()));
    let mirrored = |mirrors: &[&Registry]| {
        let mirrors = mirrors.iter().map(|mirror| mirror.address.to_string()).collect();
        let passed = Arc::clone(&passed);
        PullOptions {
            mirrors: BTreeMap::from([(own.address.to_string(), mirrors)]),
            progress: Some(Arc::new(move |step: &Progress| {
                if let Progress::NextRegistry { mirror, .. } = step {
                    passed.lock().unwrap().push(mirror.clone());
                }
            })),
            ..options()
        }
    };
    let name = own.reference("app:v1");
    let (_dir, fresh) = store();
    let image = pull_with(&fresh, &name, &mirrored(&[&empty, &broken, &good])).unwrap();
    assert_eq!(image.reference, name, "a mirror gives no name");
    assert_eq!(*passed.lock().unwrap(), [empty.address.to_string(), broken.address.to_string()]);
    assert!(own.requests().is_empty(), "and the registry is not asked where a mirror has it");

    // The registry itself is the last.
    good.fail("/v2/app/manifests/v1", std::iter::repeat_n(Fault::Status(500), 4));
    let (_dir, fresh) = store();
    pull_with(&fresh, &name, &mirrored(&[&good, &empty])).unwrap();
    assert!(!own.requests().is_empty());

    // Nor does what a mirror has of another platform, or too large, end the pull.
    let (other, large) = (Registry::start(), Registry::start());
    other.push("app", "v1", &TestImage { architecture: "arm64", ..sample.clone() });
    large.fail("/v2/app/manifests/v1", [Fault::Claim(1 << 40)]);
    let (_dir, fresh) = store();
    passed.lock().unwrap().clear();
    pull_with(&fresh, &name, &mirrored(&[&other, &large])).unwrap();
    assert_eq!(*passed.lock().unwrap(), [other.address.to_string(), large.address.to_string()]);

    // And its refusal is the pull's.
    let (_dir, fresh) = store();
    let error = pull_with(&fresh, &own.reference("nosuch:1"), &mirrored(&[&empty])).unwrap_err();
    assert!(error.class() == "not-found" && error.to_string().contains(&own.address.to_string()), "{error}");

    // A mirror of another registry is not asked.
    empty.requests();
    let (_dir, fresh) = store();
    pull_with(&fresh, &broken.reference("app:v1"), &mirrored(&[&empty])).unwrap_err();
    assert!(empty.requests().is_empty());
}
