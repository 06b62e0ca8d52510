//! The cpio *newc* archive Linux unpacks as its initrd, with nothing in it that changes from one build to the next.
//!
//! Inode numbers count up, times and owners are zero, there are no hard links.
//! Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.

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
