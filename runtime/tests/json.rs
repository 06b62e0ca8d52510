//! `--json` of every command there is: whatever comes of it, standard output is one JSON document.
//!
//! The commands come from the table, as `coffer --json help` prints it, so that a new one cannot be forgotten.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use coffer_runtime::boxes::{BoxOptions, Timings, files, unix_ms};
use coffer_runtime::lock::BoxLock;
use coffer_runtime::state::Ending;
use coffer_runtime::supervisor::message::LogPiece;
use coffer_runtime::{BoxId, BoxRecord, BoxState, Home, State};
use serde_json::{Value, json};

/// A command, and words behind it; `made` is a box that was never started, `nosuch` none.
const LINES: &[(&str, &[&str])] = &[
    ("run", &["--pull", "never", "nosuch"]),
    ("run", &["-d", "--timing", "--pull", "never", "nosuch"]),
    ("run", &["--tee", "busybox"]),
    ("create", &["--pull", "never", "nosuch"]),
    ("create", &["--name", "made", "--memory", "1", "busybox"]),
    ("start", &["made", "nosuch", "other"]),
    ("start", &["--attach", "nosuch"]),
    ("start", &["--attach", "made", "nosuch"]),
    ("stop", &["made", "nosuch", "other"]),
    ("stop", &["made"]),
    ("restart", &["made", "nosuch"]),
    ("kill", &["made", "nosuch"]),
    ("kill", &["-s", "NOSUCH", "made"]),
    ("wait", &["made", "nosuch"]),
    ("wait", &["made"]),
    ("rename", &["made", "other"]),
    ("rename", &["nosuch", "new"]),
    ("update", &["--restart", "always", "made", "nosuch"]),
    ("update", &["--restart", "bad", "made"]),
    ("system resume", &[]),
    ("system df", &[]),
    ("system info", &[]),
    ("metrics", &["--listen", "0.0.0.0:0"]),
    ("events", &[]),
    ("events", &["--until", "1s"]),
    ("events", &["--until", "1s", "--filter", "nosuch=1"]),
    ("events", &["--since", "1h", "--until", "0s", "--filter", "type=container"]),
    ("audit", &[]),
    ("audit", &["--action", "box", "--box", "made", "--outcome", "done", "--since", "1h"]),
    ("audit", &["--since", "yesterday"]),
    ("audit verify", &[]),
    ("prune", &[]),
    ("prune", &["--filter", "nosuch=1"]),
    ("prune", &["--force", "--filter", "label=none"]),
    ("volume create", &["data"]),
    ("volume create", &["--opt", "size=1", "small"]),
    ("volume ls", &[]),
    ("volume ls", &["--filter", "nosuch=1"]),
    ("volume inspect", &["data", "nosuch"]),
    ("volume inspect", &["data"]),
    ("volume rm", &["data", "nosuch"]),
    ("volume prune", &[]),
    ("volume prune", &["--force", "--all"]),
    ("network create", &["app"]),
    ("network create", &["--subnet", "127.0.0.0/8", "bad"]),
    ("network ls", &[]),
    ("network ls", &["--filter", "nosuch=1"]),
    ("network inspect", &["app", "nosuch"]),
    ("network inspect", &["app"]),
    ("network connect", &["nosuch", "made"]),
    ("network connect", &["app", "nosuch"]),
    ("network disconnect", &["app", "made"]),
    ("network rm", &["app", "nosuch"]),
    ("network prune", &[]),
    ("network prune", &["--force"]),
    ("pause", &["made", "nosuch"]),
    ("unpause", &["nosuch", "made"]),
    ("ps", &[]),
    ("ps", &["-a"]),
    ("ps", &["-aq"]),
    ("ps", &["-q"]),
    ("ps", &["--filter", "nosuch=1"]),
    ("logs", &["made"]),
    ("logs", &["-f", "made"]),
    ("logs", &["--console", "made"]),
    ("logs", &["nosuch"]),
    ("attach", &["made"]),
    ("attach", &["nosuch"]),
    ("run", &["-it", "--pull", "never", "nosuch"]),
    ("start", &["-ai", "nosuch"]),
    ("exec", &["made", "id"]),
    ("exec", &["nosuch", "id"]),
    ("exec", &["-d", "made", "id"]),
    ("exec", &["-it", "made", "id"]),
    ("cp", &["made:/etc/hostname", "."]),
    ("cp", &["nosuch", "made:/tmp"]),
    ("cp", &["made:/etc", "-"]),
    ("cp", &["here", "there"]),
    ("diff", &["made"]),
    ("diff", &["nosuch"]),
    ("export", &["made"]),
    ("export", &["-o", "made.tar", "made"]),
    ("export", &["-o", "made.tar", "nosuch"]),
    ("commit", &["made", "test.example/made:1"]),
    ("commit", &["nosuch"]),
    ("commit", &["-c", "RUN true", "made"]),
    ("top", &["made"]),
    ("top", &["nosuch"]),
    ("stats", &["--no-stream"]),
    ("stats", &["made"]),
    ("rm", &["nosuch", "other"]),
    ("rm", &["--force", "nosuch"]),
    ("inspect", &["made"]),
    ("inspect", &["made", "nosuch"]),
    ("inspect", &["--owners", "made"]),
    ("inspect", &["--allow-simulated", "made"]),
    ("inspect", &["nosuch", "other"]),
    ("pull", &["--insecure-registry", "127.0.0.1:1", "127.0.0.1:1/a:1"]),
    ("images", &[]),
    ("images", &["-q"]),
    ("images", &["busybox"]),
    ("rmi", &["nosuch", "other"]),
    ("pull", &["oci:nosuch"]),
    ("push", &["nosuch"]),
    ("push", &["nosuch@sha256:0000000000000000000000000000000000000000000000000000000000000000"]),
    ("login", &["-u", "ann", "--password-stdin", "127.0.0.1:1"]),
    ("login", &["127.0.0.1:1"]),
    ("logout", &["127.0.0.1:1"]),
    ("logout", &["team"]),
    ("tag", &["nosuch", "other"]),
    ("history", &["nosuch"]),
    ("save", &["nosuch"]),
    ("save", &["-o", "saved.tar", "nosuch"]),
    ("load", &[]),
    ("load", &["-i", "zeros"]),
    ("import", &["nosuch"]),
    ("import", &["zeros", "test.example/zeros:1"]),
    ("image inspect", &["nosuch"]),
    ("image inspect", &["test.example/zeros:1"]),
    ("image prune", &[]),
    ("image prune", &["-a", "-f"]),
    ("import", &["--change", "nosuch", "zeros"]),
    ("attest", &["made", "--allow-simulated"]),
    ("attest", &["nosuch"]),
    ("connect", &["--reference", "nosuch.json", "127.0.0.1:1"]),
    ("connect", &["--listen", "127.0.0.1:0", "--reference", "nosuch.json", "127.0.0.1:1"]),
    ("port", &["made"]),
    ("port", &["nosuch"]),
    ("inject-secret", &["made", "--secret", "note=x"]),
    ("refresh-secrets", &["made"]),
    ("seal", &["made"]),
    ("unseal", &["nosuch"]),
    ("reseal", &["nosuch"]),
    ("owner show", &[]),
    ("owner init", &[]),
    ("owner show", &["--pem"]),
    ("owner keygen", &["--out", "authority.pem"]),
    (
        "owner sign",
        &["--key", "authority.pem", "--name", "prod", "--sequence", "1", "--nobody", "--out", "owners.json"],
    ),
    ("owner sign", &["--key", "id.pem", "--name", "prod", "--sequence", "0", "--nobody", "--out", "nosuch.json"]),
    ("owner verify", &["owners.json", "--key", "authority.pem.pub"]),
    ("owner verify", &["zeros", "--key", "authority.pem.pub"]),
    ("owner push", &["made", "owners.json"]),
    ("measure", &["--platform", "nosuch", "--platform-files"]),
    ("measure", &["--firmware", "nosuch"]),
    ("measure", &["--platform-files", "--kernel", "nosuch"]),
    ("spec", &["--pull", "never", "nosuch"]),
    ("platform show", &["--platform", "nosuch"]),
    ("id-key init", &["--out", "id.pem"]),
    ("id-key init", &["--out", "id.pem"]),
    ("id-key show", &["id.pem"]),
    ("id-key show", &["id.pem", "--pem"]),
    ("id-block sign", &["--measurement", "ab", "--policy", "0x30000", "--id-key", "id.pem", "--out", "signed"]),
    ("id-block show", &["nosuch"]),
    ("manifest keygen", &["--out", "manifest.pem"]),
    ("manifest verify", &["nosuch", "--key", "manifest.pem.pub"]),
    ("manifest show", &["id.pem"]),
    ("manifest re-endorse", &["nosuch", "--sign", "manifest.pem", "--no-revocation-list"]),
    ("manifest export", &["nosuch", "--unverified", "--out", "nosuch.corim"]),
    ("verify", &["nosuch"]),
    ("verify", &["zeros"]),
    ("verify", &["zeros", "--policy", "strct"]),
    ("verify", &[]),
    ("verify", &["zeros", "--fetch", "--offline"]),
    ("verify", &["https://127.0.0.1:1"]),
    ("verify", &["https://127.0.0.1:1/path"]),
    ("token init", &["--out", "keys.json"]),
    ("token init", &["--out", "keys.json"]),
    ("token rotate", &["keys.json"]),
    ("token jwks", &["keys.json"]),
    ("token configuration", &["--iss", "https://verifier.example"]),
    ("token issue", &["zeros", "--keys", "keys.json", "--iss", "https://verifier.example", "--aud", "bank"]),
    ("token issue", &["nosuch", "--keys", "keys.json", "--iss", "https://verifier.example", "--aud", "bank"]),
    ("token show", &["nosuch"]),
    ("token verify", &["nosuch", "--jwks", "nosuch", "--aud", "bank"]),
    ("policy show", &["nosuch"]),
    ("policy lint", &["nosuch"]),
    ("policy test", &["nosuch"]),
    ("policy input", &["zeros"]),
    ("policy explain", &["nosuch", "--input", "nosuch"]),
    ("policy try", &["nosuch", "--on", "nosuch"]),
    ("policy keygen", &["--out", "policy.pem"]),
    ("policy sign", &["nosuch", "--sign", "policy.pem"]),
    ("policy re-endorse", &["nosuch", "--sign", "policy.pem", "--no-revocation-list"]),
    ("collateral fetch", &["zeros"]),
    ("collateral fetch", &["--product", "milan", "--mirror", "http://127.0.0.1:1"]),
    ("collateral ls", &[]),
    ("collateral refresh", &["--mirror", "http://127.0.0.1:1"]),
    ("collateral import", &["nosuch"]),
    ("collateral import", &["zeros"]),
    ("collateral export", &["--out", "medium"]),
    ("report show", &["zeros"]),
    ("report show", &[]),
    ("bench verify", &["nosuch"]),
    ("bench simulator", &["nosuch"]),
    ("bench kbs", &["--program", "nosuch"]),
    ("bench seal", &["nosuch"]),
    ("bench ratls", &["nosuch"]),
    ("bench service", &["--program", "nosuch"]),
    ("kbs secret put", &["a/b/c", "--profile", "nosuch"]),
    ("kbs secret put", &[]),
    ("kbs secret list", &[]),
    ("kbs secret get-meta", &["a/b/c"]),
    ("kbs secret update", &["a/b/c", "--label", "a=b"]),
    ("kbs secret remove", &["a/b/c"]),
    ("kbs secret undelete", &["a/b/c"]),
    ("kbs secret destroy", &["a/b/c"]),
    ("kbs reference add", &["--from", "nosuch"]),
    ("kbs reference list", &[]),
    ("kbs reference remove", &["--name", "web"]),
    ("kbs signer add", &["web"]),
    ("kbs signer list", &[]),
    ("kbs signer remove", &["web"]),
    ("kbs manifest-key add", &["manifest.pem.pub"]),
    ("kbs manifest-key list", &[]),
    ("kbs manifest-key remove", &["ci"]),
    ("kbs manifest add", &["id.pem"]),
    ("kbs manifest list", &[]),
    ("kbs manifest revoke", &["web"]),
    ("kbs sealing put", &["db"]),
    ("kbs sealing list", &[]),
    ("kbs sealing remove", &["db"]),
    ("kbs volume list", &[]),
    ("kbs volume confirm", &["db"]),
    ("kbs volume forget", &["db"]),
    ("kbs certificate put", &["api"]),
    ("kbs certificate list", &[]),
    ("kbs certificate remove", &["api"]),
    ("kbs certificate root", &[]),
    ("kbs certificate jwks", &[]),
    ("kbs policy put", &["web", "--file", "nosuch"]),
    ("kbs policy get", &["web"]),
    ("kbs policy list", &[]),
    ("kbs policy remove", &["web"]),
    ("kbs policy test", &["web", "--file", "nosuch"]),
    ("kbs crl put", &["nosuch"]),
    ("kbs crl list", &[]),
    ("kbs crl remove", &["5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"]),
    ("kbs revoke chip", &["zz"]),
    ("kbs revoke measurement", &["zz"]),
    ("kbs revoke workload", &["zz"]),
    ("kbs revoke report-id", &["zz"]),
    ("kbs revoke tcb", &["Milan:snp=23"]),
    ("kbs revoke signer", &["zz"]),
    ("kbs revoke list", &[]),
    ("kbs revoke remove", &["tcb", "Milan:snp=23"]),
    ("kbs guests", &[]),
    ("kbs tenant add", &["acme"]),
    ("kbs tenant list", &[]),
    ("kbs admin add", &["alice", "--role", "operator@acme", "--new-profile", "alice.toml"]),
    ("kbs admin add", &["alice"]),
    ("kbs admin list", &[]),
    ("kbs admin remove", &["alice"]),
    ("kbs admin confirm-restore", &[]),
    ("kbs admin pin", &["nosuch"]),
    ("kbs admin pin", &["5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"]),
    ("kbs audit", &[]),
    ("kbs audit", &["--newest", "--id", "86fb0b8a2fdb7edb"]),
    ("kbs audit", &["--limit", "0"]),
    ("kbs audit tail", &["--path", "a/b/c"]),
    ("kbs audit show", &["86fb0b8a2fdb7edb", "--input"]),
    ("kbs audit export", &["trail.jsonl"]),
    ("kbs audit verify", &["nosuch"]),
    ("sim init", &["--product", "milan"]),
    ("sim evidence", &["--product", "milan", "--out", "evidence"]),
    ("verify", &["evidence/evidence.cmw"]),
    ("verify", &["evidence/evidence.cmw", "--allow-simulated"]),
    ("verify", &["evidence/report.bin", "--allow-simulated"]),
    ("sim attacks", &[]),
    ("sim check", &[]),
    ("sim check", &["--product", "milan", "--attack", "debug", "--cmd", "exit 6"]),
    ("sim kds", &["--answers", "0"]),
    ("sim kds", &["--listen", "nowhere"]),
    ("doctor", &[]),
    ("host status", &[]),
    ("host tcb", &[]),
    ("host certificates show", &[]),
    ("host certificates import", &["nosuch"]),
    ("host certificates export", &["--out", "exported"]),
    ("host certificates load-vlek", &["nosuch"]),
    ("host config show", &[]),
    ("host config set", &["--reported-tcb", "current"]),
    ("host config commit", &[]),
    ("completion", &["bash"]),
    ("help", &[]),
    ("help", &["kbs", "nosuch"]),
    ("version", &[]),
];

