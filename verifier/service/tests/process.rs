//! The program: what `init` makes, what `check` says, how `serve` begins, reads again and ends; and that floods leave nothing behind.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use coffer_verifier_service::ConfigFile;
use serde_json::Value;

use crate::common::{config, roots};
use crate::grpc::{Raw, appraise, keyed};
use crate::mutate::mutate;

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_coffer-verifier"))
}

fn run(words: &[&str]) -> Output {
    program().args(words).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn init_makes_what_serve_needs_and_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let state = state.to_str().unwrap();
    let made = run(&["init", "--json", "--state", state, "--issuer", "https://verifier.example"]);
    assert!(made.status.success(), "{}", text(&made));
    let said: Value = serde_json::from_slice(&made.stdout).unwrap();
    let key = said["api_key"].as_str().unwrap();
    for (name, mode) in [
        ("", 0o700),
        ("challenge.key", 0o600),
        ("tokens.json", 0o600),
        ("tls-key.pem", 0o600),
        ("config.toml", 0o600),
        ("tls.pem", 0o644),
    ] {
        let path = Path::new(state).join(name);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode, "{name}");
        if !name.is_empty() {
            assert!(!fs::read_to_string(&path).unwrap().contains(key), "{name} has the key that may ask");
        }
    }
    let checked = run(&["check", "--json", "--state", state]);
    assert!(checked.status.success(), "{}", text(&checked));
    let said: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!((&said["default"], &said["tls"]), (&"strict".into(), &true.into()));
    let again = run(&["init", "--state", state]);
    assert_eq!(again.status.code(), Some(3));
    assert!(text(&again).contains("not empty"), "{}", text(&again));
}

#[test]
fn check_says_every_mistake_and_serve_does_not_begin() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().to_str().unwrap();
    fs::write(folder.path().join("config.toml"), "listen = 4490\nskip_checks = true\n[limits]\nrequests = \"all\"\n")
        .unwrap();
    for command in ["check", "serve"] {
        let output = run(&[command, "--state", state]);
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        let said = text(&output);
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines[0], "coffer-verifier: configuration has 4 mistakes", "{command}: {said}");
        for word in ["challenge_key is missing", "listen: ", "skip_checks: ", "limits.requests: "] {
            let own = lines.iter().filter(|line| line.strip_prefix("  ").is_some_and(|line| line.starts_with(word)));
            assert_eq!(own.count(), 1, "{command}: {said}");
        }
        let listed = run(&[command, "--json", "--state", state]);
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
        assert_eq!(listed["error"]["mistakes"].as_array().map(Vec::len), Some(4), "{listed}");
    }
}

#[test]
fn an_api_key_is_printed_with_the_lines_that_list_it() {
    let output = run(&["api-key", "--name", "ci"]);
    let lines = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    // Nobody reads it there: it is the key alone.
    let key = said.trim_end();
    assert!(key.starts_with("coffer-verifier-") && !lines.contains(key), "{said}");
    let entry: toml::Table = toml::from_str(&lines).unwrap();
    use sha2::Digest as _;
    assert_eq!(entry["api_keys"][0]["sha256"].as_str().unwrap(), hex::encode(sha2::Sha256::digest(key)));
}

#[test]
fn the_document_is_printed_too() {
    let output = run(&["openapi"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), coffer_verifier_service::openapi());
}

/// The program, serving in plain HTTP.
pub struct Served {
    child: Child,
    pub address: String,
    pub key: String,
    state: PathBuf,
}

impl Served {
    pub fn start(folder: &Path) -> Self {
        Self::with(folder, |_| {})
    }

    pub fn with(folder: &Path, change: impl FnOnce(&mut ConfigFile)) -> Self {
        let (mut file, key) = config(folder);
        change(&mut file);
        fs::write(folder.join("config.toml"), toml::to_string(&file).unwrap()).unwrap();
        let log = fs::File::create(folder.join("log")).unwrap();
        let mut command = program();
        command.args(["serve", "--json", "--state"]).arg(folder).env_remove("RUST_LOG").env_remove("COFFER_LOG");
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        Self { child, address: ready["listen"].as_str().unwrap().to_owned(), key, state: folder.to_owned() }
    }

    pub fn figures(&self) -> String {
        let (status, figures, _) = self.line().ask("GET", "/metrics", &self.key, b"");
        assert_eq!(status, 200);
        figures
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.state.join("log")).unwrap()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Kilobytes that are resident.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    fn line(&self) -> Line {
        Line(BufReader::new(TcpStream::connect(&self.address).unwrap()))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One connection that speaks HTTP/1.1.
struct Line(BufReader<TcpStream>);

impl Line {
    /// Status, and whether it goes on.
    fn ask(&mut self, method: &str, path: &str, key: &str, body: &[u8]) -> (u16, String, bool) {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.0.get_mut().write_all(&[head.as_bytes(), body].concat()).unwrap();
        let (mut status, mut length, mut goes_on) = (0, 0, true);
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            let line = line.trim_end().to_lowercase();
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest[..3].parse().unwrap();
            }
            if let Some(rest) = line.strip_prefix("content-length: ") {
                length = rest.parse().unwrap();
            }
            goes_on &= line != "connection: close";
            if line.is_empty() {
                break;
            }
        }
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer).unwrap();
        (status, String::from_utf8(answer).unwrap(), goes_on)
    }
}

