//! Simulated certificates are encoded like AMD's: same fields, same order, same OIDs, same types.

use crate::vectors;
use coffer_simulator::LaunchOptions;
use coffer_verifier::abi::{ChipId, ProductLine, TcbVersion};
use std::path::Path;

use crate::common::{NOW, guest, installation, launch};

fn genuine(folder: &Path, path: &str) -> Vec<u8> {
    std::fs::read(folder.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// One line per DER element: depth, tag, and its value where it must be equal in both. Keys, signatures, dates, key ids and
/// the organisation's name are of this or that manufacturer: their type and length alone are compared.
fn skeleton(der: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut last_oid = String::new();
    walk(der, 0, &mut last_oid, &mut lines);
    lines
}

fn walk(mut der: &[u8], depth: usize, last_oid: &mut String, lines: &mut Vec<String>) {
    while !der.is_empty() {
        let tag = der[0];
        let (length, header) = match der[1] {
            short @ 0..=0x7f => (usize::from(short), 2),
            long => {
                let count = usize::from(long & 0x7f);
                (der[2..2 + count].iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), 2 + count)
            }
        };
        let (content, rest) = der[header..].split_at(length);
        let hex = || hex::encode(content);
        let value = match tag {
            0x06 => {
                *last_oid = hex();
                hex()
            }
            // OU, C, L, ST, CN, but not O; UTF-8 or printable.
            0x0c | 0x13 if last_oid != ORGANIZATION => hex(),
            0x0c => "name".to_owned(),
            0x17 => "time".to_owned(),
            0x03 if length < 8 => hex(),
            0x02 if last_oid == CRL_NUMBER => "number".to_owned(),
            0x01 | 0x02 | 0x05 | 0x16 => hex(),
            0x04 if matches!(last_oid.as_str(), HWID | SUBJECT_KEY_ID) => format!("{length} bytes"),
            0x03 | 0x80 => format!("{length} bytes"),
            // A URL: the host differs, the path does not.
            0x86 => String::from_utf8_lossy(content).rsplit("/v1/").next().unwrap().to_owned(),
            _ => String::new(),
        };
        lines.push(format!("{}{tag:02x} {value}", "  ".repeat(depth)));
        let nested = tag & 0x20 != 0 || (tag == 0x04 && value.is_empty());
        if nested {
            walk(content, depth + 1, last_oid, lines);
        }
        der = rest;
    }
}

const ORGANIZATION: &str = "55040a";
const SUBJECT_KEY_ID: &str = "551d0e";
const CRL_NUMBER: &str = "551d14";
const HWID: &str = "2b060104019c780104";

fn same(name: &str, simulated: &[u8], genuine: &[u8]) {
    let (simulated, genuine) = (skeleton(simulated), skeleton(genuine));
    assert!(genuine.len() > 50, "{name}: the walk saw the whole structure");
    for (index, (ours, theirs)) in simulated.iter().zip(&genuine).enumerate() {
        assert_eq!(ours, theirs, "{name}, element {index}");
    }
    assert_eq!(simulated.len(), genuine.len(), "{name}");
}

#[test]
fn authorities_are_encoded_like_amds() {
    let Some(amds) = vectors::folder("snp") else { return };
    for product in ProductLine::ALL {
        let name = product.name().to_lowercase();
        let ark = installation().anchor(product).unwrap().ark;
        same(&format!("{name} ARK"), ark, &genuine(&amds, &format!("anchors/{name}_ark.der")));
        let ask = installation().ask(product).unwrap();
        same(&format!("{name} ASK"), ask, &genuine(&amds, &format!("anchors/{name}_ask.der")));
        let asvk = installation().asvk(product).unwrap();
        same(&format!("{name} ASVK"), asvk, &genuine(&amds, &format!("anchors/{name}_asvk.der")));
    }
}

#[test]
fn leaves_are_encoded_like_amds() {
    let Some(amds) = vectors::folder("snp") else { return };
    let old = |bootloader, snp, microcode| TcbVersion { fmc: None, bootloader, tee: 0, snp, microcode };
    for (product, folder, tcb) in [
        (ProductLine::Milan, "milan-v3", old(4, 0x18, 0xdb)),
        (ProductLine::Genoa, "genoa-v3", old(0x0a, 0x17, 0x54)),
        (ProductLine::Turin, "turin-v5", TcbVersion { fmc: Some(1), bootloader: 1, tee: 1, snp: 4, microcode: 0x51 }),
    ] {
        let vcek = installation().issue_vcek(product, tcb, NOW).unwrap();
        same(folder, &vcek, &genuine(&amds, &format!("{folder}/vcek.der")));
    }
    let vlek = installation()
        .issue_vlek(ProductLine::Milan, "CN=cc-us-east-2.amazonaws.com", old(4, 0x18, 0xd9), NOW)
        .unwrap();
    same("milan-v3-vlek-vmpl1", &vlek, &genuine(&amds, "milan-v3-vlek-vmpl1/vlek.der"));
}

#[test]
fn revocation_lists_are_encoded_like_amds() {
    let Some(amds) = vectors::folder("snp") else { return };
    // Genoa's has an entry, AMD's first ASK of that line; the others have none.
    for product in ProductLine::ALL {
        let name = product.name().to_lowercase();
        let crl = installation().crl(product, NOW).unwrap();
        same(&format!("{name} CRL"), &crl, &genuine(&amds, &format!("anchors/{name}_vcek_crl.der")));
    }
}

#[test]
fn chips_are_named_by_eight_bytes_on_turin_and_sixty_four_elsewhere() {
    let id = |product| *installation().chip_id(product).as_bytes();
    assert!(id(ProductLine::Turin)[8..].iter().all(|byte| *byte == 0));
    assert!(id(ProductLine::Milan)[56..].iter().any(|byte| *byte != 0));
    assert_ne!(id(ProductLine::Milan), id(ProductLine::Genoa));
    assert_eq!(installation().chip_id(ProductLine::Milan), ChipId::new(id(ProductLine::Milan)));
}

#[test]
fn revocation_list_numbers_never_go_down_with_time() {
    use x509_parser::prelude::*;
    let number = |now| {
        let crl = installation().crl(ProductLine::Milan, now).unwrap();
        let (_, crl) = CertificateRevocationList::from_der(&crl).unwrap();
        crl.crl_number().unwrap().to_u64_digits().first().copied().unwrap_or(0)
    };
    assert_eq!((number(NOW), number(NOW + 1)), (11, 11));
    assert!(number(NOW + 90_000) > number(NOW));
}

#[test]
fn an_own_key_certifies_every_tcb() {
    let at = |microcode| TcbVersion { fmc: None, bootloader: 4, tee: 0, snp: 0x1b, microcode };
    let spki = |microcode| {
        use x509_parser::prelude::*;
        let der = installation().issue_vcek(ProductLine::Milan, at(microcode), NOW).unwrap();
        X509Certificate::from_der(&der).unwrap().1.public_key().raw.to_vec()
    };
    assert_ne!(spki(1), spki(2));
    assert_eq!(spki(1), spki(1));
    let other = LaunchOptions { now: NOW + 7, ..LaunchOptions::new(ProductLine::Milan, NOW) };
    assert_ne!(launch(other).endorsements().leaf, guest(ProductLine::Milan).endorsements().leaf, "issued anew");
}
