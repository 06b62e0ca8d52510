use super::*;
use std::os::unix::fs::FileExt as _;
use tar::{EntryType, Header};

struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn add(mut self, kind: EntryType, path: &str, data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(data.len() as u64);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_device_major(254).unwrap();
        header.set_device_minor(0).unwrap();
        let name = header.as_gnu_mut().unwrap();
        name.name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    fn file(self, path: &str, data: &[u8]) -> Self {
        self.add(EntryType::Regular, path, data)
    }

    fn symlink(mut self, path: &str, target: &str) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        self.0.append_link(&mut header, path, target).unwrap();
        self
    }

    fn xattr(mut self, name: &str) -> Self {
        self.0.append_pax_extensions([(format!("SCHILY.xattr.{name}").as_str(), &b"v"[..])]).unwrap();
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn merge_within(layers: &[Vec<u8>], limits: Limits) -> Result<Merged> {
    let mut merger = Merger::new(tempfile::tempfile().unwrap(), Path::new("tmp"), limits);
    for layer in layers {
        merger.add(Digest::of(layer), &layer[..], Digest::of(layer))?;
    }
    merger.finish()
}

fn merge(layers: &[Vec<u8>]) -> Result<Merged> {
    merge_within(layers, Limits::default())
}

fn contents(merged: &Merged, path: &str) -> Option<Vec<u8>> {
    let node = merged.tree.lookup(path.as_bytes()).unwrap()?;
    let Kind::File(extent) = merged.tree.node(node).kind else { return None };
    let mut bytes = vec![0; extent.length as usize];
    merged.spool.read_exact_at(&mut bytes, extent.offset).unwrap();
    Some(bytes)
}

#[test]
fn upper_layers_replace_and_hide_lower_ones() {
    let lower = Layer::new().file("etc/a", b"one").file("etc/b", b"two").file("var/old", b"x").bytes();
    let upper = Layer::new()
        .file("./etc/a", b"three")
        .file("etc/.wh.b", b"")
        .file("var/new", b"y")
        .file("var/.wh..wh..opq", b"")
        .file(".wh..wh.plnk", b"")
        .bytes();
    let merged = merge(&[lower, upper]).unwrap();
    assert_eq!(contents(&merged, "etc/a").unwrap(), b"three");
    assert_eq!(contents(&merged, "var/new").unwrap(), b"y");
    assert_eq!(contents(&merged, "etc/b"), None);
    assert_eq!(contents(&merged, "var/old"), None);
    for marker in ["etc/.wh.b", "var/.wh..wh..opq", ".wh..wh.plnk"] {
        assert_eq!(merged.tree.lookup(marker.as_bytes()).unwrap(), None, "{marker}");
    }
}

#[test]
fn the_last_of_duplicate_entries_wins() {
    let merged = merge(&[Layer::new().file("a", b"first").file("a", b"last").bytes()]).unwrap();
    assert_eq!(contents(&merged, "a").unwrap(), b"last");
}

#[test]
fn a_layer_that_climbs_out_is_corrupt_and_named() {
    for layer in [Layer::new().file("../x", b"").bytes(), Layer::new().file("a/../../x", b"").bytes()] {
        let error = merge(std::slice::from_ref(&layer)).unwrap_err();
        assert_eq!(error.class(), "corrupt");
        assert!(error.to_string().contains(&Digest::of(&layer).to_string()), "{error}");
    }
}

#[test]
fn device_nodes_and_overlay_attributes_are_left_out_and_counted() {
    let layer = Layer::new()
        .file("dev/vda", b"was a file")
        .add(EntryType::Block, "dev/vda", b"")
        .add(EntryType::Char, "dev/null", b"")
        .xattr("trusted.overlay.opaque")
        .file("a", b"")
        .xattr("user.mine")
        .file("b", b"")
        .bytes();
    let merged = merge(&[layer]).unwrap();
    assert_eq!(merged.dropped.devices + merged.dropped.attributes, 3);
    assert_eq!(merged.tree.lookup(b"dev/vda").unwrap(), None);
    let xattrs = |path: &[u8]| merged.tree.node(merged.tree.lookup(path).unwrap().unwrap()).meta.xattrs.len();
    assert_eq!((xattrs(b"a"), xattrs(b"b")), (0, 1));
}

#[test]
fn a_layer_must_unpack_to_its_diff_id() {
    let layer = Layer::new().file("a", b"x").bytes();
    let expected = Digest::of(b"something else");
    let mut merger = Merger::new(tempfile::tempfile().unwrap(), Path::new("tmp"), Limits::default());
    let error = merger.add(Digest::of(b"blob"), &layer[..], expected).unwrap_err();
    let ImageError::CorruptDiffId { layer: named, expected: wanted, found } = error else { panic!("{error}") };
    assert_eq!((named, wanted, found), (Digest::of(b"blob"), expected, Digest::of(&layer)));
}

#[test]
fn bytes_behind_the_archive_count_for_the_digest() {
    let mut layer = Layer::new().file("a", b"x").bytes();
    layer.extend([0; 4096]);
    assert!(merge(&[layer]).is_ok());
}

#[test]
fn every_limit_holds_over_all_layers_together() {
    let layers = [Layer::new().file("a", &[1; 3000]).bytes(), Layer::new().file("b", &[1; 3000]).bytes()];
    let all = Limits::default();
    for (limits, what) in [
        (Limits { entries: 1, ..all }, "entries"),
        (Limits { bytes: 8000, ..all }, "unpacked bytes"),
        (Limits { memory: 800, ..all }, "bytes of memory for names and attributes"),
    ] {
        let error = merge_within(&layers, limits).unwrap_err();
        assert!(matches!(error, ImageError::TooLarge { what: named, .. } if named == what), "{what}: {error}");
    }
    assert!(merge_within(&layers, Limits { entries: 2, memory: 1000, ..all }).is_ok());
}

/// Two images of some kilobytes that took minutes.
#[test]
fn a_small_image_cannot_take_a_processor_for_long() {
    let links = (0..39).fold(Layer::new().add(EntryType::Directory, "t/", b""), |layer, number| {
        let target =
            format!("{}{}", "t/../".repeat(400), if number == 0 { "t".into() } else { format!("s{}", number - 1) });
        layer.symlink(&format!("s{number}"), &target)
    });
    let follows = (0..5000).fold(links, |layer, _| layer.file("s38/.wh.x", b"")).bytes();
    let started = std::time::Instant::now();
    let limits = Limits { steps: 1 << 20, ..Limits::default() };
    let error = merge_within(&[follows], limits).unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { what: "steps along its paths", .. }), "{error}");
    let names = (0..2000).fold(Layer::new(), |layer, number| layer.file(&format!("d/{number}"), b""));
    let opaque = (0..2000).fold(names, |layer, _| layer.file("d/.wh..wh..opq", b"")).bytes();
    assert!(merge_within(&[opaque], Limits { steps: 20_000, ..Limits::default() }).is_ok());
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

