//! Layers that want more than they may.

use coffer_image::layer::Merger;
use coffer_image::{Digest, ImageError, Limits, erofs, verity};
use std::collections::VecDeque;
use std::io::Read;
use std::path::Path;

/// What a test process takes without any image.
pub const FIXED: u64 = 24 << 20;
/// The limit under test.
pub const MEMORY: u64 = 8 << 20;

/// Case, and words of the refusal: what has a bound of its own, under the limits we ship.
pub const REFUSED: &[(&str, &str)] = &[
    ("pax", "extended headers, at most 1048576"),
    ("gnu-names", "extended headers, at most 1048576"),
    ("zstd-window", "bytes of zstd window"),
    ("long-path", "directories deep"),
    ("gzip-bomb", "limit of 268435456 unpacked bytes"),
    ("verity", ""),
];

/// Trees, each made of one kind of thing, as large as [`MEMORY`] lets them be.
pub const SHAPES: &[&str] = &[
    "files",
    "directories",
    "chains",
    "links",
    "symlinks",
    "long-symlinks",
    "long-names",
    "one-attribute",
    "many-attributes",
    "large-attribute",
    "replaced",
    "whiteouts",
];

/// Runs a case; gives the error.
pub fn run(case: &str) -> String {
    let shipped = Limits::default();
    match case {
        "pax" => refused(endless(|number| pax(&[(format!("user.{number}"), 900_000)])), shipped),
        "gnu-names" => refused(endless(|_| long_name(b'L', 900_000)), shipped),
        "zstd-window" => {
            // A window of 2^27 bytes, the most the library would take by itself, and blocks of 128 KiB of one byte.
            let head = vec![0x28, 0xB5, 0x2F, 0xFD, 0, 17 << 3];
            let block = [0x02, 0x00, 0x10, 1].repeat(1000);
            refused(Stream::new(move |number| Some(if number == 0 { head.clone() } else { block.clone() })), shipped)
        }
        "long-path" => refused(endless(|_| [long_name(b'L', 1_000_000), file("x")].concat()), shipped),
        "gzip-bomb" => {
            // 256 MiB here: what matters is that no memory goes with them.
            let bytes = 256 << 20;
            let mut zeros = flate2::read::GzEncoder::new(std::io::repeat(0).take(1 << 20), flate2::Compression::fast());
            let mut member = Vec::new();
            zeros.read_to_end(&mut member).unwrap();
            let limits = Limits { bytes, ..shipped };
            refused(Stream::new(move |_| Some(member.clone())), limits)
        }
        "verity" => {
            let file = tempfile::tempfile().unwrap();
            file.set_len(1 << 30).unwrap();
            verity::append(&file, b"salt").unwrap();
            String::new()
        }
        shape => largest(shape),
    }
}

/// The error of a layer that must be refused.
fn refused(blob: impl Read + Send, limits: Limits) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut merger = Merger::new(tempfile::tempfile().unwrap(), dir.path(), limits);
    merger.add(Digest::of(b""), blob, Digest::of(b"")).unwrap_err().to_string()
}

/// Fills a tree until it is refused, then makes the image of the last one that was not. Gives the refusal.
fn largest(shape: &str) -> String {
    let limits = Limits { memory: MEMORY, ..Limits::default() };
    let merge = |most: usize| {
        let mut merger = Merger::new(tempfile::tempfile().unwrap(), Path::new("tmp"), limits);
        let mut made = 0;
        let entries = Stream::new(|number| {
            made = number;
            (number < most).then(|| entry(shape, number))
        });
        let result = merger.add(Digest::of(b""), entries, Digest::of(b""));
        (result, made, merger)
    };
    let (result, made, merger) = merge(usize::MAX);
    drop(merger);
    let refusal = result.unwrap_err();
    // The stream is read ahead: entries that were not looked at yet do not count.
    let mut fitting = made;
    let merger = loop {
        let (result, _, merger) = merge(fitting);
        match result.unwrap_err() {
            ImageError::CorruptDiffId { .. } => break merger,
            ImageError::TooLarge { .. } => fitting -= fitting / 100 + 1,
            other => panic!("{other}"),
        }
    };
    let merged = merger.finish().unwrap();
    let image = tempfile::tempfile().unwrap();
    erofs::write(&merged.tree, &merged.spool, &image, [0; 16]).unwrap();
    verity::append(&image, b"").unwrap();
    println!("{fitting} entries");
    refusal.to_string()
}

