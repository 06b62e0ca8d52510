//! Sealing and opening: STREAM over AES-256-GCM, so that no chunk can be dropped, moved, repeated or appended.

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use coffer_verifier::{abi::DerivedKey, binding::length_prefixed};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{
    SealError,
    header::{CHUNK, HEADER, Header, SealPolicy},
};

/// Most plaintext bytes of one file: 1 GiB, far below what one key may encrypt.
pub const LIMIT: usize = 1 << 30;
const TAG: usize = 16;

/// Seals `plaintext` under `key`. The header's context must be the digest of `context`, as [`Header::new`] makes it.
///
/// Each file needs fresh random salt: one used twice gives two files one key and one set of nonces.
///
/// # Errors
/// [`SealError::TooLong`]; [`SealError::Policy`], [`SealError::Counter`] or [`SealError::Format`] for a header that
/// could not be opened again.
pub fn seal(key: &DerivedKey, header: &Header, context: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
    if plaintext.len() > LIMIT {
        return Err(SealError::TooLong { found: plaintext.len() });
    }
    openable(header)?;
    if !header.is_of_context(context) {
        return Err(SealError::Format { what: "its header is of another context" });
    }
    let encoded = header.encode();
    let cipher = cipher(key, &encoded, header, context);
    let chunks = plaintext.len().div_ceil(CHUNK).max(1);
    let mut out = Vec::with_capacity(HEADER + plaintext.len() + chunks * TAG);
    out.extend_from_slice(&encoded);
    for index in 0..chunks {
        let chunk = &plaintext[index * CHUNK..plaintext.len().min((index + 1) * CHUNK)];
        let payload = Payload { msg: chunk, aad: &encoded };
        let nonce = nonce(index, index + 1 == chunks);
        out.extend(cipher.encrypt(&nonce.into(), payload).map_err(|_| SealError::TooLong { found: plaintext.len() })?);
    }
    Ok(out)
}

/// Opens a sealed file whole. `key`: derived for the header's TCB, see [`crate::key_request`].
///
/// # Errors
/// [`SealError::Closed`] if any byte, the key or the context is another; [`SealError`] otherwise. Nothing is given out then.
pub fn unseal(key: &DerivedKey, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let header = Header::peek(sealed)?;
    openable(&header)?;
    if !header.is_of_context(context) {
        return Err(SealError::Closed);
    }
    let (encoded, body) = sealed.split_at(HEADER);
    if body.len() > LIMIT + LIMIT / CHUNK * TAG + TAG {
        return Err(SealError::TooLong { found: body.len() });
    }
    let cipher = cipher(key, encoded, &header, context);
    let chunks = body.len().div_ceil(CHUNK + TAG).max(1);
    // No plaintext has an empty chunk behind a full one.
    if chunks > 1 && body.len() % (CHUNK + TAG) == TAG {
        return Err(SealError::Closed);
    }
    let mut out = Zeroizing::new(Vec::with_capacity(body.len()));
    for index in 0..chunks {
        let start = index * (CHUNK + TAG);
        let chunk = &body[start..body.len().min(start + CHUNK + TAG)];
        let payload = Payload { msg: chunk, aad: encoded };
        let nonce = nonce(index, index + 1 == chunks);
        let opened = Zeroizing::new(cipher.decrypt(&nonce.into(), payload).map_err(|_| SealError::Closed)?);
        out.extend_from_slice(&opened);
    }
    Ok(out)
}

/// Refuses headers that promise what only a key broker can keep.
fn openable(header: &Header) -> Result<(), SealError> {
    SealPolicy::available(header.policy.name())?;
    if header.rollback_protected() { Err(SealError::Counter) } else { Ok(()) }
}

/// The file's own key: the salt makes it fresh for every file, so the counter nonce never repeats under it.
fn cipher(key: &DerivedKey, encoded: &[u8], header: &Header, context: &[u8]) -> Aes256Gcm {
    let (policy, source) = (header.policy.name(), header.policy.source());
    let info = length_prefixed(&[b"coffer/seal/v1", policy.as_bytes(), source.as_bytes(), b"agent", context, encoded]);
    let mut file_key = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(Some(&header.salt), key.expose())
        .expand(&info, &mut *file_key)
        .expect("32 bytes are within HKDF's limit");
    Aes256Gcm::new((&*file_key).into())
}

