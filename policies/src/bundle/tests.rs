use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
        KeyPair as _,
    },
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use coffer_verifier::P384PublicKey;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::*;

const POLICY: &str = "package team\nallow if input.x in data.team.listed\n";
const MANIFEST_TEXT: &str = r#"{"revision": "r7", "roots": ["team", "team_test"]}"#;

type Files<'a> = Vec<(&'a str, Vec<u8>)>;

fn good() -> Files<'static> {
    vec![
        ("/.manifest", MANIFEST_TEXT.into()),
        ("/data.json", br#"{"team": {"listed": ["a"]}}"#.to_vec()),
        ("team/policy.rego", POLICY.into()),
        (
            "./team/policy_test.rego",
            b"package team_test\ntest_a if data.team.allow with input as {\"x\": \"a\"}\n".to_vec(),
        ),
    ]
}

/// With the tests' own package below a root, too.
fn tar(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        // Slashes in front and dots are written as others write them.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, &bytes[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn packed(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    gzip(&tar(files))
}

fn read(files: &[(&str, Vec<u8>)]) -> Result<Bundle, BundleError> {
    Bundle::read("b.tar.gz", &packed(files), BundleTrust::Unsigned)
}

/// The same with one file put in place of another, or beside them.
fn with<'a>(path: &'a str, bytes: &[u8]) -> Files<'a> {
    let mut files = good();
    files.retain(|(name, _)| name.trim_start_matches(['.', '/']) != path.trim_start_matches(['.', '/']));
    files.push((path, bytes.to_vec()));
    files
}

fn why(error: &BundleError) -> String {
    use std::error::Error as _;
    format!("{error}: {}", error.source().map(ToString::to_string).unwrap_or_default())
}

