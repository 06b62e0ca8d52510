//! `coffer sim` and `coffer measure --firmware`, as a user calls them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const COFFER: &str = env!("CARGO_BIN_EXE_coffer");
const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors/measure/");

fn coffer(home: &Path, args: &[&str]) -> Output {
    Command::new(COFFER).env("COFFER_HOME", home).args(args).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(output)))
}

const VERIFY: &str =
    "verify \"$COFFER_EVIDENCE\" --anchor $COFFER_ANCHOR --policy \"$COFFER_POLICY\" --report-data $COFFER_REPORT_DATA";

#[test]
fn our_verifier_passes_its_own_check_and_one_that_says_yes_to_all_does_not() {
    let home = tempfile::tempdir().unwrap();
    let check = |command: &str, strict: bool| {
        let mut args = vec!["--json", "sim", "check", "--product", "turin", "--cmd", command];
        args.extend(strict.then_some("--strict"));
        coffer(home.path(), &args)
    };
    let ours = check(&format!("'{COFFER}' {VERIFY}"), true);
    assert_eq!(ours.status.code(), Some(0), "{}", text(&ours));
    assert_eq!(json(&ours)["wrong"], 0);

    let credulous = check("true", false);
    let attacks = json(&coffer(home.path(), &["--json", "sim", "attacks"])).as_array().unwrap().len();
    assert!(attacks >= 30);
    assert_eq!(credulous.status.code(), Some(6));
    assert_eq!(json(&credulous)["wrong"], attacks);

    let paranoid = json(&check("false", false));
    assert_eq!(paranoid["wrong"], 1, "it refuses good evidence: {paranoid}");
    assert_eq!(check("exec /nosuch/verifier", false).status.code(), Some(3));
}

#[test]
fn a_verifier_behind_a_url_is_checked_by_its_status() {
    let home = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/verify", listener.local_addr().unwrap());
    // Accepts whatever it gets.
    std::thread::spawn(move || {
        for line in listener.incoming() {
            let mut line = line.unwrap();
            let mut reader = BufReader::new(line.try_clone().unwrap());
            let (mut header, mut length) = (String::new(), 0);
            while reader.read_line(&mut header).unwrap() > 2 {
                if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                header.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            line.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        }
    });
    let output = coffer(home.path(), &["--json", "sim", "check", "--attack", "debug", "--url", &url]);
    assert_eq!(json(&output)["wrong"], 1, "{}", text(&output));
    let https = coffer(home.path(), &["sim", "check", "--url", "https://localhost/"]);
    assert_eq!(https.status.code(), Some(2));
}

#[test]
fn evidence_is_written_whole_and_believed_only_with_its_anchor() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("evidence");
    let out = out.to_str().unwrap();
    let made = json(&coffer(home.path(), &["--json", "sim", "evidence", "--product", "genoa", "--out", out]));
    let record = format!("{out}/evidence.cmw");
    let anchor = made["anchor"].as_str().unwrap();
    for name in ["report.bin", "ark.pem", "ask.der", "vcek.pem", "crl.der", "cert_table.bin", "policy.toml"] {
        assert!(Path::new(out).join(name).exists(), "{name}");
    }
    let believed = coffer(home.path(), &["verify", &record, "--anchor", anchor]);
    assert_eq!(believed.status.code(), Some(0), "{}", text(&believed));
    let doubted = coffer(home.path(), &["verify", &record]);
    assert_eq!(doubted.status.code(), Some(5), "{}", text(&doubted));

    let unknown = coffer(home.path(), &["sim", "evidence", "--attack", "nosuch", "--out", out]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown).contains("coffer sim attacks lists them"));
}

#[test]
fn the_simulated_kds_answers_over_http_and_fails_on_demand() {
    let home = tempfile::tempdir().unwrap();
    let get = |fault: &str, path: &str| {
        let mut server = Command::new(COFFER)
            .env("COFFER_HOME", home.path())
            .args(["sim", "kds", "--answers", "1", "--fault", fault])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(server.stdout.as_mut().unwrap()).read_line(&mut address).unwrap();
        let mut line = TcpStream::connect(address.trim().trim_start_matches("http://")).unwrap();
        write!(line, "GET {path} HTTP/1.1\r\nhost: kds\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        line.read_to_end(&mut answer).unwrap();
        assert!(server.wait().unwrap().success());
        String::from_utf8_lossy(&answer).into_owned()
    };
    let chain = get("none", "/vcek/v1/Milan/cert_chain");
    assert!(chain.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 2);
    assert!(get("429", "/vcek/v1/Milan/crl").starts_with("HTTP/1.1 429"));
    assert!(get("none", "/vcek/v1/Rome/crl").starts_with("HTTP/1.1 404"));
}

#[test]
fn measure_prints_the_digest_of_every_vector_whose_firmware_is_at_hand() {
    let vectors: Value = serde_json::from_slice(&std::fs::read(format!("{VECTORS}vectors.json")).unwrap()).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    for (name, about) in vectors["blobs"].as_object().unwrap() {
        let length = usize::try_from(about["length"].as_u64().unwrap()).unwrap();
        std::fs::write(scratch.path().join(name), stream(about["seed"].as_str().unwrap(), length)).unwrap();
    }
    let mut compared = 0;
    for case in vectors["cases"].as_array().unwrap() {
        let about = &vectors["firmware"][case["firmware"].as_str().unwrap()];
        let path = about["path"].as_str().unwrap();
        let path = if path.starts_with('/') { path.to_owned() } else { format!("{VECTORS}{path}") };
        if !Path::new(&path).exists() {
            continue;
        }
        let vcpus = case["vcpus"].to_string();
        let word = |name: &str| case[name].as_str();
        let blob = |name: &str| scratch.path().join(word(name).unwrap()).display().to_string();
        let mut args: Vec<String> = ["measure", "--firmware", &path, "--vcpus", &vcpus].map(String::from).to_vec();
        let mut push = |flag: &str, value: String| args.extend([flag.to_owned(), value]);
        match word("vcpu_type") {
            Some(name) => push("--vcpu-type", name.to_owned()),
            None => push("--vcpu-sig", word("vcpu_sig").unwrap().to_owned()),
        }
        push("--guest-features", word("guest_features").unwrap().to_owned());
        push("--vmm", word("vmm").unwrap().to_owned());
        if let Some(digest) = about["fw_digest"].as_str() {
            push("--fw-digest", digest.to_owned());
        }
        for (flag, name) in [("--kernel", "kernel"), ("--initrd", "initrd")] {
            if word(name).is_some() {
                push(flag, blob(name));
            }
        }
        if let Some(line) = word("cmdline") {
            push("--append", line.to_owned());
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = coffer(scratch.path(), &args);
        if case["error"].is_string() {
            assert_eq!(output.status.code(), Some(3), "{}", text(&output));
            assert!(text(&output).contains("SNP_KERNEL_HASHES"), "{}", text(&output));
        } else {
            assert_eq!(text(&output).trim(), word("launch_digest").unwrap(), "{}", case["name"]);
        }
        compared += 1;
    }
    assert!(compared >= 34, "{compared}");
}

fn stream(seed: &str, length: usize) -> Vec<u8> {
    use sha2::{Digest as _, Sha256};
    (0_u32..)
        .flat_map(|index| Sha256::new().chain_update(seed).chain_update(index.to_le_bytes()).finalize().to_vec())
        .take(length)
        .collect()
}
