//! What the signature covers and what it does not, on genuine reports; a second library agrees.

use crate::vectors;
use crate::vectors::{Genuine, NOW, at, read, root};
use coffer_verifier::{ExpectedReportData, TrustAnchors, VerifiedChain, abi::Report};
use p384::ecdsa::{Signature, VerifyingKey, signature::Verifier as _};

/// Order of P-384, big-endian. Source: FIPS 186-4, D.1.2.4.
const N: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973";
const R: usize = 0x2a0;
const S: usize = 0x2e8;

fn milan() -> (Vec<u8>, VerifiedChain) {
    let Genuine { report, endorsements, crl, .. } = vectors::milan();
    let parsed = Report::parse(&report).unwrap();
    let chain = VerifiedChain::verify(&parsed, &endorsements, &TrustAnchors::amd(), &crl, at(NOW)).unwrap();
    (report, chain)
}

fn accepted(chain: &VerifiedChain, report: &[u8]) -> bool {
    chain.verify_report(report, &ExpectedReportData::Any, at(NOW)).is_ok()
}

#[test]
fn every_bit_of_the_report_counts() {
    let (report, chain) = milan();
    assert!(accepted(&chain, &report));
    for bit in 0..report.len() * 8 {
        let mut flipped = report.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(!accepted(&chain, &flipped), "byte {:#x} bit {}", bit / 8, bit % 8);
    }
}

#[test]
fn r_and_s_are_little_endian_in_their_order_and_range() {
    let (report, chain) = milan();
    let with = |r: &[u8], s: &[u8]| {
        let mut changed = report.clone();
        changed[R..R + 48].copy_from_slice(r);
        changed[S..S + 48].copy_from_slice(s);
        accepted(&chain, &changed)
    };
    let (r, s) = (&report[R..R + 48], &report[S..S + 48]);
    let reversed = |bytes: &[u8]| bytes.iter().rev().copied().collect::<Vec<_>>();
    let order = reversed(&hex::decode(N).unwrap());
    let (zero, ones) = ([0; 48], [0xff; 48]);
    assert!(with(r, s));
    assert!(!with(s, r), "swapped");
    assert!(!with(&reversed(r), &reversed(s)), "big-endian");
    for bad in [&zero[..], &order, &ones] {
        assert!(!with(bad, s) && !with(r, bad), "0, n and beyond");
    }
}

/// ECDSA is malleable: (r, n-s) verifies wherever (r, s) does. Hence no hash of a report is an identity.
#[test]
fn the_other_s_verifies_too_so_a_report_hash_is_no_identity() {
    let (report, chain) = milan();
    let order: Vec<u8> = hex::decode(N).unwrap().into_iter().rev().collect();
    let mut other = report.clone();
    let mut borrow = 0;
    for i in 0..48 {
        let difference = i32::from(order[i]) - i32::from(report[S + i]) - borrow;
        borrow = i32::from(difference < 0);
        other[S + i] = difference.rem_euclid(256) as u8;
    }
    assert_ne!(other, report);
    assert!(accepted(&chain, &other));
}

#[test]
fn a_second_library_agrees_on_every_genuine_report() {
    let Some(root) = root() else { return };
    let mut seen = 0;
    for entry in std::fs::read_dir(&root).unwrap() {
        let folder = entry.unwrap().path();
        let leaf = ["vcek.der", "vlek.der"].into_iter().find(|name| folder.join(name).is_file());
        let (Some(leaf), true) = (leaf, folder.join("report.bin").is_file()) else { continue };
        let report = read(&folder, "report.bin");
        let der = read(&folder, leaf);
        // The point is the last 97 bytes of the only P-384 SubjectPublicKeyInfo.
        let head = hex::decode("301006072a8648ce3d020106052b8104002203620004").unwrap();
        let start = der.windows(head.len()).position(|window| window == head).unwrap() + head.len() - 1;
        let key = VerifyingKey::from_sec1_bytes(&der[start..start + 97]).unwrap();
        let number = |at: usize| {
            let mut bytes: [u8; 48] = report[at..at + 48].try_into().unwrap();
            bytes.reverse();
            bytes
        };
        let signature = Signature::from_scalars(number(R), number(S)).unwrap();
        let foreign = folder.ends_with("neg-milan-v2-foreign-vcek");
        assert_eq!(key.verify(&report[..0x2a0], &signature).is_ok(), !foreign, "{}", folder.display());
        seen += 1;
    }
    assert!(seen >= 13, "{seen}");
}