fn roots(text: &str) -> String {
    format!(r#"{{"roots": {text}}}"#)
}

#[test]
fn a_bundle_is_a_policy_with_its_data_and_revision() {
    let mut files = good();
    files[0].1 =
        br#"{"revision": "r7", "roots": ["team", "team_test"], "rego_version": 1, "metadata": {"x": 1}}"#.to_vec();
    let bundle = read(&files).unwrap();
    assert_eq!((bundle.revision(), bundle.name(), bundle.files().len()), ("r7", "b.tar.gz", 2));
    let policy = bundle.policy().unwrap();
    assert!(policy.decide(&json!({"x": "a"})).allows() && !policy.decide(&json!({"x": "b"})).allows());
    assert_eq!(policy.digest(), bundle.digest());
    let outcomes = crate::rego_test::run_all("b", bundle.files(), bundle.data()).unwrap();
    assert!(outcomes.len() == 1 && outcomes[0].passed && outcomes[0].file == "b.tar.gz/team/policy_test.rego");
    let error = read(&with("team/policy.rego", b"package team\n\nallow if {\n")).map(|b| b.policy().map(|_| ()));
    // A text that does not parse has no package to hold against the roots: the policy says where.
    let Ok(Err(error)) = error else { panic!("{error:?}") };
    assert_eq!(error.place().0, "b.tar.gz/team/policy.rego");
    assert!(error.place().1.is_some_and(|(line, _)| line >= 3), "{error}");
}

#[test]
fn what_a_bundle_may_not_have_is_refused_by_name() {
    let entry = |path: &'static str, bytes: &[u8]| (with(path, bytes), path.trim_start_matches('/').to_owned());
    let long_data = format!(r#"{{"team": {{"x": "{}"}}}}"#, "y".repeat(UNPACKED_LIMIT));
    for (files, named) in [
        entry("policy.wasm", b"\0asm"),
        entry("data.yaml", b"a: 1"),
        entry("README", b"words"),
        entry("../x.rego", POLICY.as_bytes()),
        entry("a//x.rego", POLICY.as_bytes()),
        entry("a/./x.rego", POLICY.as_bytes()),
        entry("other.rego", b"package other\nx := 1"),
        entry("team/bad.rego", &[0x70, 0xff]),
        entry("data.json", br#"{"other": 1}"#),
        entry("data.json", br#"{"team": {"a": 1, "a": 2}}"#),
        entry("data.json", br#"{"team": "#),
        entry("team/data.json", b"[1]"),
        entry("team/data.json", br#"{"listed": 1}"#),
        entry("/.manifest", br#"{"roots": ["team"], "what": 1}"#),
        entry("/.manifest", br#"{"roots": ["team"], "rego_version": 0}"#),
        entry("/.manifest", br#"{"roots": ["team"], "file_rego_versions": {"/a.rego": 0}}"#),
        entry("/.manifest", br#"{"roots": ["team"], "wasm": [{}]}"#),
        entry("/.manifest", br#"{"roots": ["team"], "revision": "a\u001b"}"#),
        entry("/.manifest", roots(r#"["team", "team/a"]"#).as_bytes()),
        entry("/.manifest", roots(r#"["tea"]"#).as_bytes()),
        entry("/.manifest", roots("[]").as_bytes()),
    ] {
        let error = read(&files).map(|_| ()).unwrap_err();
        let said = why(&error);
        let is_of_roots = named == ".manifest" && (said.contains("data.json") || said.contains("policy"));
        assert!(said.contains(&named) || is_of_roots, "{named}: {said}");
        assert!(!error.hint().is_empty());
    }
    let mut twice = good();
    twice.push(("team/policy.rego", POLICY.into()));
    assert!(why(&read(&twice).map(|_| ()).unwrap_err()).contains("team/policy.rego: is there twice"));
    let long = Bundle::read("b", &packed(&with("data.json", long_data.as_bytes())), BundleTrust::Unsigned);
    assert!(why(&long.map(|_| ()).unwrap_err()).contains("unpacked"));
    let many: Files<'_> = (0..=BUNDLE_FILES).map(|_| ("x.rego", b"package team".to_vec())).collect();
    assert!(read(&many).is_err());
}

#[test]
fn what_is_no_bundle_is_refused_and_a_damaged_one_is_never_half_read() {
    let bytes = packed(&good());
    for bad in [
        &b""[..],
        b"\x1f\x8b",
        b"package team\nallow := true\n",
        &gzip(b""),
        &gzip(&[0; 1024]),
        &gzip(b"no tar at all"),
    ] {
        assert!(Bundle::read("b", bad, BundleTrust::Unsigned).is_err(), "{bad:?}");
    }
    for cut in 0..bytes.len() {
        assert!(Bundle::read("b", &bytes[..cut], BundleTrust::Unsigned).is_err(), "{cut}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(why(&Bundle::read("b", &longer, BundleTrust::Unsigned).map(|_| ()).unwrap_err()).contains("behind"));
    // A second archive behind the end of the first, which GNU tar reads with `--ignore-zeros`.
    let second = [tar(&good()), tar(&with("team/more.rego", b"package team\ndeny contains 1"))].concat();
    let said = why(&Bundle::read("b", &gzip(&second), BundleTrust::Unsigned).map(|_| ()).unwrap_err());
    assert!(said.contains("bytes behind its end"), "{said}");
    let padded = [tar(&good()), vec![0; 8192]].concat();
    assert!(Bundle::read("b", &gzip(&padded), BundleTrust::Unsigned).is_ok(), "records of zeros are its end");
    let too_long = vec![0x1f; BUNDLE_LIMIT + 1];
    assert!(matches!(Bundle::read("b", &too_long, BundleTrust::Unsigned), Err(BundleError::TooLong { .. })));
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    header.set_path("team/policy.rego").unwrap();
    header.set_link_name("/etc/passwd").unwrap();
    header.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&header, &[][..]).unwrap();
    let link = Bundle::read("b", &gzip(&builder.into_inner().unwrap()), BundleTrust::Unsigned);
    assert!(why(&link.map(|_| ()).unwrap_err()).contains("no regular file"));
}

// --- signatures

struct Signer {
    key: EcdsaKeyPair,
    alg: &'static str,
    pem: String,
}

fn signer(algorithm: &'static EcdsaSigningAlgorithm, alg: &'static str) -> Signer {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref()).unwrap();
    let prefix = match alg {
        "ES256" => "3059301306072a8648ce3d020106082a8648ce3d030107034200",
        _ => "3076301006072a8648ce3d020106052b81040022036200",
    };
    let der = [hex::decode(prefix).unwrap(), key.public_key().as_ref().to_vec()].concat();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der));
    Signer { key, alg, pem }
}

impl Signer {
    fn trusted(&self) -> BundleKey {
        BundleKey::from_pem(&self.pem).unwrap()
    }

    fn token(&self, header: &Value, payload: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(payload));
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Signs as `opa sign` does.
    fn sign(&self, files: &Files<'_>, change: impl Fn(&mut Value, &mut Value)) -> Vec<u8> {
        let listed: Vec<Value> = files
            .iter()
            .map(|(path, bytes)| {
                let name = path.trim_start_matches("./").trim_start_matches('/');
                let is_json = name.ends_with("data.json") || name == ".manifest";
                // Sorted keys and no blanks, which is what this writer does.
                let plain = || serde_json::from_slice::<Value>(bytes).unwrap().to_string().into_bytes();
                let bytes = if is_json { plain() } else { bytes.clone() };
                json!({"name": name, "hash": hex::encode(Sha256::digest(bytes)), "algorithm": "SHA-256"})
            })
            .collect();
        let mut header = json!({"alg": self.alg, "kid": "whatever"});
        let mut payload = json!({"files": listed, "iss": "ci", "keyid": "whatever"});
        change(&mut header, &mut payload);
        let token = self.token(&header, &payload);
        let mut all = files.clone();
        all.push((".signatures.json", json!({"signatures": [token]}).to_string().into_bytes()));
        packed(&all)
    }
}

fn tested() -> Files<'static> {
    let mut files = good();
    files.pop();
    files
}

#[test]
fn a_signed_bundle_is_believed_by_its_key_alone() {
    for signer in [signer(&ECDSA_P256_SHA256_FIXED_SIGNING, "ES256"), signer(&ECDSA_P384_SHA384_FIXED_SIGNING, "ES384")]
    {
        let bytes = signer.sign(&tested(), |_, _| {});
        let key = signer.trusted();
        let bundle = Bundle::read("b", &bytes, BundleTrust::Key(&key)).unwrap();
        assert!(bundle.policy().unwrap().decide(&json!({"x": "a"})).allows());
        let error = |bytes: &[u8], trust| match Bundle::read("b", bytes, trust) {
            Err(BundleError::Signature { source, .. }) => source,
            other => panic!("{:?}", other.map(|_| ())),
        };
        assert_eq!(error(&bytes, BundleTrust::Unsigned), SignatureError::NoKey);
        assert_eq!(error(&packed(&tested()), BundleTrust::Key(&key)), SignatureError::None);
        assert!(Bundle::read("b", &bytes, BundleTrust::SignatureWaived).is_ok());
        let other = match signer.alg {
            "ES256" => super::tests::signer(&ECDSA_P256_SHA256_FIXED_SIGNING, "ES256"),
            _ => super::tests::signer(&ECDSA_P384_SHA384_FIXED_SIGNING, "ES384"),
        };
        assert_eq!(error(&bytes, BundleTrust::Key(&other.trusted())), SignatureError::Invalid);
    }
}

#[test]
fn no_file_is_changed_added_or_left_out_behind_a_signature() {
    let signer = signer(&ECDSA_P384_SHA384_FIXED_SIGNING, "ES384");
    let key = signer.trusted();
    let said = |bytes: &[u8]| why(&Bundle::read("b", bytes, BundleTrust::Key(&key)).map(|_| ()).unwrap_err());
    let listed = |change: &dyn Fn(&mut Value)| signer.sign(&tested(), |_, payload| change(&mut payload["files"]));
    let bent = "0".repeat(64);
    assert!(
        said(&listed(&|files| files[2]["hash"] = json!(bent))).contains("team/policy.rego: is not what was signed")
    );
    assert!(said(&listed(&|files| files[1]["hash"] = json!(bent))).contains("data.json: is not what was signed"));
    assert!(said(&listed(&|files| files[0]["hash"] = json!(bent))).contains(".manifest: is not what was signed"));
    let gone = listed(&|files| {
        files.as_array_mut().unwrap().pop();
    });
    assert!(said(&gone).contains("team/policy.rego: is not what was signed: the signature does not list it"));
    let more = listed(&|files| {
        let mut copy = files[2].clone();
        copy["name"] = json!("team/deny.rego");
        files.as_array_mut().unwrap().push(copy);
    });
    assert!(said(&more).contains("team/deny.rego: was signed, and is not there"));
    let twice = listed(&|files| {
        let copy = files[2].clone();
        files.as_array_mut().unwrap().push(copy);
    });
    assert!(said(&twice).contains("listed twice"));
    assert!(said(&listed(&|files| files[2]["algorithm"] = json!("MD5"))).contains("MD5"));
    for (header, payload, word) in [
        (json!({"alg": "none"}), json!({}), "alg is"),
        (json!({"alg": "HS256"}), json!({}), "alg is"),
        (json!({"alg": "ES256"}), json!({}), "alg is"),
        (json!({"jwk": {}}), json!({}), "jwk"),
        (json!({"crit": ["x"]}), json!({}), "crit"),
        (json!({"typ": "eat+jwt"}), json!({}), "typ"),
        (json!({}), json!({"scope": "write"}), "scope"),
        (json!({}), json!({"exp": 1}), "exp"),
        (json!({}), json!({"iat": -1}), "iat"),
        (json!({}), json!({"iat": "1"}), "iat"),
        (json!({}), json!({"iat": 1.5}), "iat"),
        (json!({}), json!({"files": 1}), "sequence"),
    ] {
        let bytes = signer.sign(&tested(), |head, body| {
            header.as_object().unwrap().iter().for_each(|(name, value)| head[name] = value.clone());
            payload.as_object().unwrap().iter().for_each(|(name, value)| body[name] = value.clone());
        });
        let said = said(&bytes);
        assert!(said.contains(".signatures.json") && said.contains(word), "{word}: {said}");
    }
    for signatures in
        [&b"{}"[..], br#"{"signatures": []}"#, br#"{"signatures": ["a", "b"]}"#, br#"{"signatures": ["a.b"]}"#, b"x"]
    {
        let mut files = tested();
        files.push((".signatures.json", signatures.to_vec()));
        assert!(said(&packed(&files)).contains(".signatures.json"));
    }
    assert!(BundleKey::from_pem("no key").is_err());
    assert_eq!(BundleKey::from_pem(&signer.pem.replace("BEGIN PUBLIC", "BEGIN PRIVATE")).err(), Some(KeyError));
}

#[test]
fn json_is_hashed_by_what_it_says() {
    let files = |data: &str| {
        let mut files = tested();
        files[1].1 = data.as_bytes().to_vec();
        files
    };
    let one = files(r#"{"team": {"listed": ["a"], "b": {"z": 1, "a": "<\u2028>"}}}"#);
    let signer = signer(&ECDSA_P384_SHA384_FIXED_SIGNING, "ES384");
    let key = signer.trusted();
    // As Go writes it: no escapes for HTML, and one for the line separator.
    let as_signed = r#"{"team":{"b":{"a":"<\u2028>","z":1},"listed":["a"]}}"#;
    let hash = hex::encode(Sha256::digest(as_signed));
    let bytes = signer.sign(&one, |_, payload| payload["files"][1]["hash"] = json!(hash));
    assert!(Bundle::read("b", &bytes, BundleTrust::Key(&key)).is_ok());
    let other = files("{\"team\":\n {\"b\": {\"a\": \"<\u{2028}>\", \"z\": 1},\n\"listed\": [ \"a\" ]}}");
    let bytes = signer.sign(&other, |_, payload| payload["files"][1]["hash"] = json!(hash));
    assert!(Bundle::read("b", &bytes, BundleTrust::Key(&key)).is_ok(), "its layout does not count");
}

#[test]
fn what_one_signature_fits_has_one_digest() {
    let signer = signer(&ECDSA_P384_SHA384_FIXED_SIGNING, "ES384");
    let key = signer.trusted();
    let signed = signer.sign(&tested(), |_, _| {});
    let entries = archive::entries("b", &signed).unwrap();
    let token = entries.into_iter().find(|entry| entry.path == SIGNATURES).unwrap().bytes;
    let read = |files: &Files<'_>| {
        let mut all = files.clone();
        all.push((".signatures.json", token.clone()));
        Bundle::read("b", &packed(&all), BundleTrust::Key(&key))
    };
    let digest = read(&tested()).unwrap().digest();
    for (at, laid_anew) in [
        (0, "{ \"roots\": [\"team\",\n\"team_test\"], \"revision\": \"r\\u0037\" }\n"),
        (1, "\n{\"team\":{\"listed\":[\"a\"]}}"),
    ] {
        let mut files = tested();
        files[at].1 = laid_anew.into();
        assert_eq!(read(&files).unwrap().digest(), digest, "{laid_anew}");
    }
    let mut other = tested();
    other[2].1.push(b'\n');
    assert!(read(&other).is_err(), "of Rego every byte counts");
    let unsigned = |files: &Files<'_>| super::tests::read(files).unwrap().digest();
    assert!(unsigned(&tested()) == digest && unsigned(&other) != digest);
}

#[test]
fn a_date_is_the_signers_word_and_no_signature_is_no_date() {
    let signer = signer(&ECDSA_P384_SHA384_FIXED_SIGNING, "ES384");
    let key = signer.trusted();
    let dated = signer.sign(&tested(), |_, payload| payload["iat"] = json!(1_000));
    let undated = signer.sign(&tested(), |_, _| {});
    let of = |bytes: &[u8], trust| Bundle::read("b", bytes, trust).unwrap().signed_at();
    assert_eq!(of(&dated, BundleTrust::Key(&key)), Some(UnixTime(1_000)));
    assert_eq!(of(&undated, BundleTrust::Key(&key)), None);
    assert_eq!(of(&dated, BundleTrust::SignatureWaived), None, "nobody vouches for it");
    assert_eq!(of(&packed(&tested()), BundleTrust::Unsigned), None);
    let policy = Bundle::read("b", &dated, BundleTrust::Key(&key)).unwrap().policy().unwrap();
    let minute = coffer_verifier::MaxAge::Seconds(60);
    let said = |now| policy.too_old(minute, UnixTime(now)).map(|(found, ..)| found);
    assert_eq!((said(1_000), said(1_060), said(700)), (None, None, None));
    assert!(said(1_061).unwrap().starts_with("signed at 1970-01-01T00:16:40Z"));
    assert!(said(699).unwrap().ends_with("to come"));
    let undated = Bundle::read("b", &undated, BundleTrust::Key(&key)).unwrap().policy().unwrap();
    assert_eq!(undated.too_old(minute, UnixTime(1_000)).unwrap().0, "no date of a signature");
    assert_eq!(undated.too_old(coffer_verifier::MaxAge::Any, UnixTime(1_000)), None);
}

#[test]
fn a_new_signature_changes_the_date_and_nothing_else() {
    let signer = signer(&ECDSA_P384_SHA384_FIXED_SIGNING, "ES384");
    let public = P384PublicKey::from_pem(&signer.pem).unwrap();
    let mut files = tested();
    let old = signer.sign(&files, |_, payload| payload["iat"] = json!(1_000));
    let dated = |bytes: &[u8], at, first| {
        let next = Endorsement::new("b", bytes, &public, UnixTime(at), first).unwrap();
        let signature = signer.key.sign(&SystemRandom::new(), next.signing_input()).unwrap();
        next.with_signature(signature.as_ref().try_into().unwrap()).unwrap()
    };
    let endorsed = |bytes: &[u8], at| dated(bytes, at, None);
    let key = BundleKey::of_p384(public);
    let read = |bytes: &[u8]| Bundle::read("b", bytes, BundleTrust::Key(&key)).unwrap();
    // Of a signed one, of one signed anew, and of one that nobody had signed.
    for bytes in [old.clone(), endorsed(&old, 1_500), packed(&files)] {
        let next = read(&endorsed(&bytes, 2_000));
        assert_eq!(next.signed_at(), Some(UnixTime(2_000)));
        assert_eq!((next.digest(), next.revision()), (read(&old).digest(), "r7"));
        assert_eq!((next.files(), next.data()), (read(&old).files(), read(&old).data()));
    }
    // A path longer than a header of tar has room for.
    let long = format!("team/{}/data.json", "a".repeat(200));
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes) in [("team/policy.rego", POLICY.as_bytes()), (&long, br#"{"x": "<\u2028>"}"#)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, path, bytes).unwrap();
    }
    let data = read(&endorsed(&gzip(&builder.into_inner().unwrap()), 2_000)).data().cloned().unwrap();
    assert_eq!(data["team"]["a".repeat(200)]["x"], "<\u{2028}>");
    // Nobody else's signature fits, nor one of other files.
    let next = Endorsement::new("b", &old, &public, UnixTime(2_000), None).unwrap();
    let bad = next.with_signature(&[7; 96]).unwrap();
    let said = Bundle::read("b", &bad, BundleTrust::Key(&key)).map(|_| ()).unwrap_err();
    assert!(why(&said).contains("does not verify"), "{said}");
    files[1].1 = br#"{"team": {"listed": ["b"]}}"#.to_vec();
    assert_ne!(read(&endorsed(&packed(&files), 2_000)).digest(), read(&old).digest());

    // The author's date goes with it; what says something else and is no later by its author's date is a step back, and so is what has none.
    let authors = |at: i64, files: &Files<'_>| signer.sign(files, |_, payload| payload["iat"] = json!(at));
    let witnessed = read(&dated(&old, 2_000, Some(UnixTime(1_000))));
    assert_eq!((witnessed.signed_at(), witnessed.first_signed_at()), (Some(UnixTime(2_000)), Some(UnixTime(1_000))));
    // Of the same text one that was signed earlier is a step back too: what was signed since could follow it.
    for (at, back) in [(999, true), (1_000, false), (1_001, false)] {
        assert_eq!(read(&authors(at, &tested())).goes_back_behind(&witnessed), back, "the same text, {at}");
    }
    let undated = read(&signer.sign(&tested(), |_, _| {}));
    assert!(!undated.goes_back_behind(&witnessed), "it gets the date of now");
    for (at, back) in [(999, true), (1_000, true), (1_001, false)] {
        assert_eq!(read(&authors(at, &files)).goes_back_behind(&witnessed), back, "{at}");
    }
    assert!(read(&signer.sign(&files, |_, _| {})).goes_back_behind(&witnessed), "nobody knows");
    let wrong = signer.sign(&files, |_, payload| {
        (payload["iat"], payload["first_iat"]) = (json!(1_000), json!(1_001));
    });
    let said = Bundle::read("b", &wrong, BundleTrust::Key(&key)).map(|_| ()).unwrap_err();
    assert!(why(&said).contains("first_iat is later than iat"), "{said}");
}
