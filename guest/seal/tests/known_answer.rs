//! The format, written a second time with other libraries from docs/sealed-format.md and docs/sealing.md alone. Files sealed today open tomorrow
//! only if this keeps passing unchanged.

use aes_gcm::{
    Aes256Gcm, KeyInit as _,
    aead::{Aead as _, Payload},
};
use coffer_seal::{BrokerKey, Header, Keys, MinimumSvn, Scope, SealError, SealPolicy, Secrets, Source, seal, unseal};
use coffer_verifier::abi::DerivedKey;
use hmac::{Hmac, Mac as _};
use secrecy::SecretBox;
use sha2::Sha256;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/sealed-format.md");
const CONTEXT: &[u8] = b"db";
const SALT: [u8; 32] = [0x5a; 32];
const PROCESSOR: [u8; 32] = [0x11; 32];
const BROKER: [u8; 32] = [0x22; 32];

/// SHA-256 of "db".
const CONTEXT_DIGEST: &str = "7bdc25d1694ef984782a16f6f1710c1c6bc83ba7a131b515baf532bea021d011";

/// A file by the book: what its header says, and the secrets its key comes from.
struct Book {
    policy: SealPolicy,
    /// Codes of policy and source.
    codes: [u8; 2],
    source: &'static str,
    scope: Scope,
    secrets: Vec<u8>,
    svn: u8,
    counter: [u8; 16],
    generation: u8,
}

fn books() -> Vec<Book> {
    let both = [PROCESSOR, BROKER].concat();
    let book = |policy, codes, source, secrets: &[u8]| Book {
        policy,
        codes,
        source,
        scope: Scope::Agent,
        secrets: secrets.to_vec(),
        svn: 0,
        counter: [0; 16],
        generation: 0,
    };
    vec![
        book(SealPolicy::MeasurementAndChip, [1, 1], "psp", &PROCESSOR),
        book(SealPolicy::Chip, [2, 2], "psp+kbs", &both),
        book(SealPolicy::Measurement, [3, 3], "kbs", &BROKER),
        Book { counter: [0x33; 16], generation: 2, ..book(SealPolicy::Workload, [4, 3], "kbs", &BROKER) },
        Book { svn: 5, ..book(SealPolicy::Signer, [5, 3], "kbs", &BROKER) },
    ]
}

impl Book {
    fn header(&self) -> Vec<u8> {
        let mut out = b"COFSEAL\0\x00\x01".to_vec();
        out.extend_from_slice(&self.codes);
        out.extend_from_slice(&[2, 0, 0, self.svn, 0x00, 0x01, 0x00, 0x00]);
        out.extend_from_slice(&[4, 0, 0, 0, 0, 0, 0x18, 0xdb]);
        out.extend(hex::decode(CONTEXT_DIGEST).unwrap());
        out.extend_from_slice(&SALT);
        out.extend_from_slice(&self.counter);
        out.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, self.generation]);
        out
    }

    /// HKDF of 32 bytes, from HMAC alone.
    fn file_key(&self) -> [u8; 32] {
        let hmac = |key: &[u8], message: &[u8]| -> [u8; 32] {
            let mut hmac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).unwrap();
            hmac.update(message);
            hmac.finalize().into_bytes().into()
        };
        let scope: &[u8] = match self.scope {
            Scope::Agent => b"agent",
            Scope::Workload => b"workload",
            Scope::Volume => b"volume",
        };
        let mut info = Vec::new();
        let (policy, source) = (self.policy.name().as_bytes(), self.source.as_bytes());
        for field in [b"coffer/seal/v1", policy, source, scope, CONTEXT, &self.header()] {
            info.extend_from_slice(&(field.len() as u32).to_be_bytes());
            info.extend_from_slice(field);
        }
        info.push(1);
        hmac(&hmac(&SALT, &self.secrets), &info)
    }

    fn sealed(&self, chunks: &[&[u8]]) -> Vec<u8> {
        let header = self.header();
        let cipher = Aes256Gcm::new((&self.file_key()).into());
        let mut out = header.clone();
        for (index, chunk) in chunks.iter().enumerate() {
            let mut nonce = [0; 12];
            nonce[7..11].copy_from_slice(&(index as u32).to_be_bytes());
            nonce[11] = u8::from(index + 1 == chunks.len());
            out.extend(cipher.encrypt(&nonce.into(), Payload { msg: chunk, aad: &header }).unwrap());
        }
        out
    }

    /// The same in the words of the library.
    fn ours(&self) -> (Keys, Header) {
        let broker = || BrokerKey::new(SecretBox::new(Box::new(BROKER)));
        let secrets = match self.policy.source() {
            Source::Processor => Secrets::Processor(DerivedKey::new(PROCESSOR)),
            Source::Both => Secrets::Both(DerivedKey::new(PROCESSOR), broker()),
            Source::Broker => Secrets::Broker(broker()),
        };
        let keys = secrets.of(self.scope);
        let header = Header {
            minimum_svn: MinimumSvn::new(self.svn.into()).unwrap(),
            counter: self.counter,
            generation: self.generation.into(),
            ..Header::new(self.policy, true, 0xdb18_0000_0000_0004, CONTEXT, SALT)
        };
        (keys, header)
    }
}

