//! REPORT_DATA of each use: computed here once more from the text of the design, and different as soon as one field is.

use coffer_verifier::{
    abi::{ReportData, SpkiDigest, WorkloadDigest},
    binding::{
        ALPN_CONTROL, ALPN_KBS, ConnectionBinding, EncryptionKey, Role, TokenBinding, certificate_report_data,
        length_prefixed, workload_report_data,
    },
};
use sha2::{Digest, Sha512};

const OWN: SpkiDigest = SpkiDigest::new([1; 32]);
const PEER: SpkiDigest = SpkiDigest::new([2; 32]);
const WORKLOAD: WorkloadDigest = WorkloadDigest::new([3; 32]);

fn key() -> EncryptionKey {
    EncryptionKey { kem: 0x11, kdf: 1, aead: 2, public_key: vec![6; 97] }
}

fn connection(key: &EncryptionKey) -> ConnectionBinding<'_> {
    ConnectionBinding {
        role: Role::Client,
        purpose: ALPN_KBS,
        exporter: &[4; 32],
        challenge: &[5; 32],
        own_spki: &OWN,
        peer_spki: &PEER,
        encryption_key: key,
        workload: &WORKLOAD,
    }
}

/// `SHA-512(lp(a) ‖ lp(b) ‖ ...)`, written without the crate's help.
fn by_hand(fields: &[&[u8]]) -> [u8; 64] {
    let mut hash = Sha512::new();
    for field in fields {
        hash.update((field.len() as u32).to_be_bytes());
        hash.update(field);
    }
    hash.finalize().into()
}

#[test]
fn each_use_hashes_its_label_and_every_field_in_order() {
    let encryption = [&[0, 0x11, 0, 1, 0, 2][..], &[6; 97]].concat();
    let expected = by_hand(&[
        b"coffer/ra-tls/v1",
        b"client",
        b"coffer-kbs/1",
        &[4; 32],
        &[5; 32],
        &[1; 32],
        &[2; 32],
        &encryption,
        &[3; 32],
    ]);
    assert_eq!(connection(&key()).report_data().as_bytes(), &expected);
    let expected = by_hand(&[b"coffer/ra-tls/cert/v1", &[1; 32], &[3; 32]]);
    assert_eq!(certificate_report_data(&OWN, &WORKLOAD).as_bytes(), &expected);
    let expected = by_hand(&[b"coffer/workload/v1", &[3; 32], b"data"]);
    assert_eq!(workload_report_data(&WORKLOAD, b"data").as_bytes(), &expected);
    let expected = by_hand(&[b"coffer/token/v1", &[8; 64], &[1; 32], b"https://a.example", b"a nonce.", &[3; 32]]);
    assert_eq!(token().report_data().as_bytes(), &expected);
}

const CONNECTION: ReportData = ReportData::new([8; 64]);

fn token() -> TokenBinding<'static> {
    TokenBinding {
        connection: &CONNECTION,
        key: &OWN,
        audience: "https://a.example",
        nonce: b"a nonce.",
        workload: &WORKLOAD,
    }
}

#[test]
fn a_token_is_for_one_connection_key_audience_nonce_and_workload() {
    let (other, workload) = (ReportData::new([9; 64]), WorkloadDigest::new([9; 32]));
    let mut all = vec![
        token().report_data(),
        TokenBinding { connection: &other, ..token() }.report_data(),
        TokenBinding { key: &PEER, ..token() }.report_data(),
        TokenBinding { audience: "https://b.example", ..token() }.report_data(),
        TokenBinding { nonce: b"", ..token() }.report_data(),
        TokenBinding { workload: &workload, ..token() }.report_data(),
    ];
    all.sort_unstable_by_key(|one| *one.as_bytes());
    all.dedup();
    assert_eq!(all.len(), 6);
}

#[test]
fn another_value_of_any_field_is_another_binding() {
    let key = key();
    let base = connection(&key);
    let (other_kem, other_kdf, other_aead, other_key) = (
        EncryptionKey { kem: 0x12, ..key.clone() },
        EncryptionKey { kdf: 2, ..key.clone() },
        EncryptionKey { aead: 3, ..key.clone() },
        EncryptionKey { public_key: vec![7; 97], ..key.clone() },
    );
    let mut all = vec![
        base.report_data(),
        ConnectionBinding { role: Role::Server, ..base.clone() }.report_data(),
        ConnectionBinding { purpose: ALPN_CONTROL, ..base.clone() }.report_data(),
        ConnectionBinding { exporter: &[9; 32], ..base.clone() }.report_data(),
        ConnectionBinding { challenge: &[9; 32], ..base.clone() }.report_data(),
        ConnectionBinding { own_spki: &PEER, ..base.clone() }.report_data(),
        ConnectionBinding { peer_spki: &OWN, ..base.clone() }.report_data(),
        ConnectionBinding { own_spki: &PEER, peer_spki: &OWN, ..base.clone() }.report_data(),
        ConnectionBinding { workload: &WorkloadDigest::new([9; 32]), ..base.clone() }.report_data(),
        certificate_report_data(&OWN, &WORKLOAD),
        certificate_report_data(&PEER, &WORKLOAD),
        certificate_report_data(&OWN, &WorkloadDigest::new([9; 32])),
        workload_report_data(&WORKLOAD, b""),
        workload_report_data(&WORKLOAD, b"data"),
        workload_report_data(&WorkloadDigest::new([9; 32]), b"data"),
    ];
    for key in [&other_kem, &other_kdf, &other_aead, &other_key] {
        all.push(ConnectionBinding { encryption_key: key, ..base.clone() }.report_data());
    }
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn no_two_lists_of_fields_join_alike() {
    assert_ne!(length_prefixed(&[b"ab", b"c"]), length_prefixed(&[b"a", b"bc"]));
    assert_ne!(length_prefixed(&[b"ab"]), length_prefixed(&[b"ab", b""]));
    assert_ne!(Role::Client.exporter_label(), Role::Server.exporter_label());
}