/// Chunk number, then 1 for the last chunk.
fn nonce(index: usize, last: bool) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[3..11].copy_from_slice(&(index as u64).to_be_bytes());
    nonce[11] = u8::from(last);
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(byte: u8) -> DerivedKey {
        DerivedKey::new([byte; 32])
    }

    fn sealed(plaintext: &[u8]) -> Vec<u8> {
        let header = Header::new(SealPolicy::MeasurementAndChip, true, 5, b"db", [9; 32]);
        seal(&key(1), &header, b"db", plaintext).unwrap()
    }

    #[test]
    fn every_length_around_a_chunk_comes_back() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 7] {
            let plaintext: Vec<u8> = (0..length).map(|index| index as u8).collect();
            let file = sealed(&plaintext);
            assert_eq!(*unseal(&key(1), b"db", &file).unwrap(), plaintext, "{length}");
            assert_eq!(Header::peek(&file).unwrap().tcb, 5);
        }
    }

    #[test]
    fn headers_only_a_key_broker_can_honour_are_refused() {
        let plain = Header::new(SealPolicy::MeasurementAndChip, true, 5, b"db", [9; 32]);
        let both = |header: Header, expected: &SealError| {
            assert_eq!(seal(&key(1), &header, b"db", b"x").unwrap_err(), *expected);
            let mut file = sealed(b"x");
            file[..HEADER].copy_from_slice(&header.encode());
            assert_eq!(unseal(&key(1), b"db", &file).unwrap_err(), *expected);
        };
        for policy in [SealPolicy::Chip, SealPolicy::Measurement, SealPolicy::Workload, SealPolicy::Signer] {
            both(Header { policy, ..plain }, &SealError::Policy { policy: policy.name().into() });
        }
        both(Header { counter: [1; 16], ..plain }, &SealError::Counter);
    }

    #[test]
    fn a_header_of_another_context_is_not_sealed_under() {
        let header = Header::new(SealPolicy::MeasurementAndChip, true, 5, b"other", [9; 32]);
        assert!(matches!(seal(&key(1), &header, b"db", b"x"), Err(SealError::Format { .. })));
    }

    #[test]
    fn more_than_the_limit_is_refused() {
        let header = Header::new(SealPolicy::MeasurementAndChip, true, 5, b"", [9; 32]);
        let refused = seal(&key(1), &header, b"", &vec![0; LIMIT + 1]).unwrap_err();
        assert_eq!(refused, SealError::TooLong { found: LIMIT + 1 });
    }

    #[test]
    fn every_bit_of_the_header_is_authenticated() {
        let file = sealed(b"secret");
        for bit in 0..HEADER * 8 {
            let mut changed = file.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(&key(1), b"db", &changed).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_file_has_one_encoding_only() {
        // The key's owner seals a full chunk as if more followed, then an empty last one.
        let header = Header::new(SealPolicy::MeasurementAndChip, true, 5, b"db", [9; 32]);
        let encoded = header.encode();
        let cipher = cipher(&key(1), &encoded, &header, b"db");
        let mut file = encoded.to_vec();
        for (index, chunk) in [vec![7; CHUNK], vec![]].iter().enumerate() {
            let payload = Payload { msg: chunk, aad: &encoded };
            file.extend(cipher.encrypt(&nonce(index, index == 1).into(), payload).unwrap());
        }
        assert_eq!(unseal(&key(1), b"db", &file).unwrap_err(), SealError::Closed);
    }

    #[test]
    fn another_key_or_context_does_not_open() {
        let file = sealed(b"secret");
        assert_eq!(unseal(&key(2), b"db", &file).unwrap_err(), SealError::Closed);
        assert_eq!(unseal(&key(1), b"other", &file).unwrap_err(), SealError::Closed);
    }

    #[test]
    fn chunks_cannot_be_dropped_moved_repeated_or_appended() {
        let plaintext = vec![7; 3 * CHUNK];
        let file = sealed(&plaintext);
        let chunk = |index: usize| &file[HEADER + index * (CHUNK + TAG)..HEADER + (index + 1) * (CHUNK + TAG)];
        let with = |order: &[usize]| {
            let mut out = file[..HEADER].to_vec();
            for index in order {
                out.extend_from_slice(chunk(*index));
            }
            out
        };
        assert!(unseal(&key(1), b"db", &with(&[0, 1, 2])).is_ok());
        for order in [&[][..], &[0], &[0, 1], &[1, 0, 2], &[0, 0, 1, 2], &[0, 1, 2, 2], &[0, 2], &[2]] {
            assert!(unseal(&key(1), b"db", &with(order)).is_err(), "{order:?}");
        }
        let mut longer = file.clone();
        longer.push(0);
        assert!(unseal(&key(1), b"db", &longer).is_err());
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_refused(plaintext in proptest::collection::vec(any::<u8>(), 0..200), at: prop::sample::Index, bit in 0..8u8) {
            let mut file = sealed(&plaintext);
            let at = at.index(file.len());
            file[at] ^= 1 << bit;
            prop_assert!(unseal(&key(1), b"db", &file).is_err());
        }

        #[test]
        fn any_cut_is_refused(plaintext in proptest::collection::vec(any::<u8>(), 0..200), at: prop::sample::Index) {
            let file = sealed(&plaintext);
            prop_assert!(unseal(&key(1), b"db", &file[..at.index(file.len())]).is_err());
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Header::peek(&bytes);
            prop_assert!(unseal(&key(1), b"", &bytes).is_err());
        }
    }
}