#[test]
fn seals_and_opens_byte_for_byte_what_the_format_says() {
    let plaintext: Vec<u8> = (0..2 * 65536 + 7_u32).map(|index| index as u8).collect();
    let full = &plaintext[..];
    for book in books() {
        for chunks in [
            vec![&full[..0]],
            vec![&full[..6]],
            vec![&full[..65536]],
            vec![&full[..65536], &full[65536..131_072], &full[131_072..]],
        ] {
            let plaintext = chunks.concat();
            let (keys, header) = book.ours();
            let expected = book.sealed(&chunks);
            let (policy, length) = (book.policy, plaintext.len());
            assert!(seal(&keys, &header, CONTEXT, &plaintext).unwrap() == expected, "{policy}: {length} bytes");
            let current = Some(book.generation.into());
            assert!(*unseal(&keys, CONTEXT, current, &expected).unwrap() == plaintext, "{policy}: {length} bytes");
        }
    }
}

#[test]
fn a_workloads_file_and_a_volumes_header_are_their_own_and_by_the_book_too() {
    let scopes = [Scope::Workload, Scope::Volume];
    for (scope, book) in scopes.into_iter().flat_map(|scope| books().into_iter().map(move |book| (scope, book))) {
        let agents = book.ours().0;
        let book = Book { scope, ..book };
        let (keys, header) = book.ours();
        let expected = book.sealed(&[b"state"]);
        let (policy, current) = (book.policy, Some(book.generation.into()));
        assert!(seal(&keys, &header, CONTEXT, b"state").unwrap() == expected, "{policy}");
        assert_eq!(*unseal(&keys, CONTEXT, current, &expected).unwrap(), b"state", "{policy}");
        assert_eq!(unseal(&agents, CONTEXT, current, &expected).unwrap_err(), SealError::Closed, "{policy}");
    }
}

#[test]
fn the_files_of_the_page_are_these() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let table =
        page.split("## A file of each policy").nth(1).expect("the page has known answers").split("\n#").next().unwrap();
    let rows: Vec<Vec<_>> = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect())
        .collect();
    let expected: Vec<Vec<_>> = books()
        .iter()
        .map(|book| {
            let file = hex::encode(book.sealed(&[b"state"]));
            vec![book.policy.name().to_owned(), hex::encode(book.file_key()), file]
        })
        .collect();
    assert_eq!(rows, expected);
    for (row, book) in rows.iter().zip(books()) {
        let file = hex::decode(&row[2]).unwrap();
        let opened = unseal(&book.ours().0, CONTEXT, Some(book.generation.into()), &file);
        assert_eq!(*opened.unwrap(), b"state", "{}", row[0]);
    }
}
