use std::process::Command;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::workload_api::call::CALLS;

const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients");

/// Says what it was asked, and with how much.
struct Echo;

impl Guest for Echo {
    async fn answer(&self, call: Call, body: Zeroizing<Vec<u8>>) -> Result<Answer, Refusal> {
        if let Call::Secret { path, .. } = &call
            && path.tag() == "refused"
        {
            let cause = coffer_kbs_client::ClientError::Refused { code: "not-released".into(), id: "00ab".into() };
            return Err(Refusal::from(&cause));
        }
        if let Call::Secret { path, .. } = &call
            && path.tag() == "large"
        {
            let body = vec![b'l'; 8 << 20];
            return Ok(Answer { content_type: "application/octet-stream", headers: Vec::new(), body });
        }
        let headers = vec![("coffer-secret-version", "7".to_owned())];
        let body = format!("{call:?} {}", String::from_utf8_lossy(&body)).into_bytes();
        Ok(Answer { content_type: "application/octet-stream", headers, body })
    }
}

fn served() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(SOCKET);
    let mut limits = Limits::new(Instant::now());
    limits.patience = Duration::from_millis(500);
    tokio::spawn(serve(listen(&path).unwrap(), Arc::new(Api { guest: Echo, limits }), Call::read));
    (folder, path)
}