fn coffer(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coffer"));
    command.current_dir(folder).env("COFFER_HOME", folder.join("home")).env("COFFER_PLATFORM", folder.join("none"));
    for name in ["COFFER_KBS_PROFILE", "COFFER_KBS_ADDRESS"] {
        command.env_remove(name);
    }
    command.args(words).stdin(Stdio::null()).output().unwrap()
}

/// The one document on standard output.
fn document(words: &[&str], output: &Output) -> Value {
    let mut all = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>();
    let said = || format!("{words:?}: {output:?}");
    let first = all.next().unwrap_or_else(|| panic!("nothing on standard output: {}", said()));
    let first = first.unwrap_or_else(|error| panic!("{error}: {}", said()));
    assert!(all.next().is_none(), "more than one document: {}", said());
    first
}

const SPEC: &str = r#"version = "0.1.0"
algorithm = "sha256"
[data]
"workload.toml" = '''
version = 1
tenant = "default"
tee = "none"
host_may = ["stop", "stats", "logs", "exec"]
[image]
reference = "docker.io/a/made:1"
config_digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
[root.verity]
algorithm = "sha256"
block_size = 4096
data_blocks = 8
hash_start = 8
salt = ""
root_hash = "0000000000000000000000000000000000000000000000000000000000000000"
[root.scratch]
kind = "tmpfs"
bytes = 134217728
[process]
argv = ["/bin/app"]
env = []
cwd = "/"
user = "0:0"
stop_signal = 15
hostname = "coffer"
'''
"#;

