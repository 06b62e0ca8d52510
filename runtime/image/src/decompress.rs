//! The tar stream inside a layer blob, with its digest and a limit on its length.
//!
//! Memory does not grow with the stream: gzip takes its 32 KiB window, zstd at most [`MAX_WINDOW`].

use crate::digest::Digest;
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};
use std::io::{self, BufRead as _, BufReader, Read};

/// Largest zstd window in bytes: what level 20 writes. RFC 8878 §3.1.1.1.2 asks for 8 MiB.
pub const MAX_WINDOW: u64 = 32 << 20;

/// Whether reading failed because a frame has a larger window than [`MAX_WINDOW`].
pub(crate) fn wants_too_large_a_window(error: &io::Error) -> bool {
    // The library has no other way to tell.
    error.get_ref().is_some_and(|inner| inner.to_string().contains("too much memory"))
}

/// The stream in a blob; gzip and zstd are told by their magic numbers, anything else is taken as plain tar.
pub(crate) fn unpacked<'a>(blob: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut blob = BufReader::with_capacity(256 << 10, blob);
    let magic = blob.fill_buf()?;
    Ok(if magic.starts_with(&[0x1F, 0x8B]) {
        Box::new(MultiGzDecoder::new(blob))
    } else if magic.starts_with(&[0x28, 0xB5, 0x2F, 0xFD]) {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(blob)?;
        decoder.window_log_max(MAX_WINDOW.ilog2())?;
        Box::new(decoder)
    } else {
        Box::new(blob)
    })
}

/// Unpacked bytes of a layer; counts and hashes what passes.
pub struct DiffReader<'a> {
    inner: Box<dyn Read + 'a>,
    hasher: Sha256,
    left: u64,
}

impl<'a> DiffReader<'a> {
    /// Starts reading a blob, as [`unpacked`] takes it.
    ///
    /// `limit`: bytes after which reading fails with [`io::ErrorKind::QuotaExceeded`].
    pub fn new(blob: impl Read + 'a, limit: u64) -> io::Result<Self> {
        Ok(Self::of(unpacked(blob)?, limit))
    }

    /// Starts reading what is unpacked already.
    pub(crate) fn of(stream: impl Read + 'a, limit: u64) -> Self {
        Self { inner: Box::new(stream), hasher: Sha256::new(), left: limit }
    }

    /// Digest of all that was read, and what is left of the limit.
    pub fn finish(self) -> (Digest, u64) {
        (Digest::finish(self.hasher), self.left)
    }
}

impl Read for DiffReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or(io::ErrorKind::QuotaExceeded)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_compression_gives_the_same_stream_and_digest() {
        let plain = b"not a tar, but long enough to be told from one".repeat(1000);
        let (half, rest) = plain.split_at(plain.len() / 2);
        let members = [gzip(half), gzip(rest)].concat();
        for blob in [plain.clone(), gzip(&plain), members, zstd::encode_all(&plain[..], 3).unwrap()] {
            let mut reader = DiffReader::new(&blob[..], u64::MAX).unwrap();
            let mut out = Vec::new();
            reader.read_to_end(&mut out).unwrap();
            assert!(out == plain);
            assert_eq!(reader.finish().0, Digest::of(&plain));
        }
    }

    #[test]
    fn stops_at_the_limit_and_at_damage() {
        let blob = gzip(&vec![0; 1 << 20]);
        let mut reader = DiffReader::new(&blob[..], 1 << 19).unwrap();
        let error = io::copy(&mut reader, &mut io::sink()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
        let mut reader = DiffReader::new(&blob[..blob.len() - 9], u64::MAX).unwrap();
        assert!(io::copy(&mut reader, &mut io::sink()).is_err());
    }
}
