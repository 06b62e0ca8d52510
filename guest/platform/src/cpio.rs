//! The cpio *newc* archive Linux unpacks as its initrd, with nothing in it that changes from one build to the next.
//!
//! Inode numbers count up, times and owners are zero, there are no hard links.
//! Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.

use std::ops::Range;

/// Writes entries in the order given; parents first is the caller's duty.
pub struct Writer {
    out: Vec<u8>,
    inode: u32,
}

impl Writer {
    pub fn new() -> Self {
        Self { out: Vec::new(), inode: 0 }
    }

    /// A folder; `mode` holds permission bits only.
    pub fn directory(&mut self, path: &str, mode: u32) {
        self.entry(path, 0o040_000 | mode, (0, 0), &[]);
    }

    /// A regular file.
    pub fn file(&mut self, path: &str, mode: u32, contents: &[u8]) {
        self.entry(path, 0o100_000 | mode, (0, 0), contents);
    }

    /// A character device.
    pub fn character_device(&mut self, path: &str, mode: u32, major: u32, minor: u32) {
        self.entry(path, 0o020_000 | mode, (major, minor), &[]);
    }

    /// Closes the archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.inode = 0;
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.out.resize(self.out.len().next_multiple_of(512), 0);
        self.out
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        let inode = self.inode;
        self.inode += 1;
        let links = 1 + u32::from(mode & 0o170_000 == 0o040_000);
        let fields =
            [inode, mode, 0, 0, links, 0, contents.len() as u32, 0, 0, device.0, device.1, path.len() as u32 + 1, 0];
        self.out.extend_from_slice(b"070701");
        for field in fields {
            self.out.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.out.extend_from_slice(path.as_bytes());
        self.out.push(0);
        self.pad();
        self.out.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.out.resize(self.out.len().next_multiple_of(4), 0);
    }
}
/// Where the contents of a file lie in an archive that [`Writer`] wrote, of which this is the beginning; they need not be in it.
pub fn place_of(start: &[u8], wanted: &str) -> Option<Range<usize>> {
    const HEAD: usize = 110;
    let mut rest = start;
    loop {
        let fields = rest.get(..HEAD)?.strip_prefix(b"070701")?;
        let field = |index: usize| {
            let digits = std::str::from_utf8(fields.get(index * 8..index * 8 + 8)?).ok()?;
            usize::from_str_radix(digits, 16).ok()
        };
        let (size, name) = (field(6)?, field(11)?);
        let path = rest.get(HEAD..HEAD.checked_add(name)?)?.strip_suffix(b"\0")?;
        let from = (HEAD + name).next_multiple_of(4);
        let end = from.checked_add(size)?;
        if path == wanted.as_bytes() {
            let before = start.len() - rest.len();
            return Some(before + from..before.checked_add(end)?);
        }
        rest = rest.get(end.checked_next_multiple_of(4)?..)?;
    }
}
