//! Writes a file front to back and leaves its runs of zeros out: they read as zeros and take no space on the disk.

use std::borrow::Borrow;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

/// Bytes that are looked at together: what file systems keep apart.
const BLOCK: usize = 4096;
/// Bytes held before they are written; what a processor keeps close.
const BUFFER: usize = 256 << 10;

/// Writes to an empty file.
#[derive(Debug)]
pub(crate) struct HoleWriter<F> {
    file: F,
    /// Where the buffer begins in the file; a multiple of [`BLOCK`].
    start: u64,
    buffer: Vec<u8>,
    filled: usize,
}

impl<F: Borrow<File>> HoleWriter<F> {
    /// `file`: empty.
    pub(crate) fn new(file: F) -> Self {
        Self { file, start: 0, buffer: vec![0; BUFFER], filled: 0 }
    }

    /// Bytes so far.
    pub(crate) fn position(&self) -> u64 {
        self.start + self.filled as u64
    }

    /// Appends bytes.
    pub(crate) fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = self.room()?;
            let (now, later) = bytes.split_at(bytes.len().min(room.len()));
            room[..now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
        }
        Ok(())
    }

    /// Appends up to `most` bytes of what one read gives, and says how many; 0 at the end of the reader.
    ///
    /// # Errors
    /// The outer one is ours, the inner one the reader's.
    pub(crate) fn take(&mut self, reader: &mut impl Read, most: u64) -> io::Result<io::Result<usize>> {
        let room = self.room()?;
        let want = usize::try_from(most).unwrap_or(usize::MAX).min(room.len());
        let read = loop {
            match reader.read(&mut room[..want]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        if let Ok(count) = read {
            self.filled += count;
        }
        Ok(read)
    }

    /// Appends zeros, however many, at no cost.
    pub(crate) fn skip(&mut self, count: u64) -> io::Result<()> {
        let to = self.position() + count;
        if to < self.start + self.buffer.len() as u64 {
            self.buffer[self.filled..][..count as usize].fill(0);
            self.filled += count as usize;
            return Ok(());
        }
        self.flush()?;
        self.start = to - to % BLOCK as u64;
        self.filled = (to % BLOCK as u64) as usize;
        self.buffer[..self.filled].fill(0);
        Ok(())
    }

    /// The file, as long as what was written, and how long that is.
    pub(crate) fn finish(mut self) -> io::Result<(F, u64)> {
        let length = self.position();
        self.flush()?;
        self.file.borrow().set_len(length)?;
        Ok((self.file, length))
    }

    /// The part of the buffer that is free; not empty.
    fn room(&mut self) -> io::Result<&mut [u8]> {
        if self.filled == self.buffer.len() {
            self.flush()?;
        }
        Ok(&mut self.buffer[self.filled..])
    }

    /// Writes all there is, but for blocks of zeros. The last one may be part of a block only at the end or before a hole.
    fn flush(&mut self) -> io::Result<()> {
        let bytes = &self.buffer[..self.filled];
        let mut from = 0;
        for (index, block) in bytes.chunks(BLOCK).enumerate() {
            if is_zero(block) {
                let at = index * BLOCK;
                if from < at {
                    self.file.borrow().write_all_at(&bytes[from..at], self.start + from as u64)?;
                }
                from = at + block.len();
            }
        }
        if from < bytes.len() {
            self.file.borrow().write_all_at(&bytes[from..], self.start + from as u64)?;
        }
        self.start += self.filled as u64;
        self.filled = 0;
        Ok(())
    }
}

/// Whether there is nothing but zeros. Most blocks that are not say so with their first bytes.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let mut words = bytes.chunks_exact(16);
    words.all(|word| word == [0; 16]) && bytes.chunks_exact(16).remainder().iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn zeros_take_no_space() {
        let mut writer = HoleWriter::new(tempfile::tempfile().unwrap());
        writer.put(b"head").unwrap();
        writer.skip(1 << 30).unwrap();
        let mut zeros = io::repeat(0).take(64 << 20);
        while writer.take(&mut zeros, u64::MAX).unwrap().unwrap() > 0 {}
        writer.put(b"tail").unwrap();
        let (file, length) = writer.finish().unwrap();
        assert_eq!(length, 4 + (1 << 30) + (64 << 20) + 4);
        assert_eq!(file.metadata().unwrap().len(), length);
        assert!(file.metadata().unwrap().blocks() * 512 <= 64 << 10, "{}", file.metadata().unwrap().blocks());
        let mut tail = [0; 4];
        file.read_exact_at(&mut tail, length - 4).unwrap();
        assert_eq!(&tail, b"tail");
    }

    #[test]
    fn a_file_may_end_with_a_hole() {
        let mut writer = HoleWriter::new(tempfile::tempfile().unwrap());
        writer.skip(5_000_001).unwrap();
        assert_eq!(writer.finish().unwrap().0.metadata().unwrap().len(), 5_000_001);
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_put(parts in prop::collection::vec((any::<bool>(), 0usize..300_000, any::<u8>()), 0..8)) {
            let mut writer = HoleWriter::new(tempfile::tempfile().unwrap());
            let mut expected = Vec::new();
            for (skip, count, byte) in parts {
                if skip {
                    writer.skip(count as u64).unwrap();
                    expected.resize(expected.len() + count, 0);
                } else {
                    let bytes = vec![byte; count];
                    writer.put(&bytes).unwrap();
                    expected.extend(bytes);
                }
                prop_assert_eq!(writer.position(), expected.len() as u64);
            }
            let (file, length) = writer.finish().unwrap();
            let mut found = vec![0; length as usize];
            file.read_exact_at(&mut found, 0).unwrap();
            prop_assert!(found == expected);
        }
    }
}