/// Records a box that was made and never started, with output in its log.
fn make(folder: &Path, name: &str) -> BoxRecord {
    let home = Home::open(&folder.join("home")).unwrap();
    let options = json!({
        "tee": "none", "vcpus": 1, "memory_bytes": 256 << 20, "remove": false, "command": ["/bin/app"],
        "platform": "/platform", "root": "/root.erofs", "image_digest": format!("sha256:{}", "0".repeat(64)),
        "workload_digest": coffer_spec::Document::parse(SPEC.into()).unwrap().digest().to_string(),
    });
    let record = BoxRecord {
        id: BoxId::random(),
        name: name.into(),
        image: "a/made:1".into(),
        state: BoxState::Created,
        supervisor_pid: None,
        vmm_pid: None,
        created: 1,
        started: None,
        finished: None,
        exit_code: None,
        error: None,
        restarts: 0,
        stopped_by_hand: false,
        reason: None,
        options: serde_json::from_value::<BoxOptions>(options).unwrap(),
        timings: Timings::default(),
    };
    let folder = home.box_folder(&record.id);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).unwrap();
    fs::write(folder.join(files::SPEC), SPEC).unwrap();
    let pieces = [LogPiece::new(false, 1, b"one\n".to_vec()), LogPiece::new(true, 2, vec![0xff])];
    let lines = pieces.iter().map(|piece| json!(piece).to_string() + "\n").collect::<String>();
    fs::write(folder.join(files::LOG), lines).unwrap();
    State::open(&home).unwrap().add(&record).unwrap();
    record
}

