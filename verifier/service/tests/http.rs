//! The interface over HTTP: who is let in, what is answered, and what nobody can make it do.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coffer_verifier_service::openapi;
use serde_json::{Value, json};

use crate::common::{Running, asks, code, codes, evidence, now, with, without};

#[tokio::test(flavor = "multi_thread")]
async fn callers_are_let_in_and_nobody_else() {
    let service = Running::start().await;
    let ways =
        [("POST", "/v1/appraise"), ("POST", "/v1/appraise/batch"), ("GET", "/v1/challenge"), ("GET", "/v1/policies")];
    for (method, path) in
        ways.into_iter().chain([("GET", "/metrics"), ("POST", "/coffer.verifier.v1.Verifier/Appraise")])
    {
        for key in [None, Some("wrong"), Some("coffer-verifier-AAAA")] {
            let method = method.parse().unwrap();
            let request = service.client.request(method, service.url(path)).body("{}");
            let request = key.map_or(request.try_clone().unwrap(), |key| request.bearer_auth(key));
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 401, "{path} {key:?}");
            assert_eq!(response.headers()["www-authenticate"], "Bearer");
            let said = response.text().await.unwrap();
            assert!(said.contains("unauthenticated") && !said.contains("wrong"), "{said}");
        }
    }
    for path in ["/healthz", "/readyz", "/openapi.json", "/.well-known/jwks.json", "/.well-known/openid-configuration"]
    {
        let response = service.client.get(service.url(path)).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
    }
    let metrics = service.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("coffer_verifier_requests_refused_total{why=\"unauthenticated\"} 18"), "{metrics}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_is_judged_for_a_challenge_that_is_good_once() {
    let service = Running::start().await;
    let challenge = service.json("/v1/challenge").await;
    assert_eq!(challenge["expires_in"], 60);
    let report_data: [u8; 64] = hex::decode(challenge["report_data"].as_str().unwrap()).unwrap().try_into().unwrap();
    let more = json!({ "challenge": challenge["challenge"], "policy": "lab", "token": { "audience": "me" } });
    let request = with(without(asks(&evidence(now(), report_data)), "report_data"), more);
    let (status, answer) = service.appraise(&request).await;
    assert_eq!((status, &answer["appraisal"]["verdict"]), (200, &json!("accepted")), "{answer}");
    assert_eq!(answer["token"].as_str().unwrap().split('.').count(), 3);
    let (status, spent) = service.appraise(&request).await;
    assert_eq!((status, code(&spent)), (409, "challenge-spent"));
    let other = with(request, json!({ "challenge": "A".repeat(86) }));
    let (status, forged) = service.appraise(&other).await;
    assert_eq!((status, code(&forged)), (409, "challenge-unknown"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_refused_by_name() {
    let service = Running::with(|file| file.limits.request_bytes = 64 << 10).await;
    let raw = |body: Vec<u8>, media_type: &'static str| {
        let request = service.client.post(service.url("/v1/appraise")).bearer_auth(&service.key);
        request.header("content-type", media_type).body(body).send()
    };
    for (body, media_type, status, word) in [
        (b"{}".to_vec(), "application/json", 400, "malformed-request"),
        (b"{}".to_vec(), "text/plain", 415, "media-type"),
        (b"{}".to_vec(), "application/json; charset=utf-8", 400, "malformed-request"),
        (br#"{"evidence":"AAAA","report_data":"any"}"#.to_vec(), "application/json", 400, "malformed-evidence"),
    ] {
        let response = raw(body, media_type).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(code(&response.json().await.unwrap()), word);
    }
    // With a length in front, and without one.
    let chunk = format!("10001\r\n{}", " ".repeat(0x10001));
    for (framing, sent) in [("Content-Length: 65537", ""), ("Transfer-Encoding: chunked", chunk.as_str())] {
        assert_eq!(&begun(&half(&service, framing), sent), b"HTTP/1.1 413", "{framing}");
    }
    for (path, status, word) in [("/v1/nothing", 404, "not-found"), ("/v1/appraise", 405, "method")] {
        let response = service.get(path).await;
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(code(&response.json().await.unwrap()), word);
    }
    let unknown = service.appraise(&with(asks(&evidence(now(), [5; 64])), json!({ "policy": "no\u{1b}ne" }))).await;
    assert_eq!((unknown.0, code(&unknown.1)), (400, "unknown-policy"));
    assert!(!unknown.1.to_string().contains('\u{1b}'));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_answered_one_by_one_in_its_order() {
    let service = Running::start().await;
    let good = with(asks(&evidence(now(), [5; 64])), json!({ "policy": "lab" }));
    let strict = with(good.clone(), json!({ "policy": "strict" }));
    let bad = json!({ "evidence": "?", "report_data": "any" });
    let requests = json!({ "requests": [good, bad, strict] });
    let response = service.post("/v1/appraise/batch", &requests).await;
    assert_eq!(response.status(), 200);
    let answers: Value = response.json().await.unwrap();
    let results = answers["results"].as_array().unwrap();
    assert_eq!(results[0]["appraisal"]["verdict"], "accepted");
    assert_eq!(code(&results[1]), "malformed-request");
    assert_eq!(codes(&results[2]), ["untrusted-root"]);
    let metrics = service.get("/metrics").await.text().await.unwrap();
    for line in ["appraisals_total{verdict=\"accepted\"} 1", "appraisals_total{verdict=\"not-authentic\"} 1"] {
        assert!(metrics.contains(line), "{metrics}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn others_find_the_keys_and_the_interface() {
    let service = Running::start().await;
    let configuration = service.json("/.well-known/openid-configuration").await;
    assert_eq!(configuration["issuer"], "https://verifier.example");
    let keys = service.json("/.well-known/jwks.json").await;
    let set = coffer_token::KeySet::read(&service.folder.path().join("tokens.json")).unwrap();
    let listed = set.jwks(std::time::SystemTime::now().into()).to_json();
    assert_eq!(keys, serde_json::from_str::<Value>(&listed).unwrap());
    assert_eq!(service.get("/openapi.json").await.text().await.unwrap(), openapi());
    let policies = service.json("/v1/policies").await;
    assert_eq!(policies["default"], "strict");
    let names: Vec<_> = policies["policies"].as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
    assert_eq!(names, ["gated", "lab", "strict"]);
    service.stop().await;

    let silent = Running::with(|file| (file.issuer, file.token_keys) = (None, None)).await;
    for path in ["/.well-known/openid-configuration", "/.well-known/jwks.json"] {
        assert_eq!(silent.get(path).await.status(), 404);
    }
    silent.stop().await;
}

/// Every answer has the keys that the document says it has, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn answers_have_the_shapes_of_the_document() {
    let service = Running::start().await;
    let document: Value = serde_json::from_str(&openapi()).unwrap();
    let keys = |name: &str| {
        let schema = &document["components"]["schemas"][name];
        let mut all: Vec<_> = schema["properties"].as_object().unwrap().keys().cloned().collect();
        all.sort();
        let required: Vec<_> = schema["required"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
        assert_eq!(required.len(), all.len(), "{name}: every key is always there");
        all
    };
    let of = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let (_, answer) = service.appraise(&asks(&evidence(now(), [5; 64]))).await;
    assert_eq!(of(&answer), keys("Answer"));
    assert_eq!(of(&answer["appraisal"]), keys("Appraisal"));
    assert_eq!(of(&answer["appraisal"]["reasons"][0]), keys("Reason"));
    assert_eq!(of(&service.json("/v1/challenge").await), keys("Challenge"));
    assert_eq!(of(&service.json("/v1/policies").await), keys("Policies"));
    let (_, error) = service.appraise(&json!({})).await;
    assert_eq!(of(&error), keys("Error"));
    service.stop().await;
}

/// A request whose body does not come, or not all of it.
fn half(service: &Running, framing: &str) -> TcpStream {
    let mut stream = TcpStream::connect(service.address).unwrap();
    let head = format!(
        "POST /v1/appraise HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n{framing}\r\n\r\n",
        service.key
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// How its answer begins, once so much more is sent.
fn begun(mut stream: &TcpStream, more: &str) -> [u8; 12] {
    stream.write_all(more.as_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    answer
}

const NINE: &str = "Content-Length: 9";

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_no_place_is_told_to_come_again_and_the_place_comes_back() {
    let service = Running::with(|file| file.limits.requests = 1).await;
    let held = half(&service, NINE);
    // Until the place is taken, requests get through.
    let refused = loop {
        let response = service.get("/v1/policies").await;
        if response.status() == 503 {
            break response;
        }
        assert_eq!(response.status(), 200);
    };
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(code(&refused.json().await.unwrap()), "busy");
    let open = service.client.get(service.url("/healthz")).send().await.unwrap();
    assert_eq!(open.status(), 200, "what is open to all goes on");
    let stranger = service.client.get(service.url("/v1/policies")).send().await.unwrap();
    assert_eq!(stranger.status(), 401, "a stranger learns nothing of it");
    assert_eq!(&begun(&held, "\"no JSON\""), b"HTTP/1.1 400");
    assert_eq!(service.get("/v1/policies").await.status(), 200);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_socket_is_a_way_in_with_the_same_keys() {
    use std::os::unix::fs::PermissionsExt as _;
    let service = Running::with(|file| file.local_socket = true).await;
    let folder = service.folder.path().join("local");
    let path = folder.join("verifier.sock");
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&path)), (0o700, 0o600));
    let ask = |authorization: &str| {
        let mut line = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let head = format!("GET /v1/policies HTTP/1.1\r\nHost: a\r\n{authorization}Connection: close\r\n\r\n");
        line.write_all(head.as_bytes()).unwrap();
        let mut all = String::new();
        line.read_to_string(&mut all).unwrap();
        all
    };
    assert!(ask("").starts_with("HTTP/1.1 401"));
    let said = ask(&format!("Authorization: Bearer {}\r\n", service.key));
    assert!(said.starts_with("HTTP/1.1 200") && said.contains("\"strict\""), "{said}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_caller_does_not_take_every_place() {
    let (other, digest) = coffer_verifier_service::new_key([8; 32]);
    let service = Running::with(|file| {
        file.limits.requests_of_one = 1;
        file.api_keys.push(coffer_verifier_service::KeyEntry { name: "other".into(), sha256: hex::encode(digest) });
    })
    .await;
    let held = half(&service, NINE);
    let by_other = |path: &str| service.client.get(service.url(path)).bearer_auth(&other).send();
    // It has its caller's place once there are two requests: it, and the one that asks. Asked by the other, which takes no place of its.
    while !by_other("/metrics").await.unwrap().text().await.unwrap().contains("coffer_verifier_requests 2\n") {}
    let refused = service.get("/v1/policies").await;
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(code(&refused.json().await.unwrap()), "caller-busy");
    let others = by_other("/v1/policies").await.unwrap();
    assert_eq!(others.status(), 200, "there are places for others");
    assert_eq!(&begun(&held, "\"no JSON\""), b"HTTP/1.1 400");
    assert_eq!(service.get("/v1/policies").await.status(), 200);
    service.stop().await;
}

/// On one processor, all of them there before the first is judged: each is let in or told to come again, and none waits behind others.
#[tokio::test]
async fn nobody_is_judged_before_others_are_let_in_or_sent_away() {
    let service = Running::with(|file| (file.limits.requests, file.limits.requests_of_one) = (2, 2)).await;
    let body = with(asks(&evidence(now(), [5; 64])), json!({ "policy": "lab" })).to_string();
    let head = format!(
        "POST /v1/appraise HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        service.key,
        body.len()
    );
    let lines: Vec<_> = (0..8)
        .map(|_| {
            let mut line = TcpStream::connect(service.address).unwrap();
            line.write_all(format!("{head}{body}").as_bytes()).unwrap();
            line
        })
        .collect();
    let answers = tokio::task::spawn_blocking(move || {
        let status = |mut line: TcpStream| {
            let mut all = Vec::new();
            line.read_to_end(&mut all).unwrap();
            String::from_utf8_lossy(&all[9..12]).into_owned()
        };
        lines.into_iter().map(status).collect::<Vec<_>>()
    });
    let answers = answers.await.unwrap();
    let of = |status: &str| answers.iter().filter(|answer| *answer == status).count();
    assert_eq!(of("200") + of("503"), 8, "{answers:?}");
    assert!(of("200") >= 2 && of("503") >= 4, "{answers:?}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_no_body_is_not_waited_for() {
    let service = Running::with(|file| file.limits.request_seconds = 1).await;
    let held = half(&service, NINE);
    let answer = tokio::task::spawn_blocking(move || begun(&held, ""));
    assert_eq!(&answer.await.unwrap(), b"HTTP/1.1 503");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_connection_makes_room_for_others() {
    let service = Running::with(|file| (file.limits.head_seconds, file.limits.request_seconds) = (1, 1)).await;
    // HTTP/2 (RFC 9113): its preface with empty settings, and a stream that asks for `/`.
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    let asked = [&preface[..], &[0, 0, 6, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84, 0x41, 1, b'a']].concat();
    let sent = [
        Vec::new(),
        b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"GET /v1/policies HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer wrong\r\n\r\n".to_vec(),
        preface,
        asked,
    ];
    let lines = sent.map(|sent| {
        let mut line = TcpStream::connect(service.address).unwrap();
        line.write_all(&sent).unwrap();
        line
    });
    // Each is hung up on, whatever it has said: nobody here says that it wants to end.
    let ended = tokio::task::spawn_blocking(move || {
        lines.map(|mut line| {
            let mut all = Vec::new();
            line.read_to_end(&mut all).unwrap();
            all
        })
    });
    let [silent, open, refused, settings, stream] = ended.await.unwrap();
    assert!(silent.is_empty() && !settings.is_empty());
    assert!(open.starts_with(b"HTTP/1.1 200") && refused.starts_with(b"HTTP/1.1 401"));
    assert!(stream.windows(15).any(|words| words == b"<!DOCTYPE html>"), "it was answered before");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_have_all_connections_keep_no_caller_out() {
    let service = Running::with(|file| (file.limits.connections, file.limits.head_seconds) = (8, 30)).await;
    // A line for each question: a kept one of nobody's would give way as theirs do.
    let client = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
    let get = async |path: &str| client.get(service.url(path)).send().await.unwrap();
    // Each as new as it can be: the oldest gives way.
    let mut idle: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(service.address).unwrap()).collect();
    for _ in 0..20 {
        assert_eq!(get("/healthz").await.status(), 200);
        idle.push(TcpStream::connect(service.address).unwrap());
    }
    assert!(!get("/metrics").await.text().await.unwrap().contains("{why=\"place\"} 0\n"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_lets_what_was_begun_finish_and_begins_nothing() {
    let service = Running::start().await;
    let held = half(&service, NINE);
    // It is under way once its place is taken.
    loop {
        let metrics = service.get("/metrics").await.text().await.unwrap();
        // Ours, and the one that is held.
        if metrics.contains("coffer_verifier_requests 2\n") {
            break;
        }
    }
    let (address, url) = (service.address, service.url("/healthz"));
    let client = service.client.clone();
    let stopping = tokio::spawn(service.stop());
    // Whoever connects anew finds nobody, sooner or later.
    while TcpStream::connect(address).is_ok_and(|_| !stopping.is_finished()) {
        tokio::task::yield_now().await;
    }
    assert!(client.get(url).send().await.is_err());
    assert_eq!(&begun(&held, "\"no JSON\""), b"HTTP/1.1 400");
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_no_form_inside_good_json_are_refused_too() {
    let service = Running::start().await;
    let mut report = evidence(now(), [5; 64]).report;
    report.pop();
    let (status, error) = service.appraise(&json!({ "evidence": STANDARD.encode(report), "report_data": "any" })).await;
    assert_eq!((status, code(&error)), (400, "malformed-evidence"));
    service.stop().await;
}

/// What is said to whoever sends all of a long request before it listens.
fn sent_first(service: &Running, key: &str, bytes: usize) -> String {
    let mut stream = TcpStream::connect(service.address).unwrap();
    let head = format!(
        "POST /v1/appraise HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: {bytes}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&vec![b' '; bytes]).unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_who_sends_before_listening() {
    let service = Running::start().await;
    let limit = 2 << 20;
    for (key, bytes, status, word) in [
        ("wrong", 3 << 20, "401", "unauthenticated"),
        (service.key.as_str(), limit + 1, "413", "too-long"),
        (service.key.as_str(), 2 * limit, "413", "too-long"),
    ] {
        let said = sent_first(&service, key, bytes);
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")) && said.contains(word), "{said}");
        assert!(said.contains("connection: close\r\n"), "{said}");
    }
    // Who waits to be asked is not asked to send.
    let held = half(&service, "Expect: 100-continue\r\nContent-Length: 3000000");
    assert_eq!(&begun(&held, ""), b"HTTP/1.1 413");
    for (key, status) in [("wrong", 401), (service.key.as_str(), 413)] {
        assert_eq!(over_http2(&service, key, 3 << 20).await, status);
    }
    // Who sends for ever is hung up on.
    let endless = half(&service, "Transfer-Encoding: chunked");
    let sent = tokio::task::spawn_blocking(move || {
        let piece = [b"100000\r\n".as_slice(), &vec![b' '; 1 << 20], b"\r\n"].concat();
        (0..1000).take_while(|_| (&endless).write_all(&piece).is_ok()).count()
    });
    assert!(sent.await.unwrap() < 100, "and what is on the way is bounded");
    service.stop().await;
}

/// The same over HTTP/2: its status, once all of it is sent.
async fn over_http2(service: &Running, key: &str, bytes: usize) -> u16 {
    let stream = tokio::net::TcpStream::connect(service.address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(service.url("/v1/appraise"))
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/json")
        .body(())
        .unwrap();
    let (response, mut body) = client.ready().await.unwrap().send_request(request, false).unwrap();
    let mut left = bytes;
    while left > 0 {
        body.reserve_capacity(left.min(1 << 16));
        let room = std::future::poll_fn(|cx| body.poll_capacity(cx)).await.unwrap().unwrap();
        left -= room;
        body.send_data(vec![b' '; room].into(), left == 0).unwrap();
    }
    response.await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn where_anyone_may_ask_a_page_of_another_name_may_not() {
    let service = Running::with(|file| {
        file.api_keys.clear();
        file.anyone_who_connects_may_ask = true;
    })
    .await;
    let ask = |host: &str| {
        let mut stream = TcpStream::connect(service.address).unwrap();
        let head = format!("GET /v1/decisions HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        all
    };
    for host in ["localhost", "127.0.0.1:4490", "[::1]"] {
        assert!(ask(&format!("Host: {host}\r\n")).starts_with("HTTP/1.1 200"), "{host}");
    }
    let other = ask("Host: rebound.example:4490\r\n");
    assert!(other.starts_with("HTTP/1.1 421") && other.contains("other-host"), "{other}");
    service.stop().await;
}
