//! The example relying parties, in Rust with our library and in Python with somebody else's: what they admit, and what neither does.

#[allow(dead_code, reason = "its command line is for whoever runs it")]
#[path = "../../examples/relying_party.rs"]
mod relying_party;

use std::path::Path;

use super::*;
use issued::{connection, hpke};
use relying_party::{Own, admit};

/// One who asks, with what is different from the good case.
struct Asks<'a> {
    token: &'a str,
    audience: &'a str,
    challenge: u8,
    peer: &'a P384PublicKey,
    simulated: SimulatedRule,
    now: UnixTime,
}

fn in_rust(asks: &Asks<'_>) -> Result<(), String> {
    let own = Own {
        keys: &keys(),
        issuer: ISSUER,
        audience: asks.audience,
        challenge: nonce(asks.challenge),
        peer: *asks.peer,
        simulated: asks.simulated,
    };
    admit(asks.token, own, asks.now).map(drop).map_err(|error| error.to_string())
}

fn in_python(asks: &Asks<'_>) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("token", asks.token);
    write("jwks", &keys().to_json());
    write("key", &asks.peer.to_pem());
    let mut command = Command::new("/usr/bin/python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("python/examples/relying_party.py"));
    command.args(["token", "jwks", ISSUER, asks.audience, &nonce(asks.challenge).to_string(), "key"]);
    command.args(["--at", &asks.now.0.to_string()]).current_dir(folder.path());
    if asks.simulated == SimulatedRule::Allowed {
        command.arg("--simulated-too");
    }
    let output = command.output().expect("python3; `make setup` installs it");
    let said = String::from_utf8(output.stdout).unwrap();
    match output.status.code() {
        Some(0) => Ok(()),
        Some(1) if !said.is_empty() => Err(said),
        _ => panic!("jwcrypto; `make setup` installs it: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

#[test]
fn both_admit_the_guest_of_the_connection_and_neither_admits_anything_else() {
    let (guest, thief) = (signer(21).1, signer(22).1);
    let (own, hpke) = (guest.spki_digest(), hpke());
    let bound = connection(&own, &[5; 32], &hpke);
    let appraisal = accepted(&world(bound.report_data()));
    let good = token(&(&appraisal).into(), &NamedBinding::Connection { connection: &bound, key: &guest });
    // Somebody's public report, for which whoever has it can have a token made: it shows neither key nor challenge.
    let laundered = token(&(&appraisal).into(), &NamedBinding::Raw);
    let refused = token(&(&judge(&world(bound.report_data()), EvidencePolicy::strict())).into(), &NamedBinding::Raw);
    let (head, signature) = good.rsplit_once('.').unwrap();
    let bent = format!("{head}.{}{}", if signature.starts_with('A') { 'B' } else { 'A' }, &signature[1..]);
    let asks = || Asks {
        token: &good,
        audience: AUDIENCE,
        challenge: 5,
        peer: &guest,
        simulated: SimulatedRule::Allowed,
        now: NOW,
    };
    // What else an issuer, or somebody with its keys, might sign.
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut claims = serde_json::from_slice(&BASE64URL.decode(good.split('.').nth(1).unwrap()).unwrap()).unwrap();
        change(&mut claims);
        raw(&header(), &claims.to_string())
    };
    let vector = |name: &'static str, value: Value| {
        changed(&move |claims| claims["submods"]["cpu0"]["ear.trustworthiness-vector"][name] = value.clone())
    };
    let later = changed(&|claims| claims["nbf"] = (NOW.0 + 100).into());
    let profile = changed(&|claims| claims["eat_profile"] = "tag:other.example".into());
    let second = changed(&|claims| claims["submods"]["cpu1"] = claims["submods"]["cpu0"].clone());
    let worse = [vector("executables", 96.into()), vector("configuration", (-97).into())];
    let odd = [vector("executables", 2.5.into()), vector("hardware", 128.into())];
    for decide in [in_rust, in_python] {
        assert_eq!(decide(&asks()), Ok(()));
        assert_eq!(decide(&Asks { token: &changed(&|_| {}), ..asks() }), Ok(()));
        for (asks, words) in [
            (Asks { now: UnixTime(NOW.0 + 3600), ..asks() }, &["expired"][..]),
            (Asks { now: UnixTime(NOW.0 - 3600), ..asks() }, &["expired", "issued"]),
            (Asks { audience: "https://shop.example", ..asks() }, &["audience"]),
            (Asks { challenge: 6, ..asks() }, &["nonce"]),
            (Asks { token: &laundered, ..asks() }, &["nonce"]),
            (Asks { token: &laundered, peer: &thief, ..asks() }, &["nonce"]),
            (Asks { peer: &thief, ..asks() }, &["key"]),
            (Asks { simulated: SimulatedRule::Refused, ..asks() }, &["simulated"]),
            (Asks { token: &refused, ..asks() }, &["verdict"]),
            (Asks { token: &bent, ..asks() }, &["malformed", "signature"]),
            (Asks { token: &later, ..asks() }, &["not-before", "expired"]),
            (Asks { token: &profile, ..asks() }, &["profile"]),
            (Asks { token: &second, ..asks() }, &["malformed", "cpu1"]),
            (Asks { token: &worse[0], ..asks() }, &["verdict", "status"]),
            (Asks { token: &worse[1], ..asks() }, &["verdict", "status"]),
            (Asks { token: &odd[0], ..asks() }, &["malformed", "expected i8"]),
            (Asks { token: &odd[1], ..asks() }, &["malformed", "expected i8"]),
        ] {
            let why = decide(&asks).expect_err(words[0]);
            assert!(words.iter().any(|word| why.contains(word)), "{words:?}: {why}");
        }
    }
    // A verifier says what it found; nothing is not that.
    let silent = changed(&|claims| claims["submods"]["cpu0"]["ear.trustworthiness-vector"] = json!({}));
    assert!(in_python(&Asks { token: &silent, ..asks() }).unwrap_err().starts_with("malformed: a vector"));
}