fn world() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), "made");
    make(dir.path(), "other");
    fs::write(dir.path().join("zeros"), [0; 1184]).unwrap();
    dir
}

#[test]
fn every_command_prints_one_document_whatever_comes_of_it() {
    let dir = world();
    let rows = document(&["help"], &coffer(dir.path(), &["--json", "help"]));
    let table: BTreeSet<_> = rows.as_array().unwrap().iter().map(|row| row["command"].as_str().unwrap()).collect();
    let tried: BTreeSet<_> = LINES.iter().map(|(command, _)| *command).collect();
    assert_eq!(tried, table, "each command of the table has a line here, and each line a command");
    let mut lines: Vec<(&str, &[&str])> = LINES.to_vec();
    for command in &table {
        lines.extend([(*command, &["--frobnicate"][..]), (*command, &["--help"][..])]);
    }
    for (command, behind) in lines {
        let words: Vec<_> = ["--json"].into_iter().chain(command.split(' ')).chain(behind.iter().copied()).collect();
        let output = coffer(dir.path(), &words);
        let said = document(&words, &output);
        let decided = ["verdict", "results", "checks"].iter().any(|key| said.get(key).is_some());
        assert_eq!(said.get("error").is_some(), !output.status.success() && !decided, "{words:?}: {output:?}");
        if let Some(error) = said.get("error") {
            let keys: Vec<_> = error.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(keys, ["class", "hint", "message"], "{words:?}");
        }
    }
    for words in
        [&["--json"][..], &["--json", "kbs"], &["--json", "--version"], &["--json", "--help"], &["--json", "rnu"]]
    {
        document(words, &coffer(dir.path(), words));
    }
}

