//! Files with holes: where their data belongs, in the four ways that tar has to say it.
//!
//! Never: believes a map. Parts are in order, do not overlap, end where the file does, and are as long together as the data
//! that follows; there are as many of them as extended headers of an entry can say.
//! Source: GNU tar manual, "Storing Sparse Files": the old GNU format, and PAX 0.0, 0.1 and 1.0.

use super::error::{TarError, number};
use crate::tree::show;
use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

/// A part of a file that has data. Everything else of it is zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Offset of its first byte in the file.
    pub offset: u64,
    /// Bytes of it.
    pub length: u64,
}

/// A file with holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sparse {
    /// Bytes of the file, holes included.
    pub(super) size: u64,
    /// In order.
    pub(super) parts: Vec<Part>,
}

/// What PAX records say of holes.
#[derive(Default)]
pub(super) struct Words {
    pub(super) name: Option<Vec<u8>>,
    major: Option<u64>,
    minor: Option<u64>,
    size: Option<u64>,
    /// Offsets and lengths in turn.
    numbers: Vec<u64>,
    any: bool,
}

impl Words {
    /// Takes a record whose key begins with `GNU.sparse.`; `word` is the rest of it.
    pub(super) fn take(&mut self, word: &[u8], value: &[u8]) -> Result<(), TarError> {
        self.any = true;
        match word {
            b"name" => self.name = Some(value.to_vec()),
            b"major" => self.major = Some(number(value)?),
            b"minor" => self.minor = Some(number(value)?),
            b"size" | b"realsize" => self.size = Some(number(value)?),
            b"offset" | b"numbytes" => self.numbers.push(number(value)?),
            b"map" => {
                let all = value.split(|byte| *byte == b',').map(number);
                self.numbers = if value.is_empty() { Vec::new() } else { all.collect::<Result<_, _>>()? };
            }
            // The count says nothing that the list does not.
            _ => {}
        }
        Ok(())
    }

    /// Whether a file has holes, by these records.
    pub(super) fn any(&self) -> bool {
        self.any
    }

    /// The map is in front of the data (PAX 1.0).
    fn is_in_data(&self) -> bool {
        (self.major, self.minor) == (Some(1), Some(0))
    }
}

impl Sparse {
    /// The map of a file in the old GNU format: in its header, and in blocks behind it.
    ///
    /// `more`: fills a buffer with the bytes behind the header; it bounds what this entry may have of them.
    pub(super) fn of_gnu(
        header: &Header,
        path: &[u8],
        mut more: impl FnMut(&mut [u8]) -> Result<(), TarError>,
    ) -> Result<Self, TarError> {
        let unreadable = || TarError::Field { path: show(path), field: "map of holes" };
        let gnu = header.as_gnu().ok_or_else(unreadable)?;
        let size = gnu.real_size().map_err(|_| unreadable())?;
        let mut parts = Vec::new();
        let take = |parts: &mut Vec<Part>, headers: &[GnuSparseHeader]| {
            for header in headers.iter().filter(|header| !header.is_empty()) {
                let (offset, length) = (header.offset(), header.length());
                parts.push(Part {
                    offset: offset.map_err(|_| unreadable())?,
                    length: length.map_err(|_| unreadable())?,
                });
            }
            Ok::<_, TarError>(())
        };
        take(&mut parts, &gnu.sparse)?;
        let mut extended = gnu.is_extended();
        while extended {
            let mut block = GnuExtSparseHeader::new();
            more(block.as_mut_bytes())?;
            take(&mut parts, block.sparse())?;
            extended = block.is_extended();
        }
        Ok(Self { size, parts })
    }

    /// The map of a file whose PAX records have some of it. Where it is in front of the data, that is begun.
    ///
    /// `own_size`: bytes of the entry. `front`: fills a buffer with the first bytes of its data; it bounds them.
    pub(super) fn of_pax(
        words: &Words,
        own_size: u64,
        front: impl FnMut(&mut [u8]) -> Result<(), TarError>,
    ) -> Result<Self, TarError> {
        let numbers = if words.is_in_data() { numbers_in_data(front)? } else { words.numbers.clone() };
        if !numbers.len().is_multiple_of(2) {
            return Err(TarError::Pax);
        }
        let parts = numbers.chunks_exact(2).map(|pair| Part { offset: pair[0], length: pair[1] }).collect();
        Ok(Self { size: words.size.unwrap_or(own_size), parts })
    }

    /// Whether the parts fit the file and the `stored` bytes that follow.
    pub(super) fn fits(&self, stored: u64) -> bool {
        let mut end = 0;
        let mut sum: u64 = 0;
        for part in &self.parts {
            let Some(behind) = part.offset.checked_add(part.length) else { return false };
            if part.offset < end || behind > self.size {
                return false;
            }
            end = behind;
            // Bounded by `size`, since the parts do not overlap.
            sum += part.length;
        }
        sum == stored
    }
}

/// Decimal numbers, one a line, the first of which counts the pairs that follow; up to whole blocks.
fn numbers_in_data(mut front: impl FnMut(&mut [u8]) -> Result<(), TarError>) -> Result<Vec<u64>, TarError> {
    let mut text = Vec::new();
    let mut numbers = Vec::new();
    let mut wanted = None;
    while wanted.is_none_or(|wanted| numbers.len() < wanted) {
        let mut block = [0; 512];
        front(&mut block)?;
        for byte in block {
            if wanted.is_some_and(|wanted| numbers.len() == wanted) {
                break;
            }
            if byte != b'\n' {
                text.push(byte);
                continue;
            }
            let value = number::<u64>(&std::mem::take(&mut text))?;
            match wanted {
                Some(_) => numbers.push(value),
                // More pairs than there can be bytes for are found to be missing.
                None => wanted = Some(usize::try_from(value.saturating_mul(2)).unwrap_or(usize::MAX)),
            }
        }
        if text.len() > 20 {
            return Err(TarError::Pax);
        }
    }
    Ok(numbers)
}
