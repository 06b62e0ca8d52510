//! What the target of image archives does with its input; the stable replay of the corpus includes this file too.

use std::path::Path;

use coffer_image::archive::{Commit, Import, LoadOptions};
use coffer_image::{Limits, Store};

/// Loads an archive, and takes it for a root file system: what comes of it is whole or not there, within limits, and an
/// error has few words.
pub fn archive(data: &[u8]) {
    let Ok(dir) = tempfile::tempdir() else { return };
    let Ok(store) = Store::open(dir.path().join("images")) else { return };
    let limits = Limits { entries: 500, bytes: 1 << 20, memory: 1 << 20, steps: 1 << 16 };
    let failed = |error: coffer_image::ImageError| assert!(error.to_string().len() < 4096);
    let loaded = store.load(Path::new("archive"), data, &LoadOptions::default(), limits).map_err(failed);
    store.import(Path::new("root"), data, &Import::default(), limits).map_or_else(failed, drop);
    let listing = store.list().expect("the index is whole");
    assert!(listing.damaged.is_empty(), "{:?}", listing.damaged);
    for image in loaded.into_iter().flatten() {
        let name = &image.pulled.image.reference;
        let found = store.resolve(name).expect("it has the name it was given");
        store.save(std::slice::from_ref(name), Path::new("out"), std::io::sink()).expect("what is here can be written");
        assert!(store.history(&found).is_ok());
    }
    let left = std::fs::read_dir(dir.path().join("images/tmp")).map(Iterator::count);
    assert!(left.is_ok_and(|left| left == 0), "scratch files are gone");
}

/// Takes a text for an instruction: what is one makes an image whose configuration is read again as it was meant, and what is none is named.
pub fn change(data: &[u8]) {
    let changes = vec![String::from_utf8_lossy(data).into_owned()];
    if let Err(refused) = (Commit { changes: changes.clone(), ..Commit::default() }).check() {
        assert_eq!(refused.class(), "usage");
        return;
    }
    let Ok(dir) = tempfile::tempdir() else { return };
    let Ok(store) = Store::open(dir.path().join("images")) else { return };
    let import = Import { changes, ..Import::default() };
    // An archive without a file.
    let made = store.import(Path::new("root"), &[0; 1024][..], &import, Limits::default());
    let Ok(image) = made.map(|made| made.image) else { return };
    let found = store.resolve(&image.reference).expect("it has the name it was given");
    assert_eq!(found.config, image.config);
    if let Some(health) = &found.config.healthcheck {
        let words: Vec<&str> = health.test.iter().map(String::as_str).collect();
        assert!(matches!(words[..], ["NONE"] | ["CMD", ..] | ["CMD-SHELL", _]), "{words:?}");
    }
}
