//! Somebody else's library beside ours, both ways.

use super::*;

/// Speaks with the other library: a JSON document in, one out.
fn other(request: &Value) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ear.py");
    let mut child = Command::new("/usr/bin/python3")
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3; `make setup` installs it");
    child.stdin.take().unwrap().write_all(request.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "jwcrypto; `make setup` installs it");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn another_library_believes_our_tokens_and_names_our_keys_as_we_do() {
    let tokens: Vec<_> = (0..20)
        .map(|seed| {
            let world = world(workload_report_data(&WORKLOAD, &[seed; 32]));
            let data = [seed; 32];
            token(&(&accepted(&world)).into(), &NamedBinding::Workload { workload: WORKLOAD, data: &data })
        })
        .collect();
    let bent = format!("{}A", tokens[0].strip_suffix(|_: char| true).unwrap());
    let all: Vec<_> = tokens.iter().chain([&bent]).collect();
    let said = other(&json!({ "do": "read", "jwks": keys().to_json(), "tokens": all, "aud": AUDIENCE, "iss": ISSUER }));
    let read = said["claims"].as_array().unwrap();
    for (token, claims) in tokens.iter().zip(read) {
        assert_eq!(*claims, verify(token).unwrap().to_json());
    }
    assert_eq!((read.len(), &read[20]), (21, &Value::Null), "a bent one is not believed there either");
    let thumbprints: Vec<_> = keys().keys().iter().map(thumbprint).collect();
    assert_eq!(said["thumbprints"], json!(thumbprints));
}

#[test]
fn what_another_library_makes_is_believed_if_it_is_right_and_refused_if_it_is_wrong() {
    let secret = BASE64URL.encode([7; 48]);
    let payload: Value = serde_json::from_str(&payload(|_| {})).unwrap();
    let said = other(&json!({
        "do": "make", "jwks": keys().to_json(), "d": secret, "claims": payload,
    }));
    let made = said["tokens"].as_object().unwrap();
    assert!(made.len() >= 12, "{:?}", made.keys());
    for (name, token) in made {
        let said = verify(token.as_str().unwrap());
        match name.as_str() {
            "good" => assert_eq!(said.unwrap().to_json(), payload),
            "expired" | "early" | "wrong-audience" | "wrong-issuer" => {
                let error = said.err().unwrap_or_else(|| panic!("{name} was believed"));
                assert!(error.is_authentic(), "{name}: {error}");
            }
            _ => {
                let error = said.err().unwrap_or_else(|| panic!("{name} was believed"));
                assert!(!error.is_authentic(), "{name}: {error}");
            }
        }
    }
}
