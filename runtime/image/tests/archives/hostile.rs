//! Archives that are made to harm: each is an error with words, and nothing of it is left.

use super::{load, save, store, with};
use coffer_image::archive::LoadOptions;
use coffer_image::store::Step;
use coffer_image::{Digest, ImageError, Limits};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tar::{Builder, EntryType, Header};

use super::registry::TestImage;

/// Something in an archive.
enum Entry<'a> {
    File(&'a str, Vec<u8>),
    Link(&'a str, &'a str),
}

fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for entry in entries {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        match entry {
            Entry::File(name, bytes) => {
                header.set_size(bytes.len() as u64);
                // As a hostile writer would: the builder refuses `..`.
                header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
                header.set_cksum();
                builder.append(&header, &bytes[..]).unwrap();
            }
            Entry::Link(name, target) => {
                header.set_entry_type(EntryType::Symlink);
                header.set_size(0);
                builder.append_link(&mut header, name, target).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

/// Loads it within small limits; nothing may be there afterwards.
fn refused(bytes: &[u8]) -> ImageError {
    let (dir, store) = store();
    let limits = Limits { bytes: 1 << 20, ..Limits::default() };
    let error = store.load(Path::new("bad.tar"), bytes, &LoadOptions::default(), limits).unwrap_err();
    assert!(store.list().unwrap().images.is_empty());
    assert_eq!(fs::read_dir(dir.path().join("images/tmp")).unwrap().count(), 0, "{error}");
    assert!(!error.to_string().contains(char::is_control) && error.to_string().len() < 2000, "{error}");
    error
}

fn file<'a>(name: &'a str, text: &str) -> Entry<'a> {
    Entry::File(name, text.as_bytes().to_vec())
}

#[test]
fn what_is_no_image_is_said_to_be_none() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), "[]").unwrap();
    let outside = secret.path().display().to_string();
    let deep = format!("../../../../../../..{outside}");
    let digest = Digest::of(b"x");
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"a","size":1,"digest":"{digest}"}}]}}"#);
    let blob = format!("blobs/sha256/{}", digest.hex());
    let named = |name: &str| format!(r#"[{{"Config":"{name}","RepoTags":["a:1"],"Layers":["l"]}}]"#);
    let cases: Vec<(Vec<Entry<'_>>, &str)> = vec![
        (vec![], "neither an index.json nor a manifest.json"),
        (vec![file("../manifest.json", "[]")], "neither"),
        (vec![file("manifest.json", "{")], "manifest.json"),
        (vec![file("manifest.json", "[]")], "it has no image"),
        (vec![file("index.json", "[1]")], "index.json"),
        (vec![file("index.json", r#"{"manifests":[{"digest":"sha256:../../x"}]}"#)], "is not sha256"),
        (vec![file("index.json", &index)], "missing"),
        (vec![file("index.json", &index), file(&blob, "y")], "is corrupt"),
        (vec![Entry::Link("manifest.json", &outside)], "neither"),
        (vec![Entry::Link("manifest.json", &deep)], "neither"),
        (vec![Entry::Link("manifest.json", "a"), Entry::Link("a", "manifest.json")], "neither"),
        (vec![file("manifest.json", &named("/etc/hostname"))], "which it has not"),
        (vec![file("manifest.json", &named("../../etc/hostname"))], "which it has not"),
        (vec![file("manifest.json", &named("\\u001b[2J"))], "\\u{1b}[2J"),
        (vec![file("manifest.json", &named("c")), file("c", "{}"), file("l", "x")], "configuration"),
        (vec![Entry::File("manifest.json", vec![b' '; 1 << 20])], "unpacked bytes"),
    ];
    for (entries, words) in cases {
        let error = refused(&archive(&entries));
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
    let error = refused(&archive(&[file("a", "b")])[..700]);
    assert!(error.to_string().contains("too early"), "{error}");
}

#[test]
fn a_bomb_is_refused_after_as_much_as_is_allowed() {
    let bomb = zstd::encode_all(std::io::Read::take(std::io::repeat(0), 1 << 30), 1).unwrap();
    assert!(bomb.len() < 1 << 20);
    assert_eq!(refused(&bomb).class(), "too-large", "what is behind the end of an archive is read, within the limit");
    let mut header = Header::new_gnu();
    header.set_path("big").unwrap();
    header.set_mode(0o644);
    header.set_size(1 << 30);
    header.set_cksum();
    let stream = std::io::Read::chain(&header.as_bytes()[..], std::io::Read::take(std::io::repeat(7), 1 << 30));
    let error = refused(&zstd::encode_all(stream, 1).unwrap());
    assert!(error.class() == "too-large", "{error}");
    let many: Vec<_> = (0..20_001).map(|number| format!("{number}")).collect();
    let many: Vec<_> = many.iter().map(|name| file(name, "")).collect();
    let (_dir, store) = store();
    let bytes = archive(&many);
    let error = store.load(Path::new("many.tar"), &bytes[..], &LoadOptions::default(), Limits::default()).unwrap_err();
    assert_eq!(error.class(), "too-large", "{error}");
}

/// Of an archive of one image with these names, all of the names that lead to it; and how often the index was written.
fn named(names: &[String]) -> (Result<Vec<String>, ImageError>, usize) {
    let sample = TestImage::sample();
    let layers: Vec<_> = (0..sample.layers.len()).map(|number| format!("{number}.tar")).collect();
    let tags = serde_json::json!([{"Config": "c", "RepoTags": names, "Layers": layers}]).to_string();
    let mut entries = vec![file("manifest.json", &tags), Entry::File("c", sample.config())];
    entries.extend(layers.iter().zip(&sample.layers).map(|(name, layer)| Entry::File(name, layer.blob.clone())));
    let (_dir, store) = store();
    let writes = Arc::new(AtomicUsize::new(0));
    let counted = writes.clone();
    let store = store.before_steps(Arc::new(move |step, path| {
        let is_index = step == Step::Rename && path.ends_with("index.json");
        counted.fetch_add(usize::from(is_index), Ordering::Relaxed);
        Ok(())
    }));
    let loaded =
        store.load(Path::new("n.tar"), &archive(&entries)[..], &LoadOptions::default(), Limits::default()).map(drop);
    let images = store.list().unwrap().images;
    (loaded.map(|()| images.into_iter().map(|image| image.reference).collect()), writes.load(Ordering::Relaxed))
}

#[test]
fn a_file_gives_an_image_so_many_names_in_one_write() {
    let names: Vec<_> = (0..1001).map(|number| format!("test.example/app:{number:04}")).collect();
    let (loaded, writes) = named(&names[..1000]);
    assert_eq!((loaded.unwrap(), writes), (names[..1000].to_vec(), 1));
    let (refused, writes) = named(&names);
    assert_eq!(writes, 0);
    assert!(matches!(refused, Err(ImageError::TooLarge { limit: 1000, .. })), "{refused:?}");
    // Also where they are always the same one, or somebody wants one of them.
    let (refused, _) = named(&vec!["test.example/app:1".to_owned(); 1001]);
    assert!(matches!(refused, Err(ImageError::TooLarge { limit: 1000, .. })), "{refused:?}");
}

#[test]
fn a_file_has_so_many_images() {
    let entries: Vec<_> = (0..257_u32)
        .map(|number| serde_json::json!({"mediaType": "a", "size": 1, "digest": Digest::of(&number.to_le_bytes())}))
        .collect();
    let index = |count: usize| serde_json::json!({"schemaVersion": 2, "manifests": &entries[..count]}).to_string();
    let error = refused(&archive(&[file("index.json", &index(257))]));
    assert!(matches!(error, ImageError::TooLarge { limit: 256, .. }), "{error}");
    let error = refused(&archive(&[file("index.json", &index(256))]));
    assert!(error.to_string().contains("is missing"), "{error}");
}

#[test]
fn a_file_that_could_not_be_loaded_is_not_written() {
    let (dir, store) = with(&TestImage::sample());
    let names = vec!["test.example/app:1".to_owned(); 1001];
    let mut out = Vec::new();
    let error = store.save(&names, dir.path(), &mut out).unwrap_err();
    assert!(error.class() == "too-large" && out.is_empty(), "{error}");
}

#[test]
fn any_byte_that_changes_in_an_archive_changes_no_image() {
    let (dir, here) = with(&TestImage::sample());
    let path = dir.path().join("app.tar");
    save(&here, &["test.example/app:1"], &path);
    let good = fs::read(&path).unwrap();
    let id = here.resolve("test.example/app:1").unwrap().config_digest;
    let (_there_dir, there) = store();
    for at in (0..good.len()).step_by(good.len() / 60) {
        let mut bad = good.clone();
        bad[at] ^= 0x20;
        if let Ok(loaded) = there.load(&path, &bad[..], &LoadOptions::default(), Limits::default()) {
            // Padding, times and names are no part of an image.
            assert!(loaded.iter().all(|loaded| loaded.pulled.image.config_digest == id), "byte {at}");
        }
    }
}

#[test]
fn a_folder_leads_nowhere_else() {
    let (dir, here) = with(&TestImage::sample());
    let layout = dir.path().join("layout");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let image = here.resolve("test.example/app:1").unwrap();
    let stored = dir.path().join("images/blobs/sha256");
    let entry = serde_json::json!({"mediaType": "x", "size": 1, "digest": image.manifest_digest,
        "annotations": {"org.opencontainers.image.ref.name": "v1"}});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
    fs::write(layout.join("index.json"), &index).unwrap();
    for blob in fs::read_dir(&stored).unwrap().flatten() {
        std::os::unix::fs::symlink(blob.path(), blobs.join(blob.file_name())).unwrap();
    }
    let (_there_dir, there) = store();
    let options = LoadOptions { repository: Some("localhost/layout".to_owned()), ..LoadOptions::default() };
    let error = load(&there, &layout, &options).unwrap_err();
    assert_eq!(error.class(), "io", "links out of it are not followed: {error}");
    fs::remove_dir_all(&blobs).unwrap();
    fs::create_dir_all(&blobs).unwrap();
    for blob in fs::read_dir(&stored).unwrap().flatten() {
        fs::copy(blob.path(), blobs.join(blob.file_name())).unwrap();
    }
    assert_eq!(load(&there, &layout, &options).unwrap()[0].references, ["localhost/layout:v1"]);
    // A pipe in place of a file keeps nobody waiting.
    fs::remove_file(layout.join("index.json")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, layout.join("index.json"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    assert!(load(&there, &layout, &options).unwrap_err().to_string().contains("is no file"));
}
