//! HCL blobs, one defect at a time, and what they bind.

use crate::forge::World;
use coffer_verifier::{ExpectedReportData, HclBlob, HclError, abi::report::offset, verify};
use sha2::{Digest, Sha256, Sha384, Sha512};

const JSON: &str =
    r#"{"keys":[{"kid":"HCLAkPub","kty":"RSA","e":"AQAB","n":"qQ"},{"kid":"HCLEkPub"}],"user-data":"00"}"#;
const RUNTIME: usize = 0x20 + 1184;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn blob(report: &[u8], hash: u32, json: &str) -> Vec<u8> {
    let length = json.len() as u32;
    [
        b"HCLA".to_vec(),
        words(&[2, 1236 + length, 2, 0, 0, 0, 0]),
        report.to_vec(),
        words(&[length + 20, 1, 2, hash, length]),
        json.as_bytes().to_vec(),
        vec![0; 100],
    ]
    .concat()
}

fn good() -> Vec<u8> {
    blob(&World::new().signed_report(), 1, JSON)
}

fn with(change: impl FnOnce(&mut Vec<u8>)) -> Result<(), HclError> {
    let mut bytes = good();
    change(&mut bytes);
    HclBlob::parse(&bytes).map(drop)
}

fn word(at: usize, value: u32) -> Result<(), HclError> {
    with(|bytes| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes()))
}

#[test]
fn header_lengths_and_tail_are_as_they_must_be() {
    assert_eq!(with(|_| {}), Ok(()));
    let header =
        |result, name| assert!(matches!(result, Err(HclError::Header { field, .. }) if field == name), "{name}");
    header(word(0, 0), "signature");
    header(word(4, 0), "version");
    header(word(4, 3), "version");
    header(word(0xc, 4), "request type");
    header(word(0x10, 1), "status");
    for at in [0x14, 0x18, 0x1c] {
        header(word(at, 1), "reserved word");
    }
    header(word(RUNTIME + 4, 2), "runtime version");
    for change in [u32::MAX, 0, 1] {
        header(word(8, change), "length");
        header(word(RUNTIME, change), "runtime length");
    }
    header(word(RUNTIME + 8, 4), "report type");
    header(word(RUNTIME + 12, 0), "hash type");
    header(word(RUNTIME + 12, 4), "hash type");
    assert!(matches!(word(RUNTIME + 16, u32::MAX), Err(HclError::RuntimeLength { .. })));
    assert!(matches!(word(RUNTIME + 16, JSON.len() as u32 + 101), Err(HclError::RuntimeLength { .. })));
    assert_eq!(with(|bytes| *bytes.last_mut().unwrap() = 1), Err(HclError::Trailing));
    assert!(matches!(with(|bytes| bytes.truncate(RUNTIME + 19)), Err(HclError::Short { .. })));
    assert!(matches!(with(|bytes| bytes.resize(64 * 1024 + 1, 0)), Err(HclError::TooLong { .. })));
    header(word(RUNTIME + 16, JSON.len() as u32 - 1), "length");
}

#[test]
fn runtime_data_names_at_most_one_rsa_attestation_key() {
    let parse = |json: &str| {
        let bytes = blob(&World::new().signed_report(), 1, json);
        HclBlob::parse(&bytes).map(|blob| blob.attestation_key().cloned())
    };
    let key = parse(JSON).unwrap().unwrap();
    assert_eq!((key.modulus, key.exponent), (vec![0xa9], vec![1, 0, 1]));
    assert_eq!(parse(r#"{"keys":[]}"#), Ok(None));
    for json in [
        "",
        "{}",
        r#"{"keys":[]} x"#,
        r#"{"keys":[{"kid":"HCLAkPub","kty":"EC","e":"AQAB","n":"qQ"}]}"#,
        r#"{"keys":[{"kid":"HCLAkPub","kty":"RSA","e":"AQAB"}]}"#,
        r#"{"keys":[{"kid":"HCLAkPub","kty":"RSA","e":"AQAB","n":"*"}]}"#,
        r#"{"keys":[{"kid":"HCLAkPub","kid":"x","kty":"RSA","e":"AQAB","n":"qQ"}]}"#,
        r#"{"keys":[{"kid":"HCLAkPub","kty":"RSA","e":"AQAB","n":"qQ"},{"kid":"HCLAkPub","kty":"RSA","e":"AQAB","n":"qg"}]}"#,
    ] {
        assert_eq!(parse(json), Err(HclError::Json), "{json}");
    }
}

#[test]
fn the_runtime_data_must_be_what_report_data_hashes() {
    let hashes: [(u32, Vec<u8>); 3] =
        [(1, Sha256::digest(JSON).to_vec()), (2, Sha384::digest(JSON).to_vec()), (3, Sha512::digest(JSON).to_vec())];
    for (kind, hash) in hashes {
        let mut world = World::new();
        world.patch(offset::REPORT_DATA, &[0; 64]);
        world.patch(offset::REPORT_DATA, &hash);
        let verdict = |json: &str| {
            let bytes = blob(&world.signed_report(), kind, json);
            let blob = HclBlob::parse(&bytes).unwrap();
            assert!(matches!(blob.expected_report_data(), ExpectedReportData::Attachment(_)));
            let all = world.endorsements().unwrap();
            verify(blob.report(), &all, &world.anchors(), &blob.expected_report_data(), &world.crl, world.now)
                .map_or_else(|error| error.reason().code.as_str(), |_| "accepted")
        };
        assert_eq!(verdict(JSON), "accepted", "hash type {kind}");
        assert_eq!(verdict(&JSON.replace("qQ", "qg")), "runtime-data", "hash type {kind}");
    }
}
