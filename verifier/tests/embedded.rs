//! The certificates in this crate are AMD's, byte for byte: their digests as the README lists them, each root a pinned one.

use std::path::Path;

use coffer_verifier::{Endorsements, abi::ProductLine, amd_root, chain::CertificateRole};
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
