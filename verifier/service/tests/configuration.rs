//! Configuration: every mistake at once, and what is dangerous has a name that one trips over.

use std::os::unix::fs::PermissionsExt as _;

use coffer_verifier::UnixTime;
use coffer_verifier_service::{ConfigError, ConfigFile, KeyEntry, PolicyEntry, TlsEntry};

use crate::common::{config, lab, roots};

fn mistakes(change: impl FnOnce(&mut ConfigFile)) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let (mut file, _) = config(folder.path());
    change(&mut file);
    match file.resolve(folder.path()) {
        Ok(_) => Vec::new(),
        Err(ConfigError::Mistakes(all)) => all,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn every_mistake_is_named_at_once() {
    let found = mistakes(|file| {
        file.listen = "0.0.0.0:1".into();
        file.challenge_key = "none".into();
        file.issuer = Some("http://a".into());
        file.endorsements = vec!["gate.rego".into()];
        file.api_keys.push(KeyEntry { name: "a b".into(), sha256: "00".repeat(32) });
        let of_nothing = hex::encode(<sha2::Sha256 as sha2::Digest>::digest([]));
        file.api_keys.push(KeyEntry { name: "unset".into(), sha256: of_nothing });
        file.limits.requests = 0;
        for name in ["strict", "Strict", "default-floor", "azure-cvm", "lab+snp"] {
            file.policies.insert(name.into(), PolicyEntry::default());
        }
        let bad = PolicyEntry {
            floor: Some("stict".into()),
            rego: Some("challenge.key".into()),
            simulated_evidence_is_believed_of: vec![roots()[0].clone(), roots()[0].clone(), "ab".into()],
            ..PolicyEntry::default()
        };
        file.policies.insert("bad".into(), bad);
        file.default_policy = Some("nosuch".into());
        let unkeyed = PolicyEntry { bundle_key: Some("none.pem".into()), ..PolicyEntry::default() };
        file.policies.insert("unkeyed".into(), PolicyEntry { rego: Some("none.rego".into()), ..unkeyed });
    });
    for (field, word) in [
        ("plain_http_for_this_machine_alone: ", "loopback"),
        ("challenge_key (none): ", "No such file"),
        ("issuer: ", "https://HOST"),
        ("endorsements (gate.rego): ", "a text where a certificate or a list is due"),
        ("api_keys[1].name ", "without spaces"),
        ("api_keys[1].sha256: ", "64 hexadecimal digits"),
        ("api_keys[2].sha256 ", "is that of nothing"),
        ("limits.requests is 0", "1 to 10000"),
        ("policies.strict ", "call it otherwise"),
        ("policies.Strict ", "call it otherwise"),
        ("policies.default-floor ", "call it otherwise"),
        ("policies.azure-cvm ", "call it otherwise"),
        ("policies.lab+snp ", "call it otherwise"),
        ("policies.bad.floor (stict): ", "are words"),
        ("policies.bad.rego (challenge.key): ", "does not parse"),
        ("policies.bad.simulated_evidence_is_believed_of[1]: ", "stands twice"),
        ("policies.bad.simulated_evidence_is_believed_of[2]: ", "ab"),
        ("policies.unkeyed.bundle_key (none.pem): ", "No such file"),
        ("policies.unkeyed.rego (none.rego): ", "No such file"),
        ("default_policy: ", "no policy is called nosuch"),
    ] {
        let named = |one: &&String| one.starts_with(field) && (one.contains(word) || word == "ab");
        assert_eq!(found.iter().filter(named).count(), 1, "{field}{word}: {found:#?}");
    }
    assert_eq!(found.len(), 20, "{found:#?}");
}

#[test]
fn nobody_is_let_in_by_something_that_was_left_out() {
    let one = |change: fn(&mut ConfigFile), word: &str| {
        let found = mistakes(change);
        assert!(found.len() == 1 && found[0].contains(word), "{word}: {found:?}");
    };
    one(|file| file.api_keys.clear(), "nobody may ask");
    one(|file| file.anyone_who_connects_may_ask = true, "stands beside api_keys");
    one(|file| file.plain_http_for_this_machine_alone = false, "tls is missing");
    one(|file| file.listen = "192.0.2.1:4490".into(), "no address of the loopback");
    one(|file| file.token_keys = None, "without token_keys");
    one(|file| file.issuer = None, "without issuer");
    one(|file| file.default_policy = Some("none".into()), "no policy is called none");
    assert!(
        mistakes(|file| {
            file.api_keys.clear();
            file.anyone_who_connects_may_ask = true;
        })
        .is_empty()
    );
    assert!(mistakes(|_| {}).is_empty());
}

#[test]
fn what_is_empty_is_no_file_and_a_digest_is_one_in_either_case() {
    let found = mistakes(|file| {
        let empty = PolicyEntry { rego: Some("".into()), floor: Some(String::new()), ..PolicyEntry::default() };
        file.policies.insert("empty".into(), empty);
        let again = file.api_keys[0].sha256.to_uppercase();
        file.api_keys.push(KeyEntry { name: "second".into(), sha256: again });
    });
    for words in ["policies.empty.rego is empty", "policies.empty.floor is empty", "api_keys[1] has a name or a digest"]
    {
        assert!(found.iter().any(|one| one.contains(words)), "{words}: {found:?}");
    }
}

#[test]
fn amds_own_root_is_none_of_a_simulators() {
    let amd = coffer_verifier::amd_root(coffer_verifier::abi::ProductLine::Milan).to_string();
    let found = mistakes(|file| {
        let listed = vec![amd, "00".repeat(32)];
        file.policies
            .insert("a".into(), PolicyEntry { simulated_evidence_is_believed_of: listed, ..PolicyEntry::default() });
    });
    assert!(found[0].contains("AMD's own root") && found[1].contains("zero digest") && found.len() == 2, "{found:?}");
}

#[test]
fn a_secret_that_others_may_read_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let (file, _) = config(folder.path());
    for name in ["challenge.key", "tokens.json"] {
        let path = folder.path().join(name);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = file.resolve(folder.path()).err().unwrap().to_string();
        assert!(error.contains("others may read") && error.contains("chmod 600"), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    assert!(file.resolve(folder.path()).is_ok());
}

#[test]
fn a_tls_identity_is_whole_or_named() {
    let tls = |file: &mut ConfigFile| {
        file.plain_http_for_this_machine_alone = false;
        file.tls = Some(TlsEntry {
            certificate: "gate.rego".into(),
            key: "challenge.key".into(),
            client_roots: Some("tokens.json".into()),
        });
    };
    let found = mistakes(tls);
    for (field, word) in
        [("tls.certificate", "no certificates"), ("tls.key", "no private key"), ("tls.client_roots", "no certificates")]
    {
        assert!(found.iter().any(|one| one.starts_with(field) && one.contains(word)), "{field}: {found:?}");
    }
    assert_eq!(found.len(), 3);
}

#[test]
fn a_key_of_another_certificate_is_told_to_be_that() {
    let folder = tempfile::tempdir().unwrap();
    let (mut file, _) = config(folder.path());
    let [one, other] = [0, 1].map(|_| rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap());
    std::fs::write(folder.path().join("one.pem"), one.cert.pem()).unwrap();
    let key = folder.path().join("other.key");
    std::fs::write(&key, other.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    file.plain_http_for_this_machine_alone = false;
    file.tls = Some(TlsEntry { certificate: "one.pem".into(), key: "other.key".into(), client_roots: None });
    let Err(ConfigError::Mistakes(found)) = file.resolve(folder.path()) else { panic!("it was taken") };
    assert_eq!(found, ["tls.key (other.key): it is not the key of the certificate in tls.certificate"]);
}

/// The generator of P-384: a key that signed nothing here.
const KEY: &str = "04aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e3872760ab7\
                   3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5f";

#[test]
fn rego_is_a_file_a_folder_or_a_bundle_and_a_key_demands_a_signature() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (file, _) = config(folder.path());
    for name in ["team/below", "empty", "yaml", "ruled/gate"] {
        std::fs::create_dir_all(at(name)).unwrap();
    }
    // Data beside the texts is part of the policy.
    for (name, data, text) in [("yaml", "data.yaml", "a: 1"), ("ruled", "gate/data.json", r#"{"allow": true}"#)] {
        std::fs::copy(at("gate.rego"), at(name).join("gate.rego")).unwrap();
        std::fs::write(at(name).join(data), text).unwrap();
    }
    std::fs::copy(at("gate.rego"), at("team/gate.rego")).unwrap();
    let helper = "package gate_test\nimport data.gate\ntest_a if gate.allow with input as {}\n";
    std::fs::write(at("team/below/gate_test.rego"), helper).unwrap();
    std::fs::write(at("bytes"), [0xff, 0xfe]).unwrap();
    // Nothing reaches it: it is named all the same.
    std::fs::write(at("sends.rego"), "package p\n\nallow if {\n\tinput.result\n\tfalse\n\thttp.send({}).x\n}\n")
        .unwrap();
    let mut packed = std::process::Command::new("tar");
    packed.args(["czf", "team.tar.gz", "-C", "team", "."]).current_dir(folder.path());
    assert!(packed.status().unwrap().success());
    let key = coffer_verifier::P384PublicKey::from_sec1(&hex::decode(KEY).unwrap()).unwrap();
    std::fs::write(at("key.pem"), key.to_pem()).unwrap();
    let resolved = |rego: Option<&str>, bundle_key: Option<&str>| {
        let mut file = file.clone();
        let entry = PolicyEntry { rego: rego.map(Into::into), bundle_key: bundle_key.map(Into::into), ..lab() };
        file.policies.insert("team".into(), entry);
        match file.resolve(folder.path()) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    };
    for good in ["gate.rego", "team", "team.tar.gz"] {
        assert_eq!(resolved(Some(good), None), "", "{good}");
    }
    for (rego, key, words) in [
        (Some("none"), None, "policies.team.rego (none): "),
        (Some("sends.rego"), None, "policy team, line 6, column 5: http.send is not available to policies"),
        (Some("empty"), None, "no .rego file is there"),
        (Some("yaml"), None, "data.yaml: is not read: data stands in data.json"),
        (Some("ruled"), None, "it gives a value to rule allow"),
        (Some("bytes"), None, "neither text nor a bundle"),
        (Some("team.tar.gz"), Some("key.pem"), "it has no .signatures.json, and a key is given"),
        (Some("team.tar.gz"), Some("none"), "bundle_key (none): "),
        (Some("team.tar.gz"), Some("gate.rego"), "bundle_key (gate.rego): no PEM block"),
        (Some("gate.rego"), Some("key.pem"), "it is no bundle, and bundle_key demands one"),
        (Some("team"), Some("key.pem"), "it is no bundle, and bundle_key demands one"),
        (None, Some("key.pem"), "policies.team.bundle_key: there is no rego"),
    ] {
        let said = resolved(rego, key);
        assert!(said.contains(words), "{rego:?} {key:?}: {said}");
    }
    // An age of Rego is asked of a bundle's signature: one without a date, or no bundle, would refuse everybody for ever.
    std::fs::write(at("week.toml"), "measurements = \"any\"\nmax_policy_age = \"7d\"\n").unwrap();
    let pair =
        aws_lc_rs::signature::EcdsaKeyPair::generate(&aws_lc_rs::signature::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let public = aws_lc_rs::signature::KeyPair::public_key(&pair).as_ref().to_vec();
    let public = coffer_verifier::P384PublicKey::from_sec1(&public).unwrap();
    std::fs::write(at("signer.pem"), public.to_pem()).unwrap();
    let unsigned = std::fs::read(at("team.tar.gz")).unwrap();
    let next =
        coffer_policies::Endorsement::new("team", &unsigned, &public, coffer_verifier::UnixTime(1_000), None).unwrap();
    let signature = pair.sign(&aws_lc_rs::rand::SystemRandom::new(), next.signing_input()).unwrap();
    let signed = next.with_signature(signature.as_ref().try_into().unwrap()).unwrap();
    std::fs::write(at("signed.tar.gz"), signed).unwrap();
    for (rego, key, expected) in [
        (Some("signed.tar.gz"), Some("signer.pem"), ""),
        (Some("team.tar.gz"), None, "policies.team: max_policy_age asks for a rego that is a bundle signed"),
        (Some("gate.rego"), None, "policies.team: max_policy_age asks for"),
        (None, None, "policies.team: max_policy_age asks for"),
    ] {
        let mut file = file.clone();
        let entry = PolicyEntry {
            floor: Some("week.toml".into()),
            rego: rego.map(Into::into),
            bundle_key: key.map(Into::into),
            ..lab()
        };
        file.policies.insert("team".into(), entry);
        let said = file.resolve(folder.path()).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{rego:?}: {said}");
    }
    // Rego is no floor: it goes behind one.
    for floor in ["snp", "gate.rego"] {
        let mut file = file.clone();
        file.policies.insert("team".into(), PolicyEntry { floor: Some(floor.into()), ..lab() });
        let said = file.resolve(folder.path()).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(said.contains(&format!("policies.team.floor ({floor}) is Rego")) && said.contains("as rego"), "{said}");
    }
    // An age of manifests that nobody could ask is no floor.
    std::fs::write(at("floor.toml"), "measurements = \"any\"\nmax_manifest_age = \"7d\"\n").unwrap();
    let entry = PolicyEntry { floor: Some("floor.toml".into()), ..lab() };
    let found = mistakes(|file| {
        let floor = at("floor.toml").to_str().unwrap().to_owned();
        file.policies.insert("team".into(), PolicyEntry { floor: Some(floor), ..entry });
    });
    assert!(found.len() == 1 && found[0].contains("max_manifest_age is not asked here"), "{found:?}");
    // Each mistake of a floor in a line of its own, with its place.
    std::fs::write(at("floor.toml"), "measurements = [\"ab\"]\nfoo = 1\n").unwrap();
    let found = mistakes(|file| {
        let floor = at("floor.toml").to_str().unwrap().to_owned();
        file.policies.insert("team".into(), PolicyEntry { floor: Some(floor), ..lab() });
    });
    let places = [":1:17): ", ":2:1): "];
    assert!(found.len() == 2 && found.iter().zip(places).all(|(one, place)| one.contains(place)), "{found:#?}");
    assert!(found.iter().all(|one| !one.contains('\n') && !one.contains("are words")), "{found:#?}");
}

#[test]
fn what_can_be_used_and_nobody_will_have_meant_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let (mut file, _) = config(folder.path());
    let (now, later) = (UnixTime(1_789_862_400), UnixTime(9_000_000_000));
    assert_eq!(file.resolve(folder.path()).unwrap().warnings(now), [""; 0]);
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("typo.rego", b"package typo\n\nallow if input.result.claims.produkt == \"Milan\"\n");
    write("any.toml", b"measurements = \"any\"\n");
    let any = PolicyEntry { floor: Some("any.toml".into()), rego: Some("typo.rego".into()), ..PolicyEntry::default() };
    file.policies.insert("any".into(), any);
    write("ark.der", include_bytes!("../../data/milan_ark.der"));
    file.endorsements.push("ark.der".into());
    let key = rcgen::KeyPair::generate().unwrap();
    let mut certificate = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    certificate.not_after = rcgen::date_time_ymd(2026, 1, 1);
    write("own.pem", certificate.self_signed(&key).unwrap().pem().as_bytes());
    write("own.key", key.serialize_pem().as_bytes());
    std::fs::set_permissions(folder.path().join("own.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    file.plain_http_for_this_machine_alone = false;
    file.tls = Some(TlsEntry { certificate: "own.pem".into(), key: "own.key".into(), client_roots: None });
    let resolved = file.resolve(folder.path()).unwrap();
    let found = resolved.warnings(now).join("\n");
    for words in
        ["policies.any.floor (any.toml:1:1: any-guest", "typo.rego:3:", "unknown-field", "tls.certificate is over"]
    {
        assert!(found.contains(words), "{words}: {found}");
    }
    assert!(!found.contains("endorsements"), "{found}");
    assert!(resolved.warnings(later).iter().any(|one| one.starts_with("endorsements: a certificate")));
}

#[test]
fn a_word_of_a_command_line_and_a_name_that_is_none_are_told_as_that() {
    let found = mistakes(|file| {
        file.policies.insert("a".into(), PolicyEntry { rego: Some("azure-cvm".into()), ..PolicyEntry::default() });
        file.policies.insert("a b".into(), PolicyEntry::default());
    });
    assert!(found[0].contains("coffer policy show azure-cvm > azure-cvm.rego"), "{found:?}");
    assert!(found[1].contains("no name of a policy: expected 1 to 256 printable"), "{found:?}");
}
