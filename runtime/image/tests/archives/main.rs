//! Images in files: what we write others read, what others write we read, and what is no image harms nobody.

#[allow(dead_code, reason = "images and registries of another test, more than are needed here")]
#[path = "../pull/registry.rs"]
mod registry;

mod hostile;
mod limit;

use coffer_image::archive::{Commit, Import, LoadOptions, Loaded};
use coffer_image::{Digest, ImageError, Limits, PullOptions, Store};
use registry::{Layer, Registry, TestImage, noise};
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

fn store() -> (TempDir, Store) {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path().join("images")).unwrap();
    (dir, store)
}

fn load(store: &Store, path: &Path, options: &LoadOptions) -> Result<Vec<Loaded>, ImageError> {
    if path.is_dir() {
        return store.load_folder(path, options, Limits::default());
    }
    store.load(path, fs::File::open(path).unwrap(), options, Limits::default())
}

fn load_all(store: &Store, path: &Path) -> Vec<Loaded> {
    load(store, path, &LoadOptions::default()).unwrap()
}

/// A store with this image as `test.example/app:1` and `:2`.
fn with(image: &TestImage) -> (TempDir, Store) {
    let (registry, (dir, store)) = (Registry::start(), store());
    registry.push("app", "v1", image);
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let name = registry.reference("app:v1");
    runtime.block_on(store.pull(&name, &PullOptions::default())).unwrap();
    for tag in ["1", "2"] {
        store.tag(&name, &format!("test.example/app:{tag}")).unwrap();
    }
    store.remove(&name).unwrap();
    (dir, store)
}

fn save(store: &Store, names: &[&str], to: &Path) {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    store.save(&names, to, fs::File::create(to).unwrap()).unwrap();
}

