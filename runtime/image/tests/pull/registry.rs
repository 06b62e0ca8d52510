//! A registry on loopback that fails on request, and images for it.

use coffer_image::Digest;
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// This status instead of an answer.
    Status(u16),
    /// Status 429, with this after `Retry-After`.
    Busy(&'static str),
    /// The connection closes after this many bytes of the body.
    Cut(usize),
    /// Status 404 over the body that is there.
    Refuse,
    /// This length is claimed, and bytes are sent until somebody hangs up.
    Claim(u64),
    /// No length is claimed, and bytes are sent until somebody hangs up.
    Endless,
    /// This status, with such a body.
    EndlessStatus(u16),
    /// Header lines until somebody hangs up.
    EndlessHead,
    /// A byte of the head now and then, until somebody hangs up.
    DripHead,
    /// This status, and a byte of its body now and then.
    Drip(u16),
}

#[derive(Default)]
struct State {
    answers: BTreeMap<String, (String, Vec<u8>)>,
    faults: BTreeMap<String, VecDeque<Fault>>,
    redirects: BTreeMap<String, String>,
    requests: Vec<String>,
    sent: u64,
    credentials: Option<String>,
    challenge: Option<String>,
    forms: Vec<String>,
}

impl State {
    /// Status, header lines and body of the answer to a request that brings something.
    fn taken(&mut self, method: &str, path: &str, kind: &str, bytes: Vec<u8>) -> (u16, String, Vec<u8>) {
        let (place, query) = path.split_once('?').unwrap_or((path, ""));
        match (method, place.strip_suffix("/blobs/uploads/")) {
            ("HEAD", _) if self.answers.contains_key(path) => (200, String::new(), Vec::new()),
            ("POST", Some(repository)) => {
                (202, format!("Location: {repository}/blobs/uploads/1?state=x\r\n"), Vec::new())
            }
            ("POST", _) => match self.answers.get(path) {
                Some((_, answer)) => {
                    self.forms.push(String::from_utf8(bytes).unwrap());
                    (200, String::new(), answer.clone())
                }
                None => (404, String::new(), Vec::new()),
            },
            ("PUT", _) if place.contains("/uploads/") => {
                let digest =
                    query.split('&').find_map(|part| part.strip_prefix("digest=")).unwrap().replace("%3A", ":");
                if digest != Digest::of(&bytes).to_string() {
                    let body = br#"{"errors":[{"code":"DIGEST_INVALID","message":"other bytes"}]}"#.to_vec();
                    return (400, String::new(), body);
                }
                let repository = place.split("/blobs/").next().unwrap();
                self.answers
                    .insert(format!("{repository}/blobs/{digest}"), ("application/octet-stream".to_owned(), bytes));
                (201, String::new(), Vec::new())
            }
            ("PUT", _) => {
                let digest = Digest::of(&bytes);
                let folder = place.rsplit_once('/').unwrap().0;
                self.answers.insert(format!("{folder}/{digest}"), (kind.to_owned(), bytes.clone()));
                self.answers.insert(place.to_owned(), (kind.to_owned(), bytes));
                (201, format!("Docker-Content-Digest: {digest}\r\n"), Vec::new())
            }
            _ => (404, String::new(), Vec::new()),
        }
    }
}

