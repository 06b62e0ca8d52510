//! Writes the seeds in `fuzz/corpus`: forged evidence of our own making, small and well-formed.

use std::path::Path;

use crate::forge::World;
use coffer_verifier::{
    Evidence, EvidencePolicy, P384PublicKey, STRICT, UnixTime,
    abi::{CertKind, CertTable, FamilyId, ImageId, Measurement, WorkloadDigest},
    manifest::{Component, Contents, MeasuredLaunch, ReferenceManifest, SignedManifest},
    measure::{IdAuth, IdBlock, LaunchForm, Signed},
};

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
        words(&[2, json.len() as u32 + 1236, 2, 0, 0, 0, 0]),
        report.clone(),
        words(&[json.len() as u32 + 20, 1, 2, 1, json.len() as u32]),
        json.to_vec(),
    ]
    .concat();
    coffer_verifier::HclBlob::parse(&hcl).unwrap();
    EvidencePolicy::from_toml(STRICT).unwrap();

    let manifest = ReferenceManifest::new(Contents {
        name: "web".into(),
        sequence: 1,
        release: None,
        created: UnixTime(1_000),
        expires: UnixTime(2_000),
        components: vec![Component { name: "kernel".into(), sha256: [1; 32] }],
        workload: WorkloadDigest::new([2; 32]),
        measurements: vec![MeasuredLaunch {
            launch: LaunchForm::LongMode,
            vcpus: 1,
            vcpu_type: "EPYC-Milan".into(),
            measurement: Measurement::new([3; 48]),
        }],
    });
    let manifest = manifest.unwrap();
    // The curve's base point: a key whose private number everybody knows.
    let key = P384PublicKey::from_point(BASE_X, BASE_Y).unwrap();
    let envelope = SignedManifest::of(&manifest).with_signature(&key, [5; 96]);
    let block = IdBlock {
        measurement: Measurement::new([3; 48]),
        family_id: FamilyId::new(*b"family----------"),
        image_id: ImageId::new(*b"image-----------"),
        guest_svn: 7,
        policy: 0x3_0000,
    };
    let auth = IdAuth::new(Signed { key: &key, signature: &[5; 96] }, None).unwrap();

    let (token, keys) = crate::ear::seeds();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (target, name, data) in [
        ("report", "version-3", report.clone()),
        ("report", "version-5", version_5),
        ("certificate", "leaf.der", leaf),
        ("certificate", "ask.der", ask),
        ("certificate", "ark.der", ark),
        ("crl", "one-revoked.der", crl),
        ("cert_table", "chain", table.clone()),
        ("hcl", "small", hcl),
        ("cmw", "full", evidence.to_cmw()),
        ("cmw", "empty", Evidence::default().to_cmw()),
        ("tsm", "report.json", tsm_json(&report, &table)),
        ("tsm", "report.cbor", tsm_cbor(&report, &table)),
        ("policy", "strict.toml", STRICT.as_bytes().to_vec()),
        ("manifest", "envelope.json", envelope.to_json().into_bytes()),
        ("manifest", "payload.json", manifest.to_bytes()),
        ("id_block", "block-and-auth", [block.to_bytes().as_slice(), auth.as_bytes()].concat()),
        ("token", "simulated.jwt", token.into_bytes()),
        ("token", "keys.json", keys.into_bytes()),
        ("policy", "lists.toml", format!("measurements = [\"{}\"]\nchips = \"any\"\n", "ab".repeat(48)).into_bytes()),
    ] {
        std::fs::create_dir_all(corpus.join(target)).unwrap();
        std::fs::write(corpus.join(target).join(name), data).unwrap();
    }
}

fn tsm_json(report: &[u8], table: &[u8]) -> Vec<u8> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let (aux, out) = (STANDARD.encode(table), STANDARD.encode(report));
    format!(r#"{{"auxblob":"{aux}","outblob":"{out}","provider":"sev_guest","service":{{}}}}"#).into_bytes()
}

/// Both blobs have lengths of two bytes.
fn tsm_cbor(report: &[u8], table: &[u8]) -> Vec<u8> {
    let text = |word: &str| [&[0x60 | word.len() as u8], word.as_bytes()].concat();
    let blob = |bytes: &[u8]| [&[0x59], &(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    [vec![0xa3], text("auxblob"), blob(table), text("outblob"), blob(report), text("provider"), text("sev_guest")]
        .concat()
}

const BASE_X: [u8; 48] = [
    0xaa, 0x87, 0xca, 0x22, 0xbe, 0x8b, 0x05, 0x37, 0x8e, 0xb1, 0xc7, 0x1e, 0xf3, 0x20, 0xad, 0x74, 0x6e, 0x1d, 0x3b,
    0x62, 0x8b, 0xa7, 0x9b, 0x98, 0x59, 0xf7, 0x41, 0xe0, 0x82, 0x54, 0x2a, 0x38, 0x55, 0x02, 0xf2, 0x5d, 0xbf, 0x55,
    0x29, 0x6c, 0x3a, 0x54, 0x5e, 0x38, 0x72, 0x76, 0x0a, 0xb7,
];
const BASE_Y: [u8; 48] = [
    0x36, 0x17, 0xde, 0x4a, 0x96, 0x26, 0x2c, 0x6f, 0x5d, 0x9e, 0x98, 0xbf, 0x92, 0x92, 0xdc, 0x29, 0xf8, 0xf4, 0x1d,
    0xbd, 0x28, 0x9a, 0x14, 0x7c, 0xe9, 0xda, 0x31, 0x13, 0xb5, 0xf0, 0xb8, 0xc0, 0x0a, 0x60, 0xb1, 0xce, 0x1d, 0x7e,
    0x81, 0x9d, 0x7a, 0x43, 0x1d, 0x7c, 0x90, 0xea, 0x0e, 0x5f,
];