#[test]
fn a_state_folder_that_others_reach_is_said() {
    for (mode, said) in [(0o700, false), (0o777, true)] {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
        let served = Served::start(folder.path());
        assert_eq!(served.log().contains("others reach the state folder"), said, "{mode:o}: {}", served.log());
    }
}

#[test]
fn a_reload_counts_whole_or_not_at_all_and_the_end_is_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut served = Served::start(folder.path());
    let names = |served: &Served| {
        let (status, answer, _) = served.line().ask("GET", "/v1/policies", &served.key, b"");
        assert_eq!(status, 200);
        let answer: Value = serde_json::from_str(&answer).unwrap();
        answer["policies"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let told = |served: &Served, words: &str| {
        served.signal(rustix::process::Signal::HUP);
        while !served.log().contains(words) {
            std::thread::yield_now();
        }
    };
    assert_eq!(names(&served), ["gated", "lab", "strict"]);
    let path = folder.path().join("config.toml");
    let before = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{before}\n[policies.more]\nfloor = \"none.toml\"\n")).unwrap();
    told(&served, "was not read again");
    assert_eq!(names(&served), ["gated", "lab", "strict"], "a mistake changes nothing");
    let root = &roots()[0];
    fs::write(&path, format!("{before}\n[policies.more]\nsimulated_evidence_is_believed_of = [\"{root}\"]\n")).unwrap();
    told(&served, "read again: it counts");
    assert_eq!(names(&served), ["gated", "lab", "more", "strict"]);
    served.signal(rustix::process::Signal::TERM);
    assert_eq!(served.child.wait().unwrap().code(), Some(0));
    assert!(!served.log().contains("panicked"), "{}", served.log());
}

/// Seeds of the fuzzers, and mutations of them, as bodies and inside good JSON.
fn malformed() -> impl Iterator<Item = Vec<u8>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let mut seeds = Vec::new();
    for target in ["report", "certificate", "crl", "cert_table", "hcl", "cmw", "tsm", "token", "manifest", "policy"] {
        let mut files: Vec<_> = fs::read_dir(corpus.join(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        seeds.extend(files.iter().map(|file| fs::read(file).unwrap()));
    }
    assert!(seeds.len() > 15);
    let mut state = 0x5eed;
    (0..10_000).map(move |round| {
        let bent = mutate(&seeds[round % seeds.len()], &mut state);
        if round % 2 == 0 {
            return bent;
        }
        // Evidence in a form that is none: one byte is missing of what tells a report.
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let wrapped = STANDARD.encode([&[0xff][..], &bent].concat());
        format!(r#"{{"evidence":"{wrapped}","report_data":"any","policy":"lab"}}"#).into_bytes()
    })
}

#[test]
fn ten_thousand_malformed_bodies_get_an_error_each_and_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path());
    let mut line = served.line();
    let (mut warm, mut asked) = (0, 0);
    for body in malformed() {
        let (status, answer, goes_on) = line.ask("POST", "/v1/appraise", &served.key, &body);
        assert!((400..500).contains(&status), "{status}: {answer}");
        assert!(answer.len() < 2000, "{answer}");
        if !goes_on {
            line = served.line();
        }
        asked += 1;
        if asked == 1000 {
            warm = served.resident();
        }
    }
    assert_eq!(asked, 10_000);
    let grown = served.resident().saturating_sub(warm);
    assert!(grown < 16 << 10, "{grown} kB more than after the first thousand");
    assert!(served.log().lines().count() < 5, "{}", served.log());
    let (status, figures, _) = served.line().ask("GET", "/metrics", &served.key, b"");
    assert_eq!(status, 200);
    assert!(figures.contains("coffer_verifier_requests_refused_total{why=\"request\"} 10000"), "{figures}");
}

#[test]
fn ten_thousand_malformed_messages_get_an_error_each_over_grpc_and_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path());
    let asking = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    asking.block_on(async {
        let line = tonic::transport::Endpoint::new(format!("http://{}", served.address)).unwrap();
        let mut client = tonic::client::Grpc::new(line.connect().await.unwrap());
        let mut warm = 0;
        for (at, body) in malformed().enumerate() {
            client.ready().await.unwrap();
            let error = client.unary(keyed(body, &served.key), appraise(), Raw).await.unwrap_err();
            assert_eq!(error.code(), tonic::Code::InvalidArgument, "{at}: {error}");
            assert!(error.message().len() < 2000, "{error}");
            if at == 1000 {
                warm = served.resident();
            }
        }
        let grown = served.resident().saturating_sub(warm);
        assert!(grown < 16 << 10, "{grown} kB more than after the first thousand");
    });
    assert!(served.log().lines().count() < 5, "{}", served.log());
    let (_, figures, _) = served.line().ask("GET", "/metrics", &served.key, b"");
    assert!(figures.contains("coffer_verifier_requests_refused_total{why=\"request\"} 10000"), "{figures}");
}

#[test]
fn strangers_do_not_fill_the_log_either() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path());
    let mut line = served.line();
    for _ in 0..2000 {
        let (status, _, goes_on) = line.ask("POST", "/v1/appraise", "coffer-verifier-none", b"{}");
        assert_eq!(status, 401);
        if !goes_on {
            line = served.line();
        }
    }
    assert!(served.log().lines().count() < 5, "{}", served.log());
}
