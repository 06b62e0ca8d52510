use super::*;
use crate::{Image, Process, Root, SecretTarget, SecretWanted, VerityTable};

pub fn sample() -> WorkloadSpec {
    WorkloadSpec {
        version: 1,
        tenant: "default".into(),
        tee: Tee::Simulated,
        host_may: vec![crate::HostMay::Stop, crate::HostMay::Stats],
        inject: vec!["token".into()],
        image: Image { reference: "registry.test/app:1".into(), config_digest: "sha256:00".into() },
        root: Root {
            verity: VerityTable {
                algorithm: "sha256".into(),
                block_size: 4096,
                data_blocks: 10,
                hash_start: 11,
                salt: String::new(),
                root_hash: "ab".repeat(32),
            },
            scratch_bytes: 1 << 20,
        },
        process: Process {
            argv: vec!["/bin/true".into()],
            env: vec!["PATH=/bin".into()],
            cwd: "/".into(),
            user: "0:0".into(),
            stop_signal: 15,
            hostname: "box".into(),
        },
        kbs: Some(crate::KbsPin {
            address: "127.0.0.1:4443".into(),
            spki: vec![coffer_verifier::abi::SpkiDigest::new([7; 32])],
        }),
        secrets: vec![SecretWanted { from: "kbs:///default/app/key".into(), to: SecretTarget::File("key".into()) }],
        owners: vec![crate::Owner {
            key: coffer_verifier::abi::SpkiDigest::new([9; 32]),
            may: vec![crate::Capability::Inject],
        }],
        mounts: vec![],
        audiences: vec![],
        floors: crate::Floors::default(),
    }
}

#[test]
fn parses_what_it_writes() {
    let document = Document::write(&sample()).unwrap();
    let again = Document::parse(document.bytes().to_vec()).unwrap();
    assert_eq!(again, document);
    assert_eq!(again.digest(), WorkloadDigest::of(document.bytes()));
}

#[test]
fn refuses_unknown_keys_and_versions() {
    let document = Document::write(&sample()).unwrap();
    let text = String::from_utf8(document.bytes().to_vec()).unwrap();
    for (from, to) in [
        ("version = \"0.1.0\"", "version = \"0.2.0\""),
        ("algorithm = \"sha256\"", "algorithm = \"sha384\""),
        ("version = 1\n", "version = 2\n"),
        ("tenant = ", "surprise = 1\ntenant = "),
        ("tee = \"simulated\"", "tee = \"pretend\""),
    ] {
        assert!(text.contains(from), "{from}");
        assert!(Document::parse(text.replacen(from, to, 1).into_bytes()).is_err(), "{to}");
    }
}

#[test]
fn refuses_secrets_without_a_tee_or_a_broker() {
    let mut spec = sample();
    spec.tee = Tee::None;
    assert!(matches!(Document::write(&spec), Err(SpecError::Field { field: "tee", .. })));
    let mut spec = sample();
    spec.kbs = None;
    assert!(matches!(Document::write(&spec), Err(SpecError::Field { field: "kbs", .. })));
}

#[test]
fn refuses_names_that_leave_their_folder() {
    for name in ["../x", "", ".x", "a/b", "-x"] {
        let mut spec = sample();
        spec.secrets[0].to = SecretTarget::File(name.into());
        assert!(Document::write(&spec).is_err(), "{name:?}");
        let mut spec = sample();
        spec.inject = vec![name.into()];
        assert!(Document::write(&spec).is_err(), "{name:?}");
    }
}
