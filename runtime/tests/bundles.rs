//! `coffer policy sign`, `re-date` and bundles where a policy is named.

use crate::policies::{coffer, json, on, text, write};
use crate::vectors;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

#[test]
fn a_bundle_stands_where_a_policy_does_and_its_signature_is_asked_for_by_name() {
    let Some(root) = vectors::folder("snp") else { return };
    let folder = tempfile::tempdir().unwrap();
    let team = folder.path().join("team");
    std::fs::create_dir(&team).unwrap();
    write(&team, ".manifest", "{\"revision\": \"r7\", \"roots\": [\"team\", \"products\"]}");
    write(&team, "team.rego", "package team\nallow if input.result.claims.product in data.products\n");
    write(&team, "data.json", "{\"products\": [\"Milan\"]}");
    let bundle = folder.path().join("team.tar.gz");
    let bundle = bundle.to_str().unwrap();
    let pack = || {
        let tar = Command::new("tar").args(["-C", team.to_str().unwrap(), "-czf", bundle, "."]).status().unwrap();
        assert!(tar.success());
    };
    pack();
    let milan = root.join("milan-v2-kvm");
    let log = folder.path().join("log");
    let words = ["verify", "--policy", bundle, "--decision-log", log.to_str().unwrap()];
    assert_eq!(on(&milan, "report.bin", &words).status.code(), Some(0));
    let event: Value = serde_json::from_str(&std::fs::read_to_string(&log).unwrap()).unwrap();
    assert_eq!(event["bundles"][bundle]["revision"], "r7");
    let genoa = on(&root.join("genoa-v5-siena"), "report.bin", &["verify", "--policy", bundle]);
    assert_eq!(genoa.status.code(), Some(6), "{}", text(&genoa));
    assert_eq!(coffer(&["policy", "lint", bundle]).status.code(), Some(0));
    let key =
        aws_lc_rs::signature::EcdsaKeyPair::generate(&aws_lc_rs::signature::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let point = aws_lc_rs::signature::KeyPair::public_key(&key).as_ref().to_vec();
    let pem = coffer_verifier::P384PublicKey::from_sec1(&point).unwrap().to_pem();
    let pem = write(folder.path(), "key.pem", &pem);
    let unsigned = coffer(&["policy", "lint", bundle, "--bundle-key", &pem]);
    assert!(unsigned.status.code() == Some(5) && text(&unsigned).contains(".signatures.json"), "{}", text(&unsigned));
    // What is no bundle is not believed beside a key, nor is a key passed over that is none.
    let source = team.to_str().unwrap();
    for named in [vec![source], vec!["snp"], vec![bundle, source]] {
        let words: Vec<&str> = named.iter().flat_map(|one| ["--policy", *one]).chain(["--bundle-key", &pem]).collect();
        let said = on(&root.join("genoa-v5-siena"), "report.bin", &[&["verify"], &words[..]].concat());
        // Where there is no bundle at all, the command line is wrong.
        let exit = if named == ["snp"] { 2 } else { 3 };
        assert!(said.status.code() == Some(exit) && text(&said).contains("bundle"), "{named:?}: {}", text(&said));
    }
    assert_eq!(coffer(&["policy", "lint", bundle, "--bundle-key", "/nonexistent.pem"]).status.code(), Some(3));
    assert_eq!(coffer(&["policy", "test", source, "--bundle-key", &pem]).status.code(), Some(3));
    write(&team, ".signatures.json", "{\"signatures\": [\"a.b.c\"]}");
    pack();
    let signed = coffer(&["policy", "lint", bundle]);
    assert!(signed.status.code() == Some(5) && text(&signed).contains("no key is given"), "{}", text(&signed));
    assert_eq!(coffer(&["policy", "lint", bundle, "--bundle-key", &pem]).status.code(), Some(5));
    assert_eq!(coffer(&["policy", "lint", bundle, "--no-bundle-signature"]).status.code(), Some(0));
    write(&team, "README", "words");
    pack();
    let said = coffer(&["policy", "lint", bundle, "--no-bundle-signature"]);
    assert!(said.status.code() == Some(3) && text(&said).contains("README"), "{}", text(&said));
}

#[test]
fn a_bundle_gets_a_new_date_only_while_nothing_speaks_against_it_and_a_floor_may_ask_for_one() {
    let Some(root) = vectors::folder("snp") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (team, milan) = (folder.path().join("team"), root.join("milan-v2-kvm"));
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let policy = |words: &[&str]| {
        let words: Vec<String> = words
            .iter()
            .map(|word| if word.contains('.') && !word.contains('/') { at(word) } else { (*word).to_owned() })
            .collect();
        let words: Vec<&str> = ["--json", "policy"].into_iter().chain(words.iter().map(String::as_str)).collect();
        let output = coffer(&words);
        (output.status.code().unwrap(), json(&output))
    };
    std::fs::create_dir(&team).unwrap();
    write(&team, ".manifest", "{\"revision\": \"r7\", \"roots\": [\"team\", \"team_test\"]}");
    let rego = "package team\nallow if input.result.claims.product == \"Milan\"\n";
    write(&team, "team.rego", rego);
    let tests = "package team_test\ntest_nothing if not data.team.allow with input as {}\n";
    write(&team, "team_test.rego", tests);
    let pack = |name: &str| {
        let mut tar = Command::new("tar");
        tar.args(["-C", team.to_str().unwrap(), "-czf", &at(name), "."]);
        assert!(tar.status().unwrap().success());
    };
    pack("team.tar.gz");
    for key in ["author.pem", "witness.pem"] {
        assert_eq!(policy(&["keygen", "--out", key]).0, 0);
    }
    // Nobody vouches for what does not pass, and nothing is written then.
    let before = std::fs::read(at("team.tar.gz")).unwrap();
    for (file, broken) in [
        ("team.rego", "package team\nallow if {\n"),
        ("team.rego", "package team\nallow if input.result.claims.produkt == \"Milan\"\n"),
        ("team_test.rego", "package team_test\ntest_nothing if data.team.allow with input as {}\n"),
    ] {
        let good = std::fs::read(team.join(file)).unwrap();
        write(&team, file, broken);
        pack("bad.tar.gz");
        std::fs::write(team.join(file), good).unwrap();
        let (exit, said) = policy(&["sign", "bad.tar.gz", "--sign", "author.pem", "--out", "signed.tar.gz"]);
        assert_eq!((exit, said["error"]["class"].as_str()), (3, Some("config")), "{broken}: {said}");
    }
    assert!(!Path::new(&at("signed.tar.gz")).exists());
    let (exit, signed) = policy(&["sign", "team.tar.gz", "--sign", "author.pem", "--out", "signed.tar.gz"]);
    assert_eq!((exit, &signed["revision"], &signed["tests"]), (0, &"r7".into(), &1.into()), "{signed}");
    assert_eq!(std::fs::read(at("team.tar.gz")).unwrap(), before);
    // Signed is signed: another date is another command's.
    assert_eq!(policy(&["sign", "signed.tar.gz", "--sign", "author.pem"]).0, 5);

    let endorse = |words: &[&str]| policy(&[&["re-endorse", "signed.tar.gz", "--sign", "witness.pem"], words].concat());
    let digest = signed["bundle"].as_str().unwrap();
    std::fs::write(at("revoked.toml"), format!("until = \"never\"\npolicies = [\"{}\"]\n", "00".repeat(32))).unwrap();
    std::fs::write(at("listed.toml"), format!("until = \"never\"\npolicies = [\"{digest}\"]\n")).unwrap();
    std::fs::write(at("over.toml"), "until = \"2026-01-01T00:00:00Z\"\n").unwrap();
    let good = ["--key", "author.pem.pub", "--revoked", "revoked.toml", "--out", "next.tar.gz"];
    // Whoever signed it is not the witness; no word on revocation is no consent; nor is a list that is over.
    assert_eq!(endorse(&["--revoked", "revoked.toml", "--out", "next.tar.gz"]).0, 5);
    assert_eq!(endorse(&["--key", "author.pem.pub", "--out", "next.tar.gz"]).0, 2);
    for (list, expected) in [("listed.toml", 6), ("over.toml", 3)] {
        let (exit, said) = endorse(&["--key", "author.pem.pub", "--revoked", list, "--out", "next.tar.gz"]);
        assert_eq!(exit, expected, "{said}");
        assert_eq!(said["error"]["reason"]["code"] == "revoked", expected == 6, "{said}");
    }
    // White space makes no other bundle of it: the signature fits, and the list names it.
    let relaid = folder.path().join("relaid");
    std::fs::create_dir(&relaid).unwrap();
    let tar = |words: &[&str]| assert!(Command::new("tar").args(words).status().unwrap().success());
    tar(&["-C", relaid.to_str().unwrap(), "-xzf", &at("signed.tar.gz")]);
    write(&relaid, ".manifest", "{ \"roots\": [\"team\", \"team_test\"],\n\"revision\": \"r7\" }\n");
    tar(&["-C", relaid.to_str().unwrap(), "-czf", &at("relaid.tar.gz"), "."]);
    let relaid = ["re-endorse", "relaid.tar.gz", "--sign", "witness.pem", "--key", "author.pem.pub"];
    let (exit, said) = policy(&[&relaid[..], &["--revoked", "listed.toml", "--out", "next.tar.gz"]].concat());
    assert_eq!((exit, said["error"]["reason"]["code"].as_str()), (6, Some("revoked")), "{said}");
    assert_eq!(policy(&["re-endorse", "team.tar.gz", "--sign", "witness.pem", "--no-revocation-list"]).0, 5);
    assert!(!Path::new(&at("next.tar.gz")).exists());
    let (exit, next) = endorse(&good);
    assert_eq!((exit, next["bundle"].as_str(), &next["revision"]), (0, Some(digest), &"r7".into()), "{next}");
    assert!(next["signed_at"].as_str() >= signed["signed_at"].as_str(), "{next}");
    assert_ne!(next["key"], signed["key"]);
    // The next tick of a timer; in place; and what is something else stays.
    assert_eq!(endorse(&good).0, 0);
    let in_place = policy(&["re-endorse", "next.tar.gz", "--sign", "witness.pem", "--no-revocation-list"]);
    assert_eq!((in_place.0, &in_place.1["revocation_list"]), (0, &Value::Null), "{}", in_place.1);
    // An older text of the author's does not come back with a date of today; a later one takes its place.
    let second = || coffer_verifier::UnixTime::from(std::time::SystemTime::now()).0;
    let signed_at = coffer_verifier::UnixTime::parse(signed["signed_at"].as_str().unwrap()).unwrap().0;
    while second() <= signed_at {
        std::thread::yield_now();
    }
    write(&team, ".manifest", "{\"revision\": \"r8\", \"roots\": [\"team\", \"team_test\"]}");
    pack("later.tar.gz");
    let sign = ["sign", "later.tar.gz", "--sign", "author.pem"];
    assert_eq!(policy(&sign).0, 0);
    let of = |file: &str| {
        let words = ["re-endorse", file, "--sign", "witness.pem", "--key", "author.pem.pub", "--no-revocation-list"];
        policy(&[&words[..], &["--out", "newest.tar.gz"]].concat())
    };
    assert_eq!(of("signed.tar.gz").1["first_signed_at"], signed["signed_at"]);
    assert_eq!((of("later.tar.gz").0, of("later.tar.gz").0), (0, 0));
    let there = std::fs::read(at("newest.tar.gz")).unwrap();
    let (exit, said) = of("signed.tar.gz");
    assert_eq!((exit, said["error"]["reason"]["code"].as_str()), (6, Some("older-release")), "{said}");
    assert_eq!(std::fs::read(at("newest.tar.gz")).unwrap(), there);
    // Nor is what its author signed replaced by what a witness did: the next tick would have nothing to endorse.
    for other in ["signed.tar.gz", "team.tar.gz", "author.pem.pub"] {
        let there = std::fs::read(at(other)).unwrap();
        let (exit, said) = endorse(&["--key", "author.pem.pub", "--revoked", "revoked.toml", "--out", other]);
        assert_eq!(exit, if other == "author.pem.pub" { 3 } else { 5 }, "{said}");
        assert_eq!(std::fs::read(at(other)).unwrap(), there);
    }

    // A floor that asks for an age: by a date that is checked, and by nothing else.
    let floor = |name: &str, most: &str| {
        std::fs::write(at(name), format!("measurements = \"any\"\nmax_policy_age = \"{most}\"\n")).unwrap();
        at(name)
    };
    let week = floor("week.toml", "7d");
    let verify = |policies: &[&str], more: &[&str], when: &str| {
        let (file, certs) = (milan.join("report.bin"), milan.to_str().unwrap());
        let mut words = vec!["--json", "verify", file.to_str().unwrap(), "--certs", certs, "--no-crl", "--at", when];
        words.extend(policies.iter().flat_map(|policy| ["--policy", *policy]));
        words.extend(more);
        let output = coffer(&words);
        let said = json(&output);
        let found = said["reasons"][0]["found"].as_str().unwrap_or_default().to_owned();
        (output.status.code().unwrap(), found)
    };
    let now = coffer_verifier::UnixTime::parse(next["signed_at"].as_str().unwrap()).unwrap();
    let at_day = |days: i64| coffer_verifier::UnixTime(now.0 + days * 86_400).to_string();
    let (dated, witness) = (at("next.tar.gz"), at("witness.pem.pub"));
    let by_key = ["--bundle-key", &witness];
    assert_eq!(verify(&[&week, &dated], &by_key, &at_day(0)), (0, String::new()));
    assert_eq!(verify(&[&dated], &by_key, &at_day(20)).0, 0, "nobody asks for an age");
    let old = verify(&[&week, &dated], &by_key, &at_day(8));
    assert!(old.0 == 6 && old.1.starts_with("signed at 20"), "{old:?}");
    let early = verify(&[&week, &dated], &by_key, &at_day(-1));
    assert!(early.0 == 6 && early.1.ends_with("which is to come"), "{early:?}");
    let no_date = (6, "no date of a signature".to_owned());
    assert_eq!(verify(&[&week, &dated], &["--no-bundle-signature"], &at_day(0)), no_date);
    assert_eq!(verify(&[&week, &at("team.tar.gz")], &[], &at_day(0)), no_date);
    let text = write(folder.path(), "loose.rego", rego);
    assert_eq!(verify(&[&week, &text], &[], &at_day(0)), no_date);
    assert_eq!(verify(&[&week, &dated, "snp"], &by_key, &at_day(0)), no_date, "each of them");
    assert_eq!(verify(&[&week], &[], &at_day(0)), (6, "no policy in Rego".to_owned()));
    // A command that asks no Rego cannot ask its age.
    let connect = coffer(&["connect", "--policy", &week, "--reference", "nosuch", "--guest-port", "1", "127.0.0.1:1"]);
    assert!(connect.status.code() == Some(3) && self::text(&connect).contains("max_policy_age"), "{connect:?}");
}

#[test]
fn who_lacks_a_flag_about_bundles_is_told_which() {
    let folder = tempfile::tempdir().unwrap();
    let team = folder.path().join("team");
    std::fs::create_dir(&team).unwrap();
    write(&team, "team.rego", "package team\n\nallow := true\n");
    let run = |words: &[&str]| {
        let command =
            Command::new(env!("CARGO_BIN_EXE_coffer")).current_dir(&folder).arg("policy").args(words).output();
        let output = command.unwrap();
        (output.status.code().unwrap(), text(&output))
    };
    let pack = "tar -C team -czf team.tar.gz .";
    assert_eq!(run(&["keygen", "--out", "key.pem"]).0, 0);
    for words in [
        &["sign", "team", "--sign", "key.pem"][..],
        &["re-endorse", "team", "--sign", "key.pem", "--no-revocation-list"],
    ] {
        let (exit, said) = run(words);
        assert!(exit == 3 && said.contains("team is a folder") && said.contains(pack), "{words:?}: {said}");
    }
    let packed = Command::new("sh").current_dir(&folder).args(["-c", pack]).status().unwrap();
    assert!(packed.success());
    let (exit, said) = run(&["lint", "team.tar.gz", "--bundle-key", "key.pem.pub"]);
    assert!(exit == 5 && said.contains("coffer policy sign FILE --sign KEY"), "{said}");
    let (exit, said) = run(&["lint", "team", "--bundle-key", "key.pem.pub"]);
    assert!(exit == 3 && said.contains("coffer policy sign NAME.tar.gz --sign KEY"), "{said}");
    assert_eq!(run(&["sign", "team.tar.gz", "--sign", "key.pem"]).0, 0);
    let (exit, said) = run(&["lint", "team.tar.gz"]);
    assert!(exit == 5 && said.contains("--bundle-key FILE") && said.contains("--no-bundle-signature"), "{said}");
    assert_eq!(run(&["keygen", "--out", "other.pem"]).0, 0);
    let (exit, said) = run(&["re-endorse", "team.tar.gz", "--sign", "other.pem", "--no-revocation-list"]);
    assert!(exit == 5 && said.contains("--key FILE"), "{said}");
}