/// Serves until the test process ends.
#[derive(Clone)]
pub struct Registry {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Registry {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let registry = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let serving = registry.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(&stream));
            }
        });
        registry
    }

    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    pub fn put(&self, path: &str, media_type: &str, bytes: &[u8]) {
        self.state.lock().unwrap().answers.insert(path.to_owned(), (media_type.to_owned(), bytes.to_vec()));
    }

    pub fn fail(&self, path: &str, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().unwrap().faults.entry(path.to_owned()).or_default().extend(faults);
    }

    /// Sends whoever asks for this path on to an address.
    pub fn redirect(&self, path: &str, to: &str) {
        self.state.lock().unwrap().redirects.insert(path.to_owned(), to.to_owned());
    }

    /// Asks for `user:password`, given in base64.
    pub fn require(&self, credentials: &str) {
        self.state.lock().unwrap().credentials = Some(format!("Basic {credentials}"));
    }

    /// Asks for the token `good`, which `/token` gives.
    pub fn require_token(&self) {
        let mut state = self.state.lock().unwrap();
        state.credentials = Some("Bearer good".to_owned());
        state.challenge = Some(format!("Bearer realm=\"http://{}/token\",service=\"test\"", self.address));
        drop(state);
        for actions in ["pull", "pull%2Cpush"] {
            let path = format!("/token?scope=repository%3Aapp%3A{actions}&service=test");
            self.put(&path, "application/json", br#"{"token":"good"}"#);
        }
    }

    /// Asks for the token `good`, which `/token` gives for a form alone; forms that came so far.
    pub fn require_token_for_a_form(&self) {
        self.require_token();
        self.put("/token", "application/json", br#"{"access_token":"good"}"#);
    }

    pub fn forms(&self) -> Vec<String> {
        self.state.lock().unwrap().forms.clone()
    }

    /// Bytes sent in answers without end.
    pub fn sent(&self) -> u64 {
        self.state.lock().unwrap().sent
    }

    /// Requests since the last call, `path` or `path range`.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    /// Uploads an image under a tag and by digest.
    pub fn push(&self, name: &str, tag: &str, image: &TestImage) {
        let manifest = image.manifest();
        for reference in [tag.to_owned(), Digest::of(&manifest).to_string()] {
            self.put(&format!("/v2/{name}/manifests/{reference}"), MANIFEST_TYPE, &manifest);
        }
        for blob in image.layers.iter().map(|layer| &layer.blob).chain([&image.config()]) {
            self.put(&blob_path(name, blob), "application/octet-stream", blob);
        }
    }

    /// Answers without end; whether the fault was one of those.
    fn flood(&self, mut stream: &TcpStream, fault: Fault) -> bool {
        if let Fault::DripHead | Fault::Drip(_) = fault {
            let head = match fault {
                Fault::Drip(status) => format!("HTTP/1.1 {status} Word\r\nConnection: close\r\n\r\n"),
                _ => "HTTP/1.1 200 Word\r\nX-Filler: ".to_owned(),
            };
            let _ = stream.write_all(head.as_bytes());
            while stream.write_all(b" ").is_ok() {
                self.state.lock().unwrap().sent += 1;
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            return true;
        }
        let (status, length, filler) = match fault {
            Fault::Claim(length) => (200, format!("Content-Length: {length}\r\n\r\n"), vec![b' '; 64 << 10]),
            Fault::Endless => (200, "\r\n".to_owned(), vec![b' '; 64 << 10]),
            Fault::EndlessStatus(status) => (status, "\r\n".to_owned(), vec![b' '; 64 << 10]),
            Fault::EndlessHead => {
                (200, String::new(), b"X-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(100))
            }
            _ => return false,
        };
        let head = format!("HTTP/1.1 {status} Word\r\nConnection: close\r\n{length}");
        let _ = stream.write_all(head.as_bytes());
        // Enough to hurt whoever keeps it.
        while self.sent() < 2 << 30 && stream.write_all(&filler).is_ok() {
            self.state.lock().unwrap().sent += filler.len() as u64;
        }
        true
    }

    /// What was uploaded under a path.
    pub fn stored(&self, path: &str) -> Option<(String, Vec<u8>)> {
        self.state.lock().unwrap().answers.get(path).cloned()
    }

    fn serve(&self, stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        let mut lines = reader.by_ref().lines().map_while(Result::ok);
        let Some(request) = lines.next() else { return };
        let (mut length, mut kind) = (0, String::new());
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        let (mut from, mut authorization) = (None, None);
        for line in lines.by_ref().take_while(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').unwrap_or_default();
            match name.to_ascii_lowercase().as_str() {
                "range" => {
                    from = value.trim().strip_prefix("bytes=").and_then(|it| it.trim_end_matches('-').parse().ok());
                }
                "content-length" => length = value.trim().parse().unwrap(),
                "content-type" => value.trim().clone_into(&mut kind),
                "authorization" => authorization = Some(value.trim().to_owned()),
                _ => {}
            }
        }
        let method = request.split(' ').next().unwrap_or_default();
        let mut sent_here = vec![0; length];
        if reader.read_exact(&mut sent_here).is_err() {
            return;
        }
        let mut state = self.state.lock().unwrap();
        if method != "GET" {
            state.requests.push(format!("{method} {path}"));
            let expected = state.credentials.clone().filter(|_| !path.starts_with("/token"));
            let fault = state.faults.get_mut(&format!("{method} {path}")).and_then(VecDeque::pop_front);
            let challenge = state.challenge.clone().unwrap_or_else(|| "Basic realm=\"test\"".to_owned());
            let redirect = state.redirects.get(&path).cloned();
            let (status, head, body) = match fault {
                _ if redirect.is_some() => (307, format!("Location: {}\r\n", redirect.unwrap_or_default()), Vec::new()),
                _ if expected.is_some() && expected != authorization => {
                    (401, format!("WWW-Authenticate: {challenge}\r\n"), Vec::new())
                }
                Some(Fault::Status(status)) => (status, String::new(), Vec::new()),
                _ => state.taken(method, &path, &kind, sent_here),
            };
            drop(state);
            let length = body.len();
            let head = format!("HTTP/1.1 {status} Word\r\n{head}Content-Length: {length}\r\nConnection: close\r\n\r\n");
            let mut stream = stream;
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
            return;
        }
        state.requests.push(from.map_or_else(|| path.clone(), |from: usize| format!("{path} {from}")));
        let fault = state.faults.get_mut(&path).and_then(VecDeque::pop_front);
        let answer = state.answers.get(&path).cloned();
        let refused = state.credentials.is_some() && state.credentials != authorization && !path.starts_with("/token");
        let challenge = state.challenge.clone().unwrap_or_else(|| "Basic realm=\"test\"".to_owned());
        let redirect = state.redirects.get(&path).cloned();
        drop(state);
        if let Some(to) = redirect {
            let head = format!("HTTP/1.1 307 Word\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let mut stream = stream;
            let _ = stream.write_all(head.as_bytes());
            return;
        }
        if let (false, Some(fault)) = (refused, fault)
            && self.flood(stream, fault)
        {
            return;
        }
        let unknown = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#.to_vec();
        let (status, kind, body) = match (fault, answer) {
            _ if refused => (401, "text/plain".to_owned(), Vec::new()),
            (Some(Fault::Status(status)), _) => (status, "text/plain".to_owned(), b"not now".to_vec()),
            (Some(Fault::Busy(_)), _) => (429, "text/plain".to_owned(), b"not now".to_vec()),
            (Some(Fault::Refuse), Some((kind, body))) => (404, kind, body),
            (_, Some((kind, body))) => match from {
                Some(from) => (206, kind, body.get(from..).unwrap_or_default().to_vec()),
                None => (200, kind, body),
            },
            _ if path == "/v2/" => (200, "application/json".to_owned(), b"{}".to_vec()),
            _ => (404, "application/json".to_owned(), unknown),
        };
        let sent = if let Some(Fault::Cut(length)) = fault { &body[..length.min(body.len())] } else { &body };
        let challenge = match fault {
            _ if status == 401 => format!("WWW-Authenticate: {challenge}\r\n"),
            Some(Fault::Busy(after)) => format!("Retry-After: {after}\r\n"),
            _ => String::new(),
        };
        let head = format!(
            "HTTP/1.1 {status} Word\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{challenge}Connection: close\r\n\r\n",
            body.len()
        );
        let mut stream = stream;
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(sent));
    }
}

pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

pub fn blob_path(name: &str, blob: &[u8]) -> String {
    format!("/v2/{name}/blobs/{}", Digest::of(blob))
}

#[derive(Clone)]
pub struct Layer {
    pub blob: Vec<u8>,
    pub diff_id: Digest,
}

impl Layer {
    /// Files with contents, gzipped.
    pub fn new(files: &[(&str, &[u8])]) -> Self {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, data) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            header.set_mode(0o755);
            header.set_mtime(1_700_000_000);
            builder.append_data(&mut header, path, *data).unwrap();
        }
        Self::of_tar(&builder.into_inner().unwrap())
    }

    /// An archive, gzipped.
    pub fn of_tar(tar: &[u8]) -> Self {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(tar).unwrap();
        Self { blob: encoder.finish().unwrap(), diff_id: Digest::of(tar) }
    }

    pub fn digest(&self) -> Digest {
        Digest::of(&self.blob)
    }
}

#[derive(Clone)]
pub struct TestImage {
    pub layers: Vec<Layer>,
    pub architecture: &'static str,
    pub volumes: &'static [&'static str],
}

