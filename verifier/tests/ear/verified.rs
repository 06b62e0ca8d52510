//! What a relying party demands, and every text that is no token.

use super::*;

#[test]
fn each_demand_refuses_what_does_not_meet_it() {
    let token = token(&(&accepted(&World::new())).into(), &NamedBinding::Raw);
    type Change<'a> = &'a dyn Fn(&mut Demands<'_>);
    let cases: [(&str, Change<'_>); 8] = [
        ("issuer", &|demands| demands.issuer = IssuerRule::Exactly(Issuer::parse("https://other.example").unwrap())),
        ("audience", &|demands| demands.audience = word("https://shop.example")),
        ("nonce", &|demands| demands.nonce = NonceRule::Exactly(nonce(9))),
        ("request-nonce", &|demands| demands.request_nonce = NonceRule::Exactly(nonce(8))),
        ("key", &|demands| demands.key = KeyRule::Exactly(GuestKey::P384(signer(7).1))),
        ("policy", &|demands| demands.policy = PolicyRule::Exactly { policy: word("other"), revision: None }),
        ("policy-revision", &|demands| {
            demands.policy = PolicyRule::Exactly { policy: word("fleet"), revision: Some(word("8")) };
        }),
        ("simulated", &|demands| {
            (demands.simulated, demands.warnings) = (SimulatedRule::Refused, WarningRule::Accepted);
        }),
    ];
    for (head, change) in cases {
        let found = heads(&reasons(&token, change, NOW));
        assert_eq!(found.first().map(String::as_str), Some(head));
        assert!(found.len() == 1 || head == "simulated", "{found:?}");
    }
    let met = |demands: &mut Demands<'_>| {
        demands.request_nonce = NonceRule::Exactly(nonce(9));
        demands.policy = PolicyRule::Exactly { policy: word("fleet"), revision: Some(word("7")) };
    };
    assert_eq!(reasons(&token, met, NOW), []);
    assert_eq!(reasons(&token, |demands| demands.issuer = IssuerRule::HolderOfAKey, NOW), []);
    // Every reason, not the first.
    let both = |demands: &mut Demands<'_>| {
        (demands.audience, demands.request_nonce) = (word("x"), NonceRule::Exactly(nonce(8)));
    };
    assert_eq!(heads(&reasons(&token, both, UnixTime(NOW.0 + 10_000))), ["audience", "expired", "request-nonce"]);
}

#[test]
fn time_counts_with_a_bounded_skew() {
    let token = token(&(&accepted(&World::new())).into(), &NamedBinding::Raw);
    for (skew, from, to) in [(0, NOW.0, NOW.0 + 299), (60, NOW.0 - 60, NOW.0 + 359), (300, NOW.0 - 300, NOW.0 + 599)] {
        let set = |demands: &mut Demands<'_>| demands.skew = Skew::from_secs(skew).unwrap();
        for good in [from, to] {
            assert_eq!(reasons(&token, set, UnixTime(good)), [], "{skew} {good}");
        }
        assert_eq!(heads(&reasons(&token, set, UnixTime(from - 1))), ["issued"]);
        assert_eq!(heads(&reasons(&token, set, UnixTime(to + 1))), ["expired"]);
    }
    // Of a token that another program dated: not before its time, as far as clocks may differ.
    let begins = |at: i64| raw(&header(), &payload(|claims| claims["nbf"] = json!(at)));
    assert_eq!(heads(&reasons(&begins(NOW.0 + 61), |_| {}, NOW)), ["not-before"]);
    assert_eq!(reasons(&begins(NOW.0 + 60), |_| {}, NOW), []);
    let odd = raw(&header(), &payload(|claims| claims["nbf"] = json!("soon")));
    assert!(verify(&odd).is_err());
    assert_eq!((Skew::from_secs(301), Skew::from_secs(-1)), (None, None));
}