#[test]
fn what_paths_make_by_the_way_is_charged_too() {
    let deep = |path: &str| Layer::new().file(path, b"").bytes();
    let within = |layer: Vec<u8>, memory| merge_within(&[layer], Limits { memory, ..Limits::default() });
    assert!(within(deep("a"), 2000).is_ok());
    let error = within(deep("a/b/c/d/e"), 2000).unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { limit: 2000, .. }), "{error}");
    assert_eq!(error.class(), "too-large");
    // The headers in front of one entry add up, and so does what their attributes take.
    let attributes = || (0..10).fold(Layer::new(), |layer, number| layer.xattr(&format!("user.{number}")));
    assert!(within(attributes().file("a", b"").bytes(), 2000).is_err());
    assert!(within(attributes().file("a", b"").bytes(), 4000).is_ok());
}

#[test]
fn a_zstd_window_larger_than_ours_is_too_large_and_not_corrupt() {
    // RFC 8878 §3.1.1.1: no single segment, a window of 2^(10 + exponent) bytes; then one block of zeros, the last.
    let frame = |exponent: u8| [&[0x28, 0xB5, 0x2F, 0xFD, 0, exponent << 3][..], &[0x03, 0x10, 0x00, 0]].concat();
    let merge = |exponent| {
        let mut merger = Merger::new(tempfile::tempfile().unwrap(), Path::new("tmp"), Limits::default());
        merger.add(Digest::of(b""), &frame(exponent)[..], Digest::of(&[0; 512])).map_err(|error| error.to_string())
    };
    assert_eq!(merge(15), Ok(()));
    assert_eq!(merge(16).unwrap_err(), "image exceeds the limit of 33554432 bytes of zstd window");
}

#[test]
fn a_full_disk_while_spooling_is_named() {
    let full = match File::options().write(true).open("/dev/full") {
        Ok(full) => full,
        Err(error) => return eprintln!("SKIPPED: no /dev/full here: {error}"),
    };
    let mut merger = Merger::new(full, Path::new("/images/tmp"), Limits::default());
    let layer = Layer::new().file("a", &vec![1; 3 << 20]).bytes();
    let error = merger.add(Digest::of(&layer), &layer[..], Digest::of(&layer)).unwrap_err();
    assert_eq!(error.class(), "disk-full");
    assert!(error.to_string().contains("/images/tmp"), "{error}");
    assert!(error.hint().unwrap().contains("free space"));
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_are_an_error_or_a_tree(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..2000)) {
        let _ = merge(&[bytes]);
    }
}

#[test]
fn zeros_of_a_layer_take_no_space_in_the_spool_or_the_image() {
    use std::os::unix::fs::MetadataExt as _;
    let zeros = vec![0; 64 << 20];
    let layer = Layer::new().file("a", b"first").file("zeros", &zeros).file("z", b"last").bytes();
    let merged = merge(&[layer]).unwrap();
    assert!(merged.spool.metadata().unwrap().blocks() * 512 <= 64 << 10);
    assert_eq!(contents(&merged, "z").unwrap(), b"last");
    assert_eq!(contents(&merged, "zeros").unwrap().len(), zeros.len());
    let out = tempfile::tempfile().unwrap();
    let written = erofs::write(&merged.tree, &merged.spool, &out, [0; 16]).unwrap();
    assert!(written.bytes > 64 << 20 && out.metadata().unwrap().len() == written.bytes);
    assert!(out.metadata().unwrap().blocks() * 512 <= 64 << 10);
}

#[test]
fn a_file_with_holes_counts_in_full() {
    let mut header = Header::new_gnu();
    header.set_path("holes").unwrap();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(3);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(1 << 30);
    gnu.sparse[0].set_offset((1 << 30) - 3);
    gnu.sparse[0].set_length(3);
    header.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&header, &b"end"[..]).unwrap();
    let layer = builder.into_inner().unwrap();
    let merged = merge(std::slice::from_ref(&layer)).unwrap();
    let node = merged.tree.lookup(b"holes").unwrap().unwrap();
    let Kind::File(extent) = merged.tree.node(node).kind else { panic!() };
    assert_eq!(extent.length, 1 << 30);
    let mut end = [0; 4];
    merged.spool.read_exact_at(&mut end, extent.offset + (1 << 30) - 4).unwrap();
    assert_eq!(&end, b"\0end");
    let limits = Limits { bytes: (1 << 30) - 1, ..Limits::default() };
    assert_eq!(merge_within(&[layer], limits).unwrap_err().class(), "too-large");
}
