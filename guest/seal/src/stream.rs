//! Sealing and opening: STREAM over AES-256-GCM, so that no chunk can be dropped, moved, repeated or appended.
//!
//! [`Sealer`] and [`Opener`] take one chunk after the other and keep none; the functions beside them do it for readers and
//! writers, and for bytes in memory.

use std::io::{Read, Write};

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use zeroize::Zeroizing;

use crate::{
    SealError, StreamError,
    header::{CHUNK, HEADER, Header},
    keys::Keys,
};

/// Most plaintext bytes of one file: 64 GiB, up to which no birthday comes near under one key.
pub const LIMIT: u64 = 1 << 36;
/// Bytes of the tag behind each chunk.
pub const TAG: usize = 16;

/// What both directions agree on: the file's key, its header, the next chunk's number.
struct Chunks {
    key: LessSafeKey,
    encoded: [u8; HEADER],
    next: u64,
    ended: bool,
}

impl Chunks {
    /// Chunk number, then 1 for the last chunk.
    fn nonce(&mut self, last: bool) -> Result<Nonce, SealError> {
        if self.ended {
            return Err(SealError::Closed);
        }
        if self.next >= LIMIT / CHUNK as u64 {
            return Err(SealError::TooLong);
        }
        let mut nonce = [0; 12];
        nonce[3..11].copy_from_slice(&self.next.to_be_bytes());
        nonce[11] = u8::from(last);
        self.next += 1;
        self.ended = last;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

/// Seals one file, chunk by chunk.
pub struct Sealer(Chunks);

impl Sealer {
    /// `header`: as [`Header::new`] makes it of the same context, with a salt that no file had before: one used twice gives two
    /// files one key and one set of nonces. The file begins with [`Self::header`].
    ///
    /// # Errors
    /// [`SealError::Keys`]; [`SealError::Format`] for a header that could not be opened again.
    pub fn new(keys: &Keys, header: &Header, context: &[u8]) -> Result<Self, SealError> {
        header.check()?;
        if !header.is_of_context(context) {
            return Err(SealError::Format { what: "its header is of another context" });
        }
        let encoded = header.encode();
        Ok(Self(Chunks { key: keys.of_file(header, &encoded, context)?, encoded, next: 0, ended: false }))
    }

    /// What stands in front of the chunks.
    pub const fn header(&self) -> &[u8; HEADER] {
        &self.0.encoded
    }

    /// Encrypts the next chunk in its place and gives the tag that follows it. All but the last are [`CHUNK`] bytes, and the last
    /// is empty only if it is the only one.
    ///
    /// # Errors
    /// [`SealError::TooLong`] past [`LIMIT`]; [`SealError::Format`] for a chunk of a length that has no place there.
    pub fn chunk(&mut self, chunk: &mut [u8], last: bool) -> Result<[u8; TAG], SealError> {
        let fits =
            if last { chunk.len() <= CHUNK && (self.0.next == 0 || !chunk.is_empty()) } else { chunk.len() == CHUNK };
        if !fits {
            return Err(SealError::Format { what: "a chunk of a wrong length" });
        }
        let (nonce, aad) = (self.0.nonce(last)?, Aad::from(&self.0.encoded));
        let tag = self.0.key.seal_in_place_separate_tag(nonce, aad, chunk).map_err(|_| SealError::TooLong)?;
        tag.as_ref().try_into().map_err(|_| SealError::TooLong)
    }
}

/// Opens one file, chunk by chunk. What it gives is authentic, and whole once the last chunk has opened and not before.
pub struct Opener(Chunks);

impl Opener {
    /// `encoded`: the first [`HEADER`] bytes of the file. `current`: where the header's counter is at the key broker, if it has
    /// one.
    ///
    /// # Errors
    /// [`SealError::Counter`], [`SealError::Older`], [`SealError::Keys`]; [`SealError::Closed`] under another context;
    /// [`SealError::Format`] and [`SealError::Version`].
    pub fn new(keys: &Keys, encoded: &[u8; HEADER], context: &[u8], current: Option<u64>) -> Result<Self, SealError> {
        let header = Header::peek(encoded)?;
        if header.rollback_protected() {
            let current = current.ok_or(SealError::Counter)?;
            if header.generation != current {
                return Err(SealError::Older { found: header.generation, current });
            }
        }
        if !header.is_of_context(context) {
            return Err(SealError::Closed);
        }
        let key = keys.of_file(&header, encoded, context)?;
        Ok(Self(Chunks { key, encoded: *encoded, next: 0, ended: false }))
    }

    /// Opens the next chunk, with its tag behind it, in its place. `last`: nothing follows it in the file.
    ///
    /// # Errors
    /// [`SealError::Closed`] if any byte, the key or the place is another.
    pub fn chunk<'a>(&mut self, chunk: &'a mut [u8], last: bool) -> Result<&'a mut [u8], SealError> {
        let length = chunk.len().checked_sub(TAG).ok_or(SealError::Closed)?;
        let fits = if last { length <= CHUNK && (self.0.next == 0 || length > 0) } else { length == CHUNK };
        if !fits {
            return Err(SealError::Closed);
        }
        let (nonce, aad) = (self.0.nonce(last)?, Aad::from(&self.0.encoded));
        self.0.key.open_in_place(nonce, aad, chunk).map_err(|_| SealError::Closed)
    }
}