#[test]
fn a_header_names_one_algorithm_one_type_one_listed_key_and_nothing_else() {
    let good = payload(|_| {});
    verify(&raw(&header(), &good)).unwrap();
    let kid = thumbprint(&signer(7).1);
    let with = |name: &str, value: Value| {
        let mut header: Value = serde_json::from_str(&header()).unwrap();
        header[name] = value;
        verify(&raw(&header.to_string(), &good)).unwrap_err()
    };
    for algorithm in ["none", "None", "HS384", "HS256", "ES256", "es384", "RS256", ""] {
        assert_eq!(with("alg", algorithm.into()), TokenError::Algorithm { found: algorithm.into() });
    }
    for kind in ["JWT", "jwt", "EAT+JWT", "application/eat+jwt", "at+jwt"] {
        assert_eq!(with("typ", kind.into()), TokenError::Type { found: kind.into() });
    }
    let own: Value = serde_json::from_str(&Jwks::new([signer(30).1]).to_json()).unwrap();
    for (name, value) in [
        ("jwk", own["keys"][0].clone()),
        ("x5c", json!(["MIIB"])),
        ("jku", json!("https://verifier.example/.well-known/jwks.json")),
        ("x5u", json!("https://verifier.example/a.pem")),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
    ] {
        assert_eq!(with(name, value), TokenError::Header { name: name.into() });
    }
    let stranger = thumbprint(&signer(30).1);
    assert_eq!(with("kid", stranger.clone().into()), TokenError::UnknownKey { kid: stranger });
    // A listed key that did not sign.
    assert!(matches!(with("kid", thumbprint(&signer(8).1).into()), TokenError::Signature { .. }));
    for header in [
        format!(r#"{{"alg":"ES384","kid":"{kid}"}}"#),
        format!(r#"{{"kid":"{kid}","typ":"eat+jwt"}}"#),
        r#"{"alg":"ES384","typ":"eat+jwt"}"#.to_owned(),
        format!(r#"{{"alg":"none","alg":"ES384","kid":"{kid}","typ":"eat+jwt"}}"#),
        format!(r#"{{"alg":["ES384"],"kid":"{kid}","typ":"eat+jwt"}}"#),
        "[]".to_owned(),
        "ES384".to_owned(),
    ] {
        assert!(matches!(verify(&raw(&header, &good)), Err(TokenError::Json { part: "header", .. })), "{header}");
    }
}

#[test]
fn claims_are_typed_stand_once_and_are_all_there() {
    let json = |payload: &str| {
        let said = verify(&raw(&header(), payload));
        assert!(matches!(said, Err(TokenError::Json { part: "payload", .. })), "{payload}");
    };
    for name in ["eat_profile", "iss", "aud", "iat", "exp", "jti", "simulated", "submods", "ear.verifier-id"] {
        json(&payload(|claims| drop(claims.as_object_mut().unwrap().remove(name))));
    }
    let good = payload(|_| {});
    json(&good.replacen('{', r#"{"simulated":false,"#, 1));
    json(&good.replacen('{', r#"{"x":{"a":1,"a":2},"#, 1));
    json(&payload(|claims| claims["exp"] = json!(1.8e9)));
    json(&payload(|claims| claims["exp"] = json!("1789862700")));
    json(&payload(|claims| claims["aud"] = json!([AUDIENCE])));
    json(&payload(|claims| claims["simulated"] = json!("false")));
    json(&payload(|claims| claims["submods"]["cpu1"] = claims["submods"]["cpu0"].clone()));
    json(&payload(|claims| claims["submods"]["cpu0"]["ear.trustworthiness-vector"]["hardware"] = json!(200)));
    json(&payload(|claims| claims["submods"]["cpu0"]["ear.status"] = json!("fine")));
    let profile = verify(&raw(&header(), &payload(|claims| claims["eat_profile"] = "tag:other".into())));
    assert_eq!(profile.unwrap_err(), TokenError::Profile { found: "tag:other".into() });
    let nonce = verify(&raw(&header(), &payload(|claims| claims["eat_nonce"] = "AAAA".into())));
    assert_eq!(nonce.unwrap_err(), TokenError::Nonce { claim: "eat_nonce" });
    for jwk in
        [json!({ "kty": "oct", "k": "AAAA" }), json!({ "kty": "EC", "crv": "P-384", "x": "AA", "y": "AA" }), json!(1)]
    {
        let key = verify(&raw(&header(), &payload(|claims| claims["cnf"] = json!({ "jwk": jwk }))));
        assert!(matches!(key, Err(TokenError::Key(_))));
    }
    // A claim nobody knows is passed over.
    verify(&raw(&header(), &payload(|claims| claims["later"] = json!({ "a": 1 })))).unwrap();
    // A span no token of ours has, and a status better than its vector.
    let long = raw(&header(), &payload(|claims| claims["exp"] = json!(NOW.0 + 86_401)));
    assert_eq!(heads(&reasons(&long, |_| {}, NOW)), ["lifetime"]);
    let praised = raw(
        &header(),
        &payload(|claims| {
            claims["simulated"] = json!(false);
            claims["submods"]["cpu0"]["ear.status"] = json!("affirming");
        }),
    );
    assert_eq!(heads(&reasons(&praised, |_| {}, NOW)), ["status"]);
    let silent = raw(
        &header(),
        &payload(|claims| {
            claims["simulated"] = json!(false);
            claims["submods"]["cpu0"]["ear.status"] = json!("none");
            claims["submods"]["cpu0"]["ear.trustworthiness-vector"] = json!({});
        }),
    );
    assert_eq!(heads(&reasons(&silent, |_| {}, NOW)), ["status"]);
}

#[test]
fn one_text_is_one_token_and_any_bit_flipped_is_refused() {
    let token = token(&(&accepted(&World::new())).into(), &NamedBinding::Raw);
    let good = verify(&token).unwrap().to_json();
    let (head, signature) = token.rsplit_once('.').unwrap();
    for bad in [
        head.to_owned(),
        format!("{token}."),
        format!("{token}="),
        format!("{token}\n"),
        format!(" {token}"),
        format!("{head}."),
        format!("{head}.{}", &signature[..127]),
        format!("{head}.{signature}AAAA"),
        String::new(),
        "..".to_owned(),
        "a".repeat(65 * 1024),
    ] {
        assert!(verify(&bad).is_err(), "{bad:.100}");
    }
    for at in (0..token.len()).step_by(7) {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let bent = String::from_utf8(bytes).unwrap();
        assert!(verify(&bent).map(|token| token.to_json()).is_err(), "byte {at}: {good}");
    }
}