impl TestImage {
    pub fn new(layers: Vec<Layer>) -> Self {
        Self { layers, architecture: "amd64", volumes: &[] }
    }

    /// Two layers, some 200 KiB that do not compress.
    pub fn sample() -> Self {
        Self::new(vec![
            Layer::new(&[("bin/sh", &noise(100_000)), ("etc/a", b"a")]),
            Layer::new(&[("bin/x", &noise(99_999))]),
        ])
    }

    pub fn config(&self) -> Vec<u8> {
        let ids: Vec<_> = self.layers.iter().map(|layer| layer.diff_id.to_string()).collect();
        let mut config = serde_json::json!({"Entrypoint": ["/bin/sh"], "Env": ["A=b"], "User": "7:8"});
        if !self.volumes.is_empty() {
            config["Volumes"] = self.volumes.iter().map(|path| ((*path).to_owned(), serde_json::json!({}))).collect();
        }
        serde_json::to_vec(&serde_json::json!({
            "architecture": self.architecture, "os": "linux", "created": "2026-01-01T00:00:00Z",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": ids},
        }))
        .unwrap()
    }

    pub fn manifest(&self) -> Vec<u8> {
        let layers: Vec<_> = self
            .layers
            .iter()
            .map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer.blob))
            .collect();
        serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST_TYPE,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &self.config()), "layers": layers,
        }))
        .unwrap()
    }
}

pub fn descriptor(kind: &str, bytes: &[u8]) -> serde_json::Value {
    serde_json::json!({"mediaType": kind, "digest": Digest::of(bytes).to_string(), "size": bytes.len()})
}

/// Bytes gzip cannot shorten, the same each time for one length.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = length as u64 | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(length)
    .collect()
}
