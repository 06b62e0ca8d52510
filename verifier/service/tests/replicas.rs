//! Two services behind one balancer share their key files and nothing else.

use std::time::Duration;

use coffer_verifier::ear::Jwks;
use serde_json::{Value, json};

use crate::common::{Running, asks, code, evidence, now, with, without};

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_is_good_once_at_each_replica_and_a_token_is_everybodys() {
    let first = Running::start().await;
    let (challenges, tokens) = (first.folder.path().join("challenge.key"), first.folder.path().join("tokens.json"));
    let second = Running::with(|file| {
        (file.challenge_key, file.token_keys) = (challenges, Some(tokens));
    })
    .await;
    let elsewhere = tempfile::tempdir().unwrap();
    let other = elsewhere.path().join("challenge.key");
    coffer_rim::file::write_private(&other, "22".repeat(32).as_bytes()).unwrap();
    let stranger = Running::with(|file| file.challenge_key = other).await;
    // A service takes nobody else's from before it began, nor from its first 5 seconds.
    tokio::time::sleep(Duration::from_secs(6)).await;

    let challenge = first.json("/v1/challenge").await;
    let data: [u8; 64] = hex::decode(challenge["report_data"].as_str().unwrap()).unwrap().try_into().unwrap();
    let asked = without(asks(&evidence(now(), data)), "report_data");
    let more = json!({ "policy": "lab", "challenge": challenge["challenge"], "token": { "audience": "me" } });
    let asked = with(asked, more);
    let (status, answer) = second.appraise(&asked).await;
    assert_eq!((status, &answer["appraisal"]["verdict"]), (200, &json!("accepted")), "{answer}");
    for (replica, had_it) in [(&second, true), (&first, false), (&second, true)] {
        // Once at each: the second try at the one is refused, and the first at the other is not.
        let (status, answer) = replica.appraise(&asked).await;
        let spent = status == 409;
        assert_eq!(spent, had_it, "{answer}");
        assert!(!spent || code(&answer) == "challenge-spent", "{answer}");
    }
    let (status, answer) = first.appraise(&asked).await;
    assert_eq!((status, code(&answer)), (409, "challenge-spent"));
    let (status, answer) = stranger.appraise(&asked).await;
    assert_eq!((status, code(&answer)), (409, "challenge-unknown"), "another key's is none");

    let keys = |text: Value| Jwks::parse(text.to_string().as_bytes()).unwrap().to_json();
    let of = async |service: &Running| keys(service.json("/.well-known/jwks.json").await);
    assert_eq!(of(&first).await, of(&second).await);
    assert_ne!(of(&first).await, of(&stranger).await);
    for service in [first, second, stranger] {
        service.stop().await;
    }
}
