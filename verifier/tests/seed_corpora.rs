//! Writes the seeds in `fuzz/corpus`: forged evidence of our own making, small and well-formed.

mod forge;

use std::path::Path;

use coffer_verifier::{
    Evidence, EvidencePolicy, STRICT,
    abi::{CertKind, CertTable},
};
use forge::World;

#[test]
#[ignore = "writes into the repository; run it after a format changes"]
fn seeds() {
    let mut world = World::new();
    let leaf = world.leaf.encode(&world.ask_key);
    let ask = world.ask.encode(&world.root_key);
    let ark = world.root.encode(&world.root_key);
    world.list().revoked = vec![vec![2, 0, 1]];
    let crl = world.list.as_ref().unwrap().encode(&world.root_key);
    let report = world.signed_report();
    let mut version_5 = report.clone();
    version_5[0] = 5;
    let table = CertTable::write(&[
        (CertKind::Ark, &ark[..]),
        (CertKind::Ask, &ask),
        (CertKind::Vcek, &leaf),
        (CertKind::Crl, &crl),
    ]);
    let evidence = Evidence {
        report: report.clone(),
        cert_table: table.clone(),
        crls: vec![crl.clone()],
        workload_spec: b"version = \"0.1.0\"\nalgorithm = \"sha256\"\n".to_vec(),
    };
    let json = br#"{"keys":[{"kid":"HCLAkPub","kty":"RSA","e":"AQAB","n":"qQ"},{"kid":"HCLEkPub"}],"user-data":"00"}"#;
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let hcl = [
        b"HCLA".to_vec(),
        words(&[2, 2345, 2, 0, 0, 0, 0]),
        report.clone(),
        words(&[json.len() as u32 + 20, 1, 2, 1, json.len() as u32]),
        json.to_vec(),
    ]
    .concat();
    coffer_verifier::HclBlob::parse(&hcl).unwrap();
    EvidencePolicy::from_toml(STRICT).unwrap();

    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (target, name, data) in [
        ("report", "version-3", report.clone()),
        ("report", "version-5", version_5),
        ("certificate", "leaf.der", leaf),
        ("certificate", "ask.der", ask),
        ("certificate", "ark.der", ark),
        ("crl", "one-revoked.der", crl),
        ("cert_table", "chain", table),
        ("hcl", "small", hcl),
        ("cmw", "full", evidence.to_cmw()),
        ("cmw", "empty", Evidence::default().to_cmw()),
        ("policy", "strict.toml", STRICT.as_bytes().to_vec()),
        ("policy", "lists.toml", format!("measurements = [\"{}\"]\nchips = \"any\"\n", "ab".repeat(48)).into_bytes()),
    ] {
        std::fs::create_dir_all(corpus.join(target)).unwrap();
        std::fs::write(corpus.join(target).join(name), data).unwrap();
    }
}
