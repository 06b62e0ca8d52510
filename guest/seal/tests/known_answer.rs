//! The format, written a second time by another library from docs/sealing.md alone. Files sealed today open tomorrow
//! only if this keeps passing unchanged.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Salt},
    test::from_hex,
};
use coffer_seal::{Header, SealPolicy, seal, unseal};
use coffer_verifier::abi::DerivedKey;

const CONTEXT: &[u8] = b"db";
const SALT: [u8; 32] = [0x5a; 32];
const KEY: [u8; 32] = [0x11; 32];

/// SHA-256 of "db".
const CONTEXT_DIGEST: &str = "7bdc25d1694ef984782a16f6f1710c1c6bc83ba7a131b515baf532bea021d011";

fn header() -> Vec<u8> {
    let mut out = b"COFSEAL\0\x00\x01\x01\x01\x02\x00\x00\x00\x00\x01\x00\x00".to_vec();
    out.extend_from_slice(&[4, 0, 0, 0, 0, 0, 0x18, 0xdb]);
    out.extend(from_hex(CONTEXT_DIGEST).unwrap());
    out.extend_from_slice(&SALT);
    out.extend_from_slice(&[0; 16 + 8]);
    out
}

fn file_key(header: &[u8]) -> LessSafeKey {
    let mut info = Vec::new();
    for field in [b"coffer/seal/v1", &b"measurement-and-chip"[..], b"psp", b"agent", CONTEXT, header] {
        info.extend_from_slice(&(field.len() as u32).to_be_bytes());
        info.extend_from_slice(field);
    }
    let key = Salt::new(HKDF_SHA256, &SALT).extract(&KEY);
    LessSafeKey::new(UnboundKey::from(key.expand(&[&info], &AES_256_GCM).unwrap()))
}

fn sealed_by_the_book(chunks: &[&[u8]]) -> Vec<u8> {
    let header = header();
    let key = file_key(&header);
    let mut out = header.clone();
    for (index, chunk) in chunks.iter().enumerate() {
        let mut nonce = [0; 12];
        nonce[7..11].copy_from_slice(&(index as u32).to_be_bytes());
        nonce[11] = u8::from(index + 1 == chunks.len());
        let mut body = chunk.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(nonce, Aad::from(&header), &mut body).unwrap();
        out.extend(body);
    }
    out
}

#[test]
fn seals_and_opens_byte_for_byte_what_the_format_says() {
    let plaintext: Vec<u8> = (0..2 * 65536 + 7_u32).map(|index| index as u8).collect();
    let (full, key) = (&plaintext[..], DerivedKey::new(KEY));
    for chunks in [
        vec![&full[..0]],
        vec![&full[..6]],
        vec![&full[..65536]],
        vec![&full[..65536], &full[65536..131_072], &full[131_072..]],
    ] {
        let plaintext = chunks.concat();
        let header = Header::new(SealPolicy::MeasurementAndChip, true, 0xdb18_0000_0000_0004, CONTEXT, SALT);
        let expected = sealed_by_the_book(&chunks);
        assert!(seal(&key, &header, CONTEXT, &plaintext).unwrap() == expected, "{} bytes", plaintext.len());
        assert!(*unseal(&key, CONTEXT, &expected).unwrap() == plaintext, "{} bytes", plaintext.len());
    }
}