/// Seals what a reader gives, in constant memory.
///
/// # Errors
/// As [`Sealer`], and those of the reader and the writer.
pub fn seal_stream(
    keys: &Keys,
    header: &Header,
    context: &[u8],
    input: &mut impl Read,
    output: &mut impl Write,
) -> Result<(), StreamError> {
    let mut sealer = Sealer::new(keys, header, context)?;
    output.write_all(sealer.header()).map_err(StreamError::Write)?;
    in_chunks(input, CHUNK, |chunk, last| {
        let tag = sealer.chunk(chunk, last)?;
        output.write_all(chunk).and_then(|()| output.write_all(&tag)).map_err(StreamError::Write)
    })
}

/// Opens what a reader gives, in constant memory. `keys`: for the header, which comes first, its keys and its counter.
///
/// What the writer got is authentic, and worth nothing unless this returns without an error: the file may have been cut.
///
/// # Errors
/// As [`Opener`], and those of the reader and the writer.
pub fn unseal_stream(
    keys: impl FnOnce(&Header) -> Result<(Keys, Option<u64>), SealError>,
    context: &[u8],
    input: &mut impl Read,
    output: &mut impl Write,
) -> Result<(), StreamError> {
    let mut encoded = [0; HEADER];
    let found = fill(input, &mut encoded)?;
    let (keys, current) = keys(&Header::peek(&encoded[..found])?)?;
    let mut opener = Opener::new(&keys, &encoded, context, current)?;
    in_chunks(input, CHUNK + TAG, |chunk, last| {
        output.write_all(opener.chunk(chunk, last)?).map_err(StreamError::Write)
    })
}

/// Hands on all of a reader in pieces of a size; the last may be shorter, and empty if it is the only one.
fn in_chunks(
    input: &mut impl Read,
    size: usize,
    mut each: impl FnMut(&mut [u8], bool) -> Result<(), StreamError>,
) -> Result<(), StreamError> {
    let (mut now, mut ahead) = (Zeroizing::new(vec![0; size]), Zeroizing::new(vec![0; size]));
    let mut length = fill(input, &mut now)?;
    loop {
        // Only one that is full may have another behind it.
        let next = if length == size { fill(input, &mut ahead)? } else { 0 };
        each(&mut now[..length], next == 0)?;
        if next == 0 {
            return Ok(());
        }
        core::mem::swap(&mut now, &mut ahead);
        length = next;
    }
}

/// Reads until the buffer is full or the reader is at its end; gives how much.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize, StreamError> {
    let mut length = 0;
    while length < buffer.len() {
        match input.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(StreamError::Read(error)),
        }
    }
    Ok(length)
}

/// Seals bytes in memory.
///
/// # Errors
/// As [`Sealer`].
pub fn seal(keys: &Keys, header: &Header, context: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut sealer = Sealer::new(keys, header, context)?;
    let chunks = plaintext.len().div_ceil(CHUNK).max(1);
    let mut out = Vec::with_capacity(HEADER + plaintext.len() + chunks * TAG);
    out.extend_from_slice(sealer.header());
    for index in 0..chunks {
        let start = out.len();
        out.extend_from_slice(&plaintext[index * CHUNK..plaintext.len().min((index + 1) * CHUNK)]);
        let tag = sealer.chunk(&mut out[start..], index + 1 == chunks)?;
        out.extend_from_slice(&tag);
    }
    Ok(out)
}

/// Opens a sealed file in memory, whole. `keys`: for the header, see [`crate::key_request`]. `current`: as for [`Opener::new`].
///
/// # Errors
/// [`SealError::Closed`] if any byte, the key or the context is another; [`SealError`] otherwise. Nothing is given out then.
pub fn unseal(
    keys: &Keys,
    context: &[u8],
    current: Option<u64>,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let (encoded, body) = sealed.split_first_chunk().ok_or(SealError::Format { what: "shorter than its header" })?;
    let mut opener = Opener::new(keys, encoded, context, current)?;
    let mut out = Zeroizing::new(Vec::with_capacity(body.len()));
    let chunks = body.len().div_ceil(CHUNK + TAG).max(1);
    for index in 0..chunks {
        let start = out.len();
        out.extend_from_slice(&body[index * (CHUNK + TAG)..body.len().min((index + 1) * (CHUNK + TAG))]);
        let opened = opener.chunk(&mut out[start..], index + 1 == chunks)?.len();
        out.truncate(start + opened);
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
