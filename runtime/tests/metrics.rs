//! `coffer metrics` as Prometheus reads it, by another's parser (prometheus_client of Debian's).

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

fn coffer(home: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coffer"));
    command.args(words).env("COFFER_HOME", home).stdin(Stdio::null());
    command
}

struct Served {
    child: Child,
    address: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(home: &Path) -> Served {
    let mut child = coffer(home, &["metrics", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("http://").and_then(|rest| rest.strip_suffix("/metrics"));
    Served { child, address: address.unwrap_or_else(|| panic!("{line}")).to_owned() }
}

fn ask(served: &Served, request: &str) -> (String, String) {
    let mut line = TcpStream::connect(&served.address).unwrap();
    line.write_all(format!("{request} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    line.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

/// Families as another's parser reads them: `{name: {"type", "help", "samples": {labels: value}}}`.
fn parsed(text: &str) -> Value {
    const READER: &str = "
import json, sys
from prometheus_client.parser import text_string_to_metric_families
found = {}
for family in text_string_to_metric_families(sys.stdin.read()):
    assert family.name not in found, family.name
    samples = {s.name + json.dumps(s.labels, sort_keys=True): s.value for s in family.samples}
    assert len(samples) == len(family.samples), family.name
    found[family.name] = {'type': family.type, 'help': family.documentation, 'samples': samples}
print(json.dumps(found))
";
    // Debian's, whatever else is called so.
    let mut child = Command::new("/usr/bin/python3")
        .args(["-c", READER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "prometheus_client; `make setup` installs it: {text}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn figures_are_read_by_anothers_parser_and_count_on() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    coffer(&home, &["volume", "create", "data"]).output().unwrap();
    coffer(&home, &["pull", "oci:/nowhere"]).output().unwrap();
    let mut served = serve(&home);
    let (status, text) = ask(&served, "GET /metrics");
    assert_eq!(status, "HTTP/1.1 200 OK");
    let families = parsed(&text);
    let all = families.as_object().unwrap();
    assert!(all.len() >= 25, "{}", all.len());
    for (name, family) in all {
        let kind = family["type"].as_str().unwrap();
        assert!(name.starts_with("coffer_") && ["counter", "gauge", "summary"].contains(&kind), "{name} {kind}");
        assert!(!family["help"].as_str().unwrap().is_empty(), "{name}");
        // The parser takes `_total` off the names of counters, and would not where it is missing.
        assert_eq!(kind == "counter", text.contains(&format!("# TYPE {name}_total counter\n")), "{name}");
        for word in ["seconds", "bytes"] {
            assert!(!name.contains(word) || name.ends_with(word), "{name}: the unit comes last");
        }
    }
    let value = |families: &Value, family: &str, sample: &str| families[family]["samples"][sample].as_f64();
    assert_eq!(value(&families, "coffer_volumes", "coffer_volumes{}"), Some(1.0));
    let pulls = families["coffer_pulls"]["samples"].as_object().unwrap();
    let pulls: Vec<_> = pulls.values().filter_map(Value::as_f64).collect();
    assert_eq!(pulls, [1.0], "{text}");
    assert_eq!(value(&families, "coffer_boxes", "coffer_boxes{\"state\": \"running\"}"), Some(0.0));
    let lines = value(&families, "coffer_audit_lines", "coffer_audit_lines_total{}").unwrap();
    coffer(&home, &["volume", "rm", "data"]).output().unwrap();
    let families = parsed(&ask(&served, "GET /metrics").1);
    assert_eq!(value(&families, "coffer_audit_lines", "coffer_audit_lines_total{}"), Some(lines + 2.0));
    assert_eq!(value(&families, "coffer_volumes", "coffer_volumes{}"), Some(0.0));

    assert_eq!(ask(&served, "GET /healthz"), ("HTTP/1.1 200 OK".to_owned(), "ok\n".to_owned()));
    assert!(ask(&served, "GET /else").0.contains("404"));
    assert!(ask(&served, "POST /metrics").0.contains("405"));
    // One that says nothing keeps nobody from an answer, and not for ever from the end.
    let silent = TcpStream::connect(&served.address).unwrap();
    assert!(ask(&served, "GET /healthz").0.contains("200"));
    drop(silent);
    let pid = rustix::process::Pid::from_child(&served.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let end = std::time::Instant::now() + Duration::from_secs(15);
    let status = loop {
        if let Some(status) = served.child.try_wait().unwrap() {
            break status;
        }
        assert!(std::time::Instant::now() < end, "it does not end");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(0));
}

#[test]
fn it_listens_for_other_machines_only_where_that_is_asked_for_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9464", "[::ffff:192.0.2.1]:1"] {
        let output = coffer(dir.path(), &["metrics", "--listen", address]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains("--let-other-machines-read-metrics"), "{said}");
    }
}
