//! The certificates in this crate are AMD's, byte for byte: their digests as the README lists them, each root a pinned one.

use std::path::Path;

use coffer_verifier::{
    CertificateIssuerError, ChainError, Endorsements, TrustAnchors, UnixTime,
    abi::ProductLine,
    amd_root,
    chain::{Certificate, CertificateRole},
    verify_certificate,
};
use sha2::{Digest as _, Sha256};

#[test]
fn every_file_has_the_digest_the_readme_states() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "README.md")
        .collect();
    assert_eq!(files.len(), 9);
    for name in files {
        let digest = hex::encode(Sha256::digest(std::fs::read(folder.join(&name)).unwrap()));
        assert!(readme.contains(&format!("| {name} | {digest} |")), "{name}: {digest}");
    }
}

#[test]
fn every_product_has_its_chain_under_the_pinned_root() {
    let all = Endorsements::amd();
    assert_eq!((all.certificates().len(), all.crls().len()), (9, 0));
    for product in ProductLine::ALL {
        let roots: Vec<_> =
            all.certificates().filter(|certificate| certificate.role() == CertificateRole::Root(product)).collect();
        assert_eq!(roots.len(), 1);
        assert_eq!(roots[0].spki_digest(), amd_root(product));
        let below = all.certificates().filter(
            |certificate| matches!(certificate.role(), CertificateRole::Intermediate(line, _) if line == product),
        );
        assert_eq!(below.count(), 2, "ASK and ASVK of {product}");
    }
}

#[test]
fn each_rests_on_the_root_of_its_product_while_its_dates_last_and_on_no_other() {
    let (now, none) = (UnixTime::parse("2026-09-20T00:00:00Z").unwrap(), Endorsements::new());
    let verify = |certificate: &Certificate, now| verify_certificate(certificate, &none, &TrustAnchors::amd(), now);
    for certificate in Endorsements::amd().certificates() {
        let (CertificateRole::Root(product) | CertificateRole::Intermediate(product, _)) = certificate.role() else {
            panic!("{}", certificate.role())
        };
        let anchor = verify(certificate, now).unwrap();
        assert_eq!((anchor.spki_sha256, anchor.product, anchor.simulated), (amd_root(product), product, false));
        for outside in ["2019-01-01T00:00:00Z", "2050-01-01T00:00:00Z"] {
            let error = verify(certificate, UnixTime::parse(outside).unwrap()).unwrap_err();
            assert!(matches!(error, CertificateIssuerError::Chain(ChainError::Dates { .. })), "{error}");
        }
        // The last byte is of the signature.
        let mut bent = certificate.der().to_vec();
        *bent.last_mut().unwrap() ^= 1;
        let mut given = Endorsements::new();
        given.add_certificates(&bent).unwrap();
        let error = verify(given.certificates().next().unwrap(), now).unwrap_err();
        assert!(matches!(error, CertificateIssuerError::Chain(ChainError::Signature { .. })), "{error}");
    }
}