#[test]
fn of_several_boxes_each_has_its_own_answer() {
    let dir = world();
    for (words, code) in
        [(["stop", "made", "nosuch"], 1), (["restart", "nosuch", "made"], 125), (["start", "nosuch", "made"], 125)]
    {
        let output = coffer(dir.path(), &[&["--json"], &words[..]].concat());
        let said = document(&words, &output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        let boxes = said["boxes"].as_array().unwrap();
        assert_eq!(boxes.iter().map(|one| one["box"].as_str().unwrap()).collect::<Vec<_>>(), words[1..]);
        let unknown = boxes.iter().find(|one| one["box"] == "nosuch").unwrap();
        assert_eq!(unknown["error"]["class"], "not-found", "{said}");
        assert_eq!(unknown["error"]["hint"], "coffer ps -a lists boxes");
        let last = boxes.iter().rev().find_map(|one| one.get("error")).unwrap();
        assert_eq!(&said["error"], last, "the exit code is of the last failure");
    }
    let output = coffer(dir.path(), &["--json", "rm", "made", "nosuch", "other"]);
    let said = document(&["rm"], &output);
    assert_eq!((output.status.code(), &said["boxes"][2]), (Some(1), &json!({ "box": "other" })), "{said}");
    assert_eq!(document(&["ps"], &coffer(dir.path(), &["--json", "ps", "-aq"])), json!([]));
}

#[test]
fn output_is_a_list_of_pieces() {
    let dir = world();
    let said = document(&["logs"], &coffer(dir.path(), &["--json", "logs", "made"]));
    let pieces = said["output"].as_array().unwrap();
    assert_eq!((&pieces[0]["stream"], &pieces[0]["log"]), (&json!("stdout"), &json!("one\n")), "{said}");
    assert_eq!((&pieces[1]["stream"], &pieces[1]["base64"]), (&json!("stderr"), &json!("/w==")), "{said}");
    assert_eq!(pieces[0]["time"], "1970-01-01T00:00:00.000000001Z", "no number that floating point would round");
}

#[test]
fn what_is_missing_stands_in_the_message_and_the_hint_names_the_command() {
    let dir = world();
    for (words, missing, hint) in [
        (&["verify"][..], "<FILE>", "coffer verify --help"),
        (&["kbs", "secret", "put"], "<PATH>", "coffer kbs secret put --help"),
        (&["run"], "<IMAGE [COMMAND]>...", "coffer run --help"),
        (&["run", "--kbs", "a:1"], "--kbs-pin <HEX>", "coffer run --help"),
        (&["sim", "check"], "--cmd CMD and --url URL", "coffer sim check --help"),
        (&["run", "--pull", "sometimes", "a"], "[possible values: missing, always, never]", "coffer run --help"),
        (&["run", "--env-fil", "x", "a"], "--env-fil", "did you mean --env-file?"),
        (&["rnu"], "rnu", "did you mean run?"),
        (&["kbs", "secret", "delete"], "kbs secret delete", "coffer kbs secret remove"),
    ] {
        let said = document(words, &coffer(dir.path(), &[&["--json"], words].concat()));
        let (message, told) = (said["error"]["message"].as_str().unwrap(), said["error"]["hint"].as_str().unwrap());
        assert!(message.contains(missing) && told.contains(hint), "{words:?}: {said}");
    }
}

/// A box that runs, as far as anybody can see: its record says so, and somebody holds its lock.
struct Running {
    record: BoxRecord,
    state: State,
    lock: BoxLock,
    log: PathBuf,
}

impl Running {
    fn of(dir: &Path, record: BoxRecord) -> Self {
        let home = Home::open(&dir.join("home")).unwrap();
        let folder = home.box_folder(&record.id);
        let lock = BoxLock::take(&folder).unwrap();
        let state = State::open(&home).unwrap();
        state.started(&record.id, std::process::id(), Some(2), &Timings::default(), unix_ms()).unwrap();
        Self { record, state, lock, log: folder.join(files::LOG) }
    }

    fn write(&self, text: &str) {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        writeln!(file, "{}", json!(LogPiece::new(false, 1, text.into()))).unwrap();
    }

    fn end(self, code: i32) {
        self.state.ended(&self.record.id, &Ending { exit_code: code, ..Ending::default() }, unix_ms()).unwrap();
        drop(self.lock);
    }
}

#[test]
fn start_attach_stays_with_a_box_that_runs_and_has_its_exit_code() {
    for as_json in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::of(dir.path(), make(dir.path(), "made"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_coffer"));
        command.env("COFFER_HOME", dir.path().join("home")).args(["start", "-a", "made"]);
        command.args(as_json.then_some("--json")).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut out = child.stdout.take().unwrap();
        // Until it listens, and says so by what it shows.
        let shows = std::thread::spawn(move || {
            let mut first = [0];
            out.read_exact(&mut first).unwrap();
            (first, out)
        });
        while !shows.is_finished() {
            running.write("later\n");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let (first, mut out) = shows.join().unwrap();
        running.end(7);
        let mut text = first.to_vec();
        out.read_to_end(&mut text).unwrap();
        let output = Output { status: child.wait().unwrap(), stdout: text, stderr: Vec::new() };
        assert_eq!(output.status.code(), Some(7), "{output:?}");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("later") && !text.contains("one"), "what it wrote before is for `logs`: {text}");
        if as_json {
            let said = document(&["start", "-a"], &output);
            assert_eq!((&said["name"], &said["exit_code"]), (&json!("made"), &json!(7)), "{said}");
        }
    }
}

#[test]
fn logs_of_a_box_that_has_just_been_started_say_that_there_is_nothing_yet() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::of(dir.path(), make(dir.path(), "made"));
    fs::write(&running.log, "").unwrap();
    let logs = || {
        let output = coffer(dir.path(), &["logs", "made"]);
        assert!(output.status.success());
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (out, err) = logs();
    assert!(out.is_empty() && err.contains("made has written nothing yet") && err.contains("--follow"), "{out}{err}");
    running.write("one\n");
    assert_eq!(logs(), ("one\n".to_owned(), String::new()));
    fs::write(&running.log, "").unwrap();
    running.end(0);
    assert_eq!(logs(), (String::new(), String::new()), "it will write nothing more");
}