/// What the socket answers to these bytes, until it hangs up.
async fn said(path: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // Where it hangs up on a body that it does not want, the kernel says so behind the answer.
    if let Err(error) = stream.read_to_end(&mut answer).await {
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    String::from_utf8(answer).unwrap()
}

fn request(method: &str, target: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    bytes.push_str(&String::from_utf8_lossy(body));
    bytes.into_bytes()
}

#[tokio::test]
async fn a_call_is_answered_and_a_refusal_has_word_and_id() {
    let (_folder, path) = served();
    let answer = said(&path, &request("POST", "/v1/seal?context=db", b"state")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("cache-control: no-store"), "{answer}");
    assert!(answer.ends_with("} state"), "{answer}");
    let answer = said(&path, &request("GET", "/v1/secrets/a/b/refused", b"")).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(answer.contains(r#""error":"not-released""#) && answer.contains(r#""id":"00ab""#), "{answer}");
}

#[tokio::test]
async fn bodies_have_an_end_whether_or_not_they_say_so() {
    let (_folder, path) = served();
    let answer = said(&path, &request("GET", "/v1/secrets/a/b/c", b"x")).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let answer = said(&path, &request("POST", "/v1/evidence", &[b'x'; 4097])).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("more than 4096 bytes"), "{answer}");
    let mut chunked = b"POST /v1/evidence HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..3 {
        chunked.extend(b"800\r\n");
        chunked.extend([b'x'; 0x800]);
        chunked.extend(b"\r\n");
    }
    let answer = said(&path, &chunked).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let head = format!("GET /v1/secrets/a/b/c HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(limits::HEAD));
    assert!(said(&path, head.as_bytes()).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn too_many_calls_are_told_when_to_come_again() {
    let (_folder, path) = served();
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let mut answers = String::new();
    for _ in 0..80 {
        stream.write_all(b"POST /v1/evidence HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).await.unwrap();
        answers.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    assert!(answers.matches("HTTP/1.1 200").count() >= 40, "{answers}");
    assert!(answers.contains("HTTP/1.1 429") && answers.contains("retry-after: 1"), "{answers}");
}

/// Connections that say nothing take places, and give them back.
#[tokio::test]
async fn silent_connections_are_closed() {
    let (_folder, path) = served();
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(UnixStream::connect(&path).await.unwrap());
    }
    let answer = said(&path, &request("POST", "/v1/evidence", b"now")).await;
    assert!(answer.ends_with("Evidence now"), "{answer}");
}

/// An answer that nobody takes holds a place and a turn for as long as a request may be silent, and no longer.
#[tokio::test]
async fn readers_that_take_nothing_are_closed() {
    let (_folder, path) = served();
    let mut lazy = Vec::new();
    for _ in 0..8 {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(&request("GET", "/v1/secrets/a/b/large", b"")).await.unwrap();
        lazy.push(stream);
    }
    let answer = said(&path, &request("POST", "/v1/evidence", b"now")).await;
    assert!(answer.ends_with("Evidence now"), "{answer}");
    // It had its turn once all but one of them had given theirs back.
    let mut closed = 0;
    for mut stream in lazy {
        let mut taken = Vec::new();
        let _ = stream.read_to_end(&mut taken).await;
        closed += usize::from(taken.len() < 8 << 20);
    }
    assert!(closed >= 7, "{closed} of 8 were closed");
    let whole = said(&path, &request("GET", "/v1/secrets/a/b/large", b"")).await;
    assert!(whole.len() > 8 << 20, "{}", whole.len());
}

fn python(path: &Path, script: &str) -> String {
    let output = Command::new("python3").env("PYTHONPATH", CLIENTS).arg("-c").arg(script).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_client_asks_every_call() {
    let (_folder, path) = served();
    let script = r#"
import sys, coffer_agent
agent = coffer_agent.Agent(sys.argv[1])
value, version = agent.secret("app/db/password")
print(version, value.decode())
print(agent.secret("app/db/password", version=3)[0].decode())
print(agent.seal(b"state", context="a b", policy="workload").decode())
print(agent.seal(b"state", context="a b", policy="workload", counted=True).decode())
print(agent.seal(b"state", context="a b", replaces=b"file").decode())
print(agent.unseal(b"file", context="a b").decode())
print(agent.reseal(b"file", context="a b").decode())
print(agent.evidence(b"nonce").decode())
print(agent.certificate(b"csr", profile="server").decode())
print(agent.token(b"csr", audience="https://a.example", nonce=b"12345678"))
try:
    agent.secret("app/db/refused")
except coffer_agent.Refused as refused:
    print(refused.status, refused.word, refused.id)
try:
    agent.seal(bytes(8 << 20), context="a b")
except coffer_agent.Refused as refused:
    print(refused.status, refused.word)
"#;
    let out = tokio::task::spawn_blocking(move || python(&path, script)).await.unwrap();
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines.len(), 12, "{out}");
    for (line, expected) in lines.iter().zip([
        "7 Secret {",
        "version: Some(3)",
        "policy: Workload, context: [97, 32, 98], counted: No } state",
        "counted: First } state",
        "counted: Replaces(4) } filestate",
        "Unseal { context: [97, 32, 98] } file",
        "Reseal { policy: None",
        "Evidence nonce",
        "Certificate { profile: \"server\" } csr",
        "Token { audience: Word(\"https://a.example\"), nonce: Some(Nonce(MTIzNDU2Nzg)) } csr",
        "403 not-released 00ab",
        "413 too-long",
    ]) {
        assert!(line.contains(expected), "{expected:?} in {line}");
    }
}

/// Both doors have the same limits, and each knows its own names of calls alone.
#[tokio::test]
async fn the_door_on_loopback_is_another_name_for_calls_and_not_another_measure() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(SOCKET);
    let api = Arc::new(Api { guest: Echo, limits: Limits::new(Instant::now()) });
    let loopback = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = loopback.local_addr().unwrap();
    tokio::spawn(serve(loopback, api.clone(), coco::read));
    tokio::spawn(serve(listen(&path).unwrap(), api, Call::read));
    let mut inside = TcpStream::connect(address).await.unwrap();
    inside.write_all(&request("GET", "/cdh/resource/app/db/password", b"")).await.unwrap();
    let mut answer = String::new();
    inside.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("app/db/password"), "{answer}");
    assert!(said(&path, &request("GET", "/cdh/resource/app/db/password", b"")).await.starts_with("HTTP/1.1 404"));
    let mut inside = TcpStream::connect(address).await.unwrap();
    inside.write_all(&request("POST", "/v1/evidence", b"")).await.unwrap();
    let mut answer = String::new();
    inside.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("/aa/evidence"), "{answer}");
    // What one door let in, the other has no more: twenty come back in a second, so that a machine with other work may need another try.
    let refused = async {
        loop {
            for _ in 0..80 {
                said(&path, &request("POST", "/v1/evidence", b"")).await;
            }
            let mut inside = TcpStream::connect(address).await.unwrap();
            inside.write_all(&request("GET", "/aa/evidence?runtime_data=x", b"")).await.unwrap();
            let mut answer = String::new();
            inside.read_to_string(&mut answer).await.unwrap();
            if answer.starts_with("HTTP/1.1 429") {
                return;
            }
        }
    };
    timeout(Duration::from_secs(30), refused).await.expect("the other door has a measure of its own");
}

/// The client of one file that Rust programs take along.
#[allow(dead_code, reason = "programs use more of it than its test")]
#[path = "../../clients/coffer_agent.rs"]
mod client;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rust_client_asks_every_call() {
    let (_folder, path) = served();
    let asked = tokio::task::spawn_blocking(move || {
        let agent = client::Agent::at(&path);
        let secret = agent.secret("app/db/password", None).unwrap();
        assert_eq!(secret.version, 7);
        let refused = agent.secret("app/db/refused", None).err().unwrap();
        assert!(
            matches!(&refused, client::Error::Refused { status: 403, word, .. } if word == "not-released"),
            "{refused:?}"
        );
        let long = agent.seal(&vec![0; 8 << 20], "a b", None).unwrap_err();
        assert!(matches!(&long, client::Error::Refused { status: 413, word, .. } if word == "too-long"), "{long:?}");
        [
            agent.secret("app/db/password", Some(3)).unwrap().value,
            agent.seal(b"state", "a b", Some("workload")).unwrap(),
            agent.seal_counted(b"state", "a b", "workload", None).unwrap(),
            agent.seal_counted(b"state", "a b", "workload", Some(b"file")).unwrap(),
            agent.unseal(b"file", "a b").unwrap(),
            agent.reseal(b"file", "a b", None).unwrap(),
            agent.evidence(b"nonce").unwrap(),
            agent.certificate(b"csr", "server").unwrap(),
            agent.token(b"csr", "https://a.example", Some("MTIzNDU2Nzg")).unwrap().into_bytes(),
        ]
        .map(|bytes| String::from_utf8(bytes).unwrap())
    });
    let said = asked.await.unwrap();
    for (line, expected) in said.iter().zip([
        "version: Some(3)",
        "policy: Workload, context: [97, 32, 98], counted: No } state",
        "counted: First } state",
        "counted: Replaces(4) } filestate",
        "Unseal { context: [97, 32, 98] } file",
        "Reseal { policy: None",
        "Evidence nonce",
        "Certificate { profile: \"server\" } csr",
        "Token { audience: Word(\"https://a.example\"), nonce: Some(Nonce(MTIzNDU2Nzg)) } csr",
    ]) {
        assert!(line.contains(expected), "{expected:?} in {line}");
    }
}

#[test]
fn the_openapi_file_has_the_calls_there_are() {
    let text = std::fs::read_to_string(format!("{CLIENTS}/openapi.json")).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut listed = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        listed.extend(methods.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())));
    }
    let mut expected = CALLS.map(|(method, path)| (method.to_owned(), path.to_owned()));
    expected.sort();
    listed.sort();
    assert_eq!(listed, expected);
}