fn entry(shape: &str, number: usize) -> Vec<u8> {
    match shape {
        "files" => file(&format!("{number}")),
        "directories" => file(&format!("{number}/{number}/f")),
        "chains" => [long_name_of(&format!("{number}{}", "/a".repeat(900))), file("x")].concat(),
        "links" if number == 0 => file("target"),
        "links" => header(&format!("{number}"), b'1', "target", 0),
        "symlinks" => header(&format!("{number}"), b'2', "t", 0),
        "long-symlinks" => [long_name(b'K', 4000), header(&format!("{number}"), b'2', "t", 0)].concat(),
        "long-names" => [long_name_of(&format!("{number:0>255}")), file("x")].concat(),
        "one-attribute" => [pax(&[("user.a".to_owned(), 1)]), file(&format!("{number}"))].concat(),
        "many-attributes" => {
            let all: Vec<_> = (0..1000).map(|which| (format!("user.{which}"), 1)).collect();
            [pax(&all), file(&format!("{number}"))].concat()
        }
        "large-attribute" => [pax(&[("user.a".to_owned(), 60_000)]), file(&format!("{number}"))].concat(),
        "replaced" => file("same"),
        "whiteouts" => [file(&format!("{number}")), file(&format!(".wh.{number}"))].concat(),
        other => panic!("no shape {other}"),
    }
}

/// A stream made piece by piece, as it is read.
struct Stream<F> {
    make: F,
    number: usize,
    ready: VecDeque<u8>,
}

impl<F: FnMut(usize) -> Option<Vec<u8>>> Stream<F> {
    fn new(make: F) -> Self {
        Self { make, number: 0, ready: VecDeque::new() }
    }
}

impl<F: FnMut(usize) -> Option<Vec<u8>>> Read for Stream<F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.ready.is_empty() {
            if let Some(piece) = (self.make)(self.number) {
                self.ready = piece.into();
            }
            self.number += 1;
        }
        self.ready.read(buffer)
    }
}

fn endless(make: impl Fn(usize) -> Vec<u8>) -> impl Read {
    Stream::new(move |number| Some(make(number)))
}

fn header(name: &str, kind: u8, link: &str, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_path(name).unwrap();
    if !link.is_empty() {
        header.set_link_name(link).unwrap();
    }
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(1000);
    header.set_gid(1000);
    header.set_mtime(1_700_000_000);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn file(name: &str) -> Vec<u8> {
    header(name, b'0', "", 0)
}

fn with_data(mut header: Vec<u8>, data: &[u8]) -> Vec<u8> {
    header.extend(data);
    header.resize(header.len().next_multiple_of(512), 0);
    header
}

/// A GNU long name (`L`) or link target (`K`).
fn long_name(kind: u8, length: usize) -> Vec<u8> {
    let name = if kind == b'K' { vec![b't'; length] } else { b"a/".repeat(length / 2) };
    with_data(header("././@LongLink", kind, "", name.len() as u64), &name)
}

fn long_name_of(name: &str) -> Vec<u8> {
    with_data(header("././@LongLink", b'L', "", name.len() as u64), name.as_bytes())
}

/// One extended header with attributes of these names and lengths.
fn pax(attributes: &[(String, usize)]) -> Vec<u8> {
    let mut records = Vec::new();
    for (name, length) in attributes {
        let rest = format!(" SCHILY.xattr.{name}=");
        let behind = rest.len() + length + 1;
        let mut total = behind + 1;
        while total != behind + total.to_string().len() {
            total = behind + total.to_string().len();
        }
        records.extend(format!("{total}{rest}").bytes());
        records.resize(records.len() + length, b'v');
        records.push(b'\n');
    }
    with_data(header("PaxHeader", b'x', "", records.len() as u64), &records)
}