/// What a program of somebody else's prints; nothing, and said, where this machine has none.
fn tool(program: &str, words: &[&str]) -> Option<String> {
    let output = match Command::new(program).args(words).output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("SKIPPED: {program}: {error}");
            return None;
        }
    };
    assert!(output.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

fn skopeo(from: &str, to: &str) -> bool {
    tool("skopeo", &["copy", "--quiet", "--insecure-policy", from, to]).is_some()
}

#[test]
fn a_saved_image_is_the_same_when_it_is_loaded() {
    let (dir, here) = with(&TestImage::sample());
    let (there_dir, there) = store();
    let archive = dir.path().join("app.tar");
    save(&here, &["test.example/app:1", "test.example/app:2"], &archive);
    let loaded = load_all(&there, &archive);
    assert_eq!(loaded.len(), 1, "one image of two names");
    assert_eq!(loaded[0].references, ["test.example/app:1", "test.example/app:2"]);
    let (old, new) = (here.resolve("test.example/app:1").unwrap(), there.resolve("test.example/app:1").unwrap());
    assert_eq!(old, new, "manifest, configuration, layers and name");
    assert_eq!(here.rootfs(&old).unwrap().verity, there.rootfs(&new).unwrap().verity);
    let again = dir.path().join("again.tar");
    save(&there, &["test.example/app:1", "test.example/app:2"], &again);
    assert!(fs::read(&archive).unwrap() == fs::read(&again).unwrap(), "equal images are equal archives");
    let zipped = dir.path().join("app.tar.zst");
    fs::write(&zipped, zstd::encode_all(fs::File::open(&archive).unwrap(), 1).unwrap()).unwrap();
    let (_other_dir, other) = store();
    assert_eq!(load_all(&other, &zipped)[0].pulled.image.manifest_digest, old.manifest_digest);
    assert_eq!(fs::read_dir(there_dir.path().join("images/tmp")).unwrap().count(), 0);
}

#[test]
fn skopeo_reads_what_we_write_and_we_read_what_it_writes() {
    let (dir, here) = with(&TestImage::sample());
    let image = here.resolve("test.example/app:1").unwrap();
    let root = here.rootfs(&image).unwrap().verity;
    let at = |name: &str| dir.path().join(name);
    let archive = at("app.tar");
    save(&here, &["test.example/app:1"], &archive);
    let shown = |name: &str| at(name).display().to_string();
    let ours = archive.display();
    for (kind, file) in [("docker-archive", "d.tar"), ("oci-archive", "o.tar"), ("oci", "o.dir"), ("dir", "plain.dir")]
    {
        for source in ["docker-archive", "oci-archive"] {
            let to = format!("{source}-{file}");
            let tag = if kind == "dir" { "" } else { ":test.example/app:9" };
            if !skopeo(&format!("{source}:{ours}"), &format!("{kind}:{}{tag}", shown(&to))) {
                return;
            }
            if kind == "dir" {
                continue;
            }
            let (_there_dir, there) = store();
            let loaded = load_all(&there, &at(&to));
            assert_eq!(loaded[0].references, ["test.example/app:9"], "{to}");
            let pulled = &loaded[0].pulled;
            assert_eq!(pulled.image.config.diff_ids, image.config.diff_ids, "{to}");
            assert_eq!(pulled.image.config.entrypoint, image.config.entrypoint, "{to}");
            // Between the two kinds of images it writes the configuration anew.
            if source == "oci-archive" || kind == "docker-archive" {
                assert_eq!(pulled.image.config_digest, image.config_digest, "{to}");
                assert_eq!(pulled.rootfs.verity, root, "{to}");
            }
            // Docker's archives have plain layers and no manifest; the others have ours.
            let same = kind != "docker-archive" && source == "oci-archive";
            assert!(!same || pulled.image.manifest_digest == image.manifest_digest, "{to}");
        }
    }
    assert!(skopeo(&format!("oci-archive:{ours}:1"), &format!("dir:{}", shown("by-tag"))));
}

#[test]
fn buildah_reads_what_we_write_and_we_read_what_it_writes() {
    let (dir, here) = with(&TestImage::sample());
    let image = here.resolve("test.example/app:1").unwrap();
    let archive = dir.path().join("app.tar");
    save(&here, &["test.example/app:1"], &archive);
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (root, run) = (at("root"), at("run"));
    let buildah = |words: &[&str]| {
        let globals = ["--root", &root, "--runroot", &run, "--storage-driver", "vfs"];
        tool("buildah", &[&globals[..], words].concat())
    };
    let Some(id) = buildah(&["pull", "-q", "--policy", "always", &format!("oci-archive:{}", archive.display())]) else {
        return;
    };
    assert_eq!(format!("sha256:{id}"), image.config_digest.to_string());
    for (kind, file) in [("docker-archive", "b.tar"), ("oci-archive", "b-oci.tar"), ("oci", "b.dir")] {
        buildah(&["push", "-q", &id, &format!("{kind}:{}:test.example/b:1", at(file))]).unwrap();
        let (_there_dir, there) = store();
        let loaded = load_all(&there, &dir.path().join(file));
        assert_eq!(loaded[0].pulled.image.config_digest, image.config_digest, "{file}");
        assert_eq!(loaded[0].references, ["test.example/b:1"], "{file}");
    }
}

#[test]
fn one_image_of_several_is_taken_by_name_tag_or_number() {
    let (dir, here) = with(&TestImage::sample());
    let other = TestImage::new(vec![Layer::new(&[("etc/other", b"x")])]);
    let (other_dir, there) = with(&other);
    let (one, two, all) = (dir.path().join("1.tar"), other_dir.path().join("2.tar"), dir.path().join("all.tar"));
    save(&here, &["test.example/app:1"], &one);
    save(&there, &["test.example/app:2"], &two);
    let (both_dir, both) = store();
    load_all(&both, &one);
    load_all(&both, &two);
    save(&both, &["test.example/app:1", "test.example/app:2"], &all);
    for (only, id) in [
        ("test.example/app:1", TestImage::sample().config()),
        ("@1", other.config()),
        ("test.example/app:2", other.config()),
    ] {
        let (_dir, fresh) = store();
        let options = LoadOptions { only: Some(only.to_owned()), ..LoadOptions::default() };
        let loaded = load(&fresh, &all, &options).unwrap();
        assert_eq!((loaded.len(), loaded[0].pulled.image.config_digest), (1, Digest::of(&id)), "{only}");
    }
    let options = LoadOptions { only: Some("@2".to_owned()), ..LoadOptions::default() };
    let error = load(&both, &all, &options).unwrap_err();
    assert!(error.to_string().contains("no image \"@2\" among its 2"), "{error}");
    drop(both_dir);
}

#[test]
fn a_root_file_system_becomes_an_image() {
    let (dir, here) = store();
    let layer = Layer::new(&[("bin/sh", &noise(5000)), ("etc/passwd", b"root:x:0:0::/:/bin/sh\n")]);
    let path = dir.path().join("root.tar.gz");
    fs::write(&path, &layer.blob).unwrap();
    let import = Import {
        reference: Some("test.example/root:1".to_owned()),
        changes: vec!["CMD [\"sh\"]".to_owned(), "VOLUME /data".to_owned()],
        message: "made".to_owned(),
        created: "2026-01-01T00:00:00Z".to_owned(),
    };
    let run = || here.import(&path, fs::File::open(&path).unwrap(), &import, Limits::default()).unwrap();
    let image = run().image;
    assert_eq!(image.config.cmd, ["sh"]);
    assert_eq!((image.config.diff_ids.as_slice(), image.layers[0].digest), (&[layer.diff_id][..], layer.digest()));
    assert_eq!(image.reference, "test.example/root:1");
    assert_eq!(here.history(&image).unwrap()[0].comment, "made");
    assert_eq!(run().image, image, "the same again");
    let without = Import { reference: None, ..import.clone() };
    let unnamed = here.import(&path, fs::File::open(&path).unwrap(), &without, Limits::default()).unwrap().image;
    assert_eq!(unnamed.reference, format!("localhost/unnamed@{}", unnamed.manifest_digest));
    for (bytes, words) in [(&b"\xfd7zXZ\0"[..], "xz"), (b"BZh9", "bzip2"), (b"no archive at all", "corrupt")] {
        let error = here.import(&path, bytes, &import, Limits::default()).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(here.resolve("test.example/root:1").unwrap(), image, "a failure leaves the name where it was");
}

#[test]
fn a_name_is_given_and_moved_and_steps_are_told() {
    let (_dir, here) = with(&TestImage::sample());
    let image = here.resolve("test.example/app:1").unwrap();
    assert_eq!(here.tag(&image.config_digest.short(), "other").unwrap().reference, "docker.io/library/other:latest");
    assert_eq!(here.resolve("other").unwrap().manifest_digest, image.manifest_digest);
    assert_eq!(here.references(&image).unwrap().len(), 3);
    let untagged = here.remove("other").unwrap();
    assert_eq!((untagged.references.len(), untagged.config_digest), (1, None), "it has other names");
    here.tag("test.example/app:1", "other").unwrap();
    assert_eq!(here.tag("nosuch", "x").unwrap_err().class(), "not-found");
    let digest = format!("x@{}", image.manifest_digest);
    assert_eq!(here.tag("other", &digest).unwrap_err().class(), "usage");
    assert_eq!(here.tag("other", "NOT A NAME").unwrap_err().class(), "usage");
    let steps = here.history(&image).unwrap();
    assert_eq!(here.remove(&image.config_digest.hex()).unwrap().config_digest, Some(image.config_digest));
    assert_eq!(steps.len(), 2, "a configuration without words has its layers");
    assert_eq!(
        steps.iter().filter_map(|step| step.layer).sum::<u64>(),
        image.layers.iter().map(|it| it.size).sum::<u64>()
    );
}

#[test]
fn what_was_written_over_an_image_becomes_one_layer_more() {
    let (dir, here) = with(&TestImage::sample());
    let parent = here.resolve("test.example/app:1").unwrap();
    let layer = Layer::new(&[("etc/new", b"new"), ("etc/.wh.passwd", b"")]);
    let mut plain = Vec::new();
    std::io::copy(&mut flate2::read::GzDecoder::new(&layer.blob[..]), &mut plain).unwrap();
    let commit = Commit {
        reference: Some("test.example/app:3".to_owned()),
        changes: vec!["CMD [\"other\"]".to_owned(), "ENV NEW=1".to_owned()],
        message: "with new".to_owned(),
        author: "ann".to_owned(),
        created_by: "sh -c x".to_owned(),
        created: "2026-01-01T00:00:00Z".to_owned(),
    };
    commit.check().unwrap();
    let taken = |bytes: &[u8]| here.take_layer(bytes, Limits::default());
    let image = here.commit(&parent, taken(&plain).unwrap(), &commit).unwrap().image;
    let below: Vec<_> = image.layers.iter().take(parent.layers.len()).map(|layer| layer.digest).collect();
    assert_eq!(below, parent.layers.iter().map(|layer| layer.digest).collect::<Vec<_>>(), "they stay");
    assert_eq!(image.layers.last().unwrap().digest, Digest::of(&plain));
    assert_eq!(*image.config.diff_ids.last().unwrap(), layer.diff_id);
    assert_eq!(
        (&image.config.cmd[..], &image.config.entrypoint),
        (&["other".to_owned()][..], &parent.config.entrypoint)
    );
    assert!(image.config.env.contains(&"NEW=1".to_owned()) && image.config.env.len() == parent.config.env.len() + 1);
    let steps = here.history(&image).unwrap();
    let last = steps.last().unwrap();
    assert_eq!(
        (last.comment.as_str(), last.created_by.as_str(), last.layer),
        ("with new", "sh -c x", Some(plain.len() as u64))
    );
    assert_ne!(here.rootfs(&image).unwrap().verity, here.rootfs(&parent).unwrap().verity);
    // It is an image like any other.
    let archive = dir.path().join("new.tar");
    save(&here, &["test.example/app:3"], &archive);
    let (_there_dir, there) = store();
    assert_eq!(load_all(&there, &archive)[0].pulled.image, image);

    let unnamed = Commit { reference: None, ..commit.clone() };
    let unnamed = here.commit(&parent, taken(&plain).unwrap(), &unnamed).unwrap().image;
    assert!(unnamed.is_unnamed() && unnamed.config_digest == image.config_digest);
    for (bad, class) in [
        (Commit { reference: Some("NOT A NAME".to_owned()), ..commit.clone() }, "usage"),
        (Commit { reference: Some(format!("x@{}", parent.manifest_digest)), ..commit.clone() }, "usage"),
        (Commit { changes: vec!["RUN true".to_owned()], ..commit.clone() }, "usage"),
    ] {
        assert_eq!(bad.check().unwrap_err().class(), class);
    }
    // What is no layer becomes no image, and the name stays where it was.
    for bytes in [&b"no layer at all"[..], &layer.blob] {
        assert_eq!(here.commit(&parent, taken(bytes).unwrap(), &commit).unwrap_err().class(), "corrupt");
    }
    let limits = Limits { bytes: 100, ..Limits::default() };
    assert_eq!(here.take_layer(&plain[..], limits).unwrap_err().class(), "too-large");
    assert_eq!(here.resolve("test.example/app:3").unwrap(), image);
    assert_eq!(fs::read_dir(dir.path().join("images/tmp")).unwrap().count(), 0);
}
