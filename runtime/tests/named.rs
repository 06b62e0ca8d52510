//! What is wrong is named: which file, which address, which two words, and what would help; nothing is a parser's word alone.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// A home of its own, and files.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path().join(name), bytes).unwrap();
    }

    /// Exit status, standard output, and what was said beside.
    fn run(&self, line: &str) -> (i32, String, String) {
        let mut command = Command::new("timeout");
        command.args(["60", env!("CARGO_BIN_EXE_coffer")]).args(line.split(' ')).current_dir(self.path());
        let output = command.env("COFFER_HOME", self.path().join("home")).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    #[track_caller]
    fn says(&self, line: &str, exit: i32, words: &[&str]) -> String {
        let (code, out, err) = self.run(line);
        let said = out + &err;
        assert_eq!(code, exit, "{line}: {said}");
        for word in words {
            assert!(said.contains(word), "{line}: {word}: {said}");
        }
        for foreign in ["expected value", "utf-8 sequence", "os error 21", "EOF while", "TOML parse error", "u32"] {
            assert!(!said.contains(foreign), "{line}: {foreign}: {said}");
        }
        said
    }

    fn evidence(&self, words: &str) {
        assert_eq!(self.run(&format!("sim evidence --product milan --out evidence{words}")).0, 0);
    }
}

/// Answers everybody so.
fn answering(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for line in listener.incoming() {
            let mut line = line.unwrap();
            let mut head = BufReader::new(line.try_clone().unwrap());
            let mut one = String::new();
            while head.read_line(&mut one).unwrap_or(0) > 2 {
                one.clear();
            }
            let _ = line.write_all(answer.as_bytes());
        }
    });
    format!("http://{address}")
}

#[test]
fn each_answer_of_a_mirror_is_named_with_its_address_and_has_a_hint_of_its_own() {
    let place = Place::new();
    place.evidence("");
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let head = "Connection: close\r\nContent-Length";
    let with = |status: &str, body: &str| -> &'static str {
        Box::leak(format!("HTTP/1.1 {status}\r\n{head}: {}\r\n\r\n{body}", body.len()).into_boxed_str())
    };
    let cases = [
        (answering(with("200 OK", "<html>Log in</html>")), "a page of HTML where a ", "captive portal"),
        (answering(with("200 OK", "")), "nothing at all where a ", "the answer is empty"),
        (
            answering(with("302 Found\r\nLocation: https://else.example/x", "")),
            "(status 302): https://else.example/x",
            "it is not followed",
        ),
        (answering(with("404 None", "")), "(status 404)", "no chip has that identity at that TCB"),
        (answering(with("403 No", "")), "status 403", "a proxy or a portal"),
        (answering(with("502 Bad", "")), "status 502", "try again later"),
        (answering(with("429 Busy\r\nRetry-After: 300", "")), "wants no request for ", "try again then"),
        (closed, "the connection is refused", "check that the mirror runs"),
    ];
    for (mirror, what, hint) in &cases {
        let line = format!("--json verify evidence/report.bin --allow-simulated --fetch --mirror {mirror}");
        let (exit, out, _) = place.run(&line);
        let said: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(exit, 5, "{said}");
        let leaf = said["not_fetched"].as_array().unwrap().iter().find(|one| one["item"]["kind"] == "vcek").unwrap();
        let (message, helps) = (leaf["error"]["message"].as_str().unwrap(), leaf["error"]["hint"].as_str().unwrap());
        assert!(message.contains(&format!("{mirror}/vcek/v1/Milan/")) && message.contains(what), "{what}: {leaf}");
        assert!(helps.contains(hint), "{hint}: {leaf}");
        assert_eq!(message.contains("a certificate is due"), message.contains("where a "), "{leaf}");
    }
    // A list has no chip, and no chip's hint.
    let list = place.says(&format!("collateral fetch --product milan --mirror {}", cases[3].0), 1, &["(status 404)"]);
    assert!(!list.contains("no chip"), "{list}");
}

#[test]
fn a_file_of_another_kind_is_named_with_what_it_is() {
    let place = Place::new();
    place.evidence("");
    place.write("key.pem", "-----BEGIN PRIVATE KEY-----\nMIG2\n-----END PRIVATE KEY-----\n");
    place.write("page.html", "<!DOCTYPE html><html></html>");
    place.write("empty", "");
    place.write("text.json", "{\"a\": 1}");
    for (file, kind) in [
        ("key.pem", "a private key"),
        ("page.html", "a page of HTML"),
        ("empty", "nothing at all"),
        ("text.json", "a JSON text"),
        ("evidence/report.bin", "an attestation report"),
    ] {
        let certificate = format!("coffer: {file}: {kind} where a certificate is due\nhint: ");
        place.says(&format!("verify evidence/report.bin --vcek {file}"), 3, &[&certificate]);
        let list = format!("coffer: {file}: {kind} where a revocation list is due\nhint: ");
        place.says(&format!("verify evidence/report.bin --crl {file}"), 3, &[&list]);
        if kind != "an attestation report" {
            place.says(&format!("verify {file}"), 3, &[&format!("coffer: {file}: {kind}")]);
            place.says(&format!("report show {file}"), 3, &[&format!("coffer: {file}: {kind}")]);
            place.says(&format!("verify evidence/report.bin --policy {file}"), 3, &[file]);
        }
    }
    place.says(
        "verify evidence/report.bin --vcek evidence/crl.der",
        3,
        &["a revocation list where a certificate", "--crl FILE"],
    );
    place.says(
        "verify evidence/report.bin --crl evidence/ark.pem",
        3,
        &["a certificate where a revocation", "--ark FILE"],
    );
    place.says("verify evidence/crl.der", 3, &["evidence/crl.der: a revocation list", "stands beside evidence"]);
    // One that is a certificate, and nobody's of AMD's form.
    let own = rcgen::generate_simple_self_signed(vec!["web.example".to_owned()]).unwrap();
    place.write("tls.pem", own.cert.pem());
    place.says(
        "verify evidence/report.bin --vcek tls.pem",
        5,
        &["tls.pem: certificate 0 cannot be used", "certificate-form"],
    );
    // No file at all.
    assert!(Command::new("mkfifo").arg(place.path().join("pipe")).status().unwrap().success());
    for flag in ["--policy", "--vcek", "--crl", "--anchor"] {
        let line = format!("verify evidence/report.bin --allow-simulated {flag} pipe");
        place.says(&line, 3, &["pipe: is a pipe, and a file is due"]);
    }
    place.says("verify pipe", 3, &["pipe: is a pipe, and a file is due"]);
    place.says("verify evidence", 3, &["evidence: is a folder, and a file is due"]);
    place.says("policy try snp --on pipe", 3, &["is a pipe"]);
    place.says("collateral import page.html", 5, &["page.html: not in AMD's form: a page of HTML"]);
}

#[test]
fn a_parser_is_heard_with_its_place_and_in_plain_words() {
    let place = Place::new();
    place.evidence("");
    place.write("number.toml", "measurements = \"any\"\nminimum_guest_svn = \"x\"\n  vmpl = [0]\n");
    place.write("bytes.toml", [0xff, 0xfe]);
    place.write("word", "nojson");
    place.write("half.json", "{\"x\": ");
    place.write("page.html", "<html>");
    // As lint says it: all of it, at the same places.
    let lint = place.says(
        "policy lint number.toml",
        3,
        &["number.toml:2:1: mistake: found string \"x\", expected a whole number"],
    );
    let verify = place.says("verify evidence/report.bin --policy number.toml", 3, &["number.toml has 2 mistakes"]);
    assert!(lint.lines().count() == 2 && lint.lines().all(|line| verify.contains(line)), "{lint}{verify}");
    place.says(
        "verify evidence/report.bin --policy bytes.toml",
        3,
        &["bytes.toml: bytes of no known form where a policy"],
    );
    place.says("policy explain snp --input word", 3, &["word: a text where JSON is due (line 1, column 2)"]);
    place.says("policy explain snp --input half.json", 3, &["half.json: the JSON breaks off at line 1, column 6"]);
    place.says("policy try snp --on word", 3, &["word:1: a text where JSON is due"]);
    place.says(
        "token verify word --jwks page.html --aud x",
        3,
        &["page.html: key set: a page of HTML where JSON is due"],
    );
    assert_eq!(place.run("token init --out keys.json").0, 0);
    let jwks = place.run("token jwks keys.json").1;
    place.write("jwks.json", jwks);
    place.says(
        "token verify evidence/report.bin --jwks jwks.json --aud x",
        3,
        &["report.bin: an attestation report where a token is due"],
    );
    place.says("token verify word --jwks jwks.json --aud x --key half.json", 3, &["half.json: the JSON breaks off"]);
}

#[test]
fn a_hint_is_about_what_was_done() {
    let place = Place::new();
    place.evidence("");
    let report = "evidence/report.bin";
    let none = "0".repeat(64);
    let listed = place.says(
        &format!("verify {report} --certs evidence --allow-simulated --anchor {none}"),
        5,
        &["untrusted-root", "one that --anchor lists"],
    );
    assert!(!listed.contains("--anchor lists another"), "{listed}");
    place.says(&format!("verify {report} --fresh"), 2, &["--workload-data or --report-data"]);
    place.says(&format!("verify {report} --timeout 3"), 2, &["name https://HOST:PORT"]);
    place.says(&format!("verify {report} --decision-log log --mask /input/nothing"), 2, &["coffer policy show input"]);
    place.says("sim kds --listen localhost:80", 2, &["expected IP:PORT, such as 127.0.0.1:"]);
    place.says("metrics --listen localhost:80", 2, &["expected IP:PORT, such as 127.0.0.1:"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    place.says(&format!("sim kds --listen {}", taken.local_addr().unwrap()), 3, &["another program listens there"]);
    // What contradicts each other, and why.
    let at = "--at 2026-09-20T00:00:00Z";
    for more in ["", " --offline"] {
        for command in [format!("verify {report}"), format!("policy input {report}")] {
            place.says(
                &format!("{command} --fetch{more} {at}"),
                2,
                &["--fetch and --at contradict each other", "--certs DIR"],
            );
        }
    }
    assert_eq!(place.run("policy keygen --out key.pem").0, 0);
    place.says(&format!("verify {report} --bundle-key key.pem.pub"), 2, &["no bundle is named"]);
    place.write("none.rego", "package none\n\nx := 1\n");
    place.write("more.rego", "package more\n\nx := 1\n");
    place.says(&format!("verify {report} --policy none.rego"), 3, &["coffer policy show snp"]);
    let several = place.says("policy lint none.rego more.rego", 3, &["none.rego:1:1: no-allow: "]);
    assert!(!several.contains("more.rego:1:1"), "one finding about both: {several}");
    let sign = place.says("policy sign none.rego --sign key.pem", 3, &["no gzip stream", "tar -C DIR"]);
    assert!(!sign.contains("re-endorse"), "{sign}");
    fs::create_dir(place.path().join("bare")).unwrap();
    place.says("policy sign bare --sign key.pem", 3, &["bare is a folder", "no .rego file is in it"]);
    // A simulator's medium.
    let offline = "--allow-simulated --offline --fetch";
    assert_eq!(place.run("collateral import --allow-simulated evidence").0, 0);
    assert_eq!(place.run(&format!("verify {report} {offline}")).0, 0);
    let files = place.says("collateral export --allow-simulated --out medium", 0, &["-bl", "-ucode", ".der"]);
    assert!(!files.contains(['?', '&', '=']), "{files}");
    place.says("collateral import medium --home other", 5, &["nothing in it can be used", "--allow-simulated"]);
    place.says("collateral import medium --home other --allow-simulated --anchor evidence/ark.pem", 0, &["imported"]);
}

#[test]
fn a_vlek_is_the_providers_to_give_and_no_service_is_named_for_it() {
    let place = Place::new();
    place.evidence(" --vlek");
    // Not this installation's any more, by its chip.
    fs::rename(place.path().join("home"), place.path().join("gone")).unwrap();
    let said = place.says(
        "verify evidence/report.bin",
        5,
        &["VLEK certificate for Milan", "certificate table of", "--vlek FILE", "--fetch gets AMD's list alone"],
    );
    assert!(!said.contains("gets them") && !said.contains("fetch VLEK"), "{said}");
    let said = place.says("verify evidence/report.bin --no-crl", 5, &["certificate table of", "--vlek FILE"]);
    assert!(!said.contains("--fetch"), "{said}");
}

#[test]
fn a_certificate_table_is_known_wherever_it_is_named() {
    let place = Place::new();
    place.evidence(" --vlek");
    let (report, table) = ("evidence/report.bin", "evidence/cert_table.bin");
    let believed = "--no-crl --allow-simulated --anchor evidence/ark.pem";
    place.says(&format!("verify {report} {believed} --cert-table {table}"), 0, &["accepted; SIMULATED"]);
    fs::create_dir(place.path().join("beside")).unwrap();
    fs::copy(place.path().join(table), place.path().join("beside/certs.bin")).unwrap();
    place.says(&format!("verify {report} {believed} --certs beside"), 5, &["passed over certs.bin", "cert_table.bin"]);
    fs::rename(place.path().join("beside/certs.bin"), place.path().join("beside/cert_table.bin")).unwrap();
    place.says(&format!("verify {report} {believed} --certs beside"), 0, &["accepted"]);
    place.says(&format!("verify {report} --vcek {table}"), 3, &["a certificate table where", "--cert-table FILE"]);
    place.says(
        &format!("verify {report} --cert-table {report}"),
        3,
        &["an attestation report, and no certificate table"],
    );
    place.says(&format!("report show {table}"), 3, &["a certificate table, length", "--cert-table FILE"]);
    let import = "collateral import --allow-simulated --anchor evidence/ark.pem";
    place.says(&format!("{import} {table}"), 0, &["imported", "VLEK"]);
}

#[test]
fn whoever_has_nothing_to_try_is_told_so() {
    let place = Place::new();
    place.evidence("");
    fs::create_dir(place.path().join("inputs")).unwrap();
    place.write("empty.jsonl", "\n");
    for on in ["inputs", "empty.jsonl"] {
        let said =
            place.says(&format!("policy try snp --on {on}"), 3, &[on, "nothing was tried", "--decision-log FILE"]);
        assert!(!said.contains("would be refused"), "{said}");
    }
    let verify = "verify evidence/report.bin --certs evidence --allow-simulated";
    let (_, said, _) = place.run(&format!("--json {verify}"));
    place.write("inputs/said.json", &said);
    place.says(
        "policy try snp --on inputs",
        3,
        &["said.json: it is what `coffer verify --json` prints", "coffer policy input"],
    );
    place.says("policy explain snp --input inputs/said.json", 3, &["it is what `coffer verify --json` prints"]);
    place.write("inputs/said.json", "{}");
    place.says("policy try snp --on inputs", 3, &["neither a record of a decision nor an input"]);
    // A link is read, and what cannot be is not passed over.
    fs::remove_file(place.path().join("inputs/said.json")).unwrap();
    place.write("said.json", "{}");
    std::os::unix::fs::symlink("../said.json", place.path().join("inputs/link.json")).unwrap();
    place.says("policy try snp --on inputs", 3, &["link.json: it is neither a record of a decision nor an input"]);
    fs::remove_file(place.path().join("inputs/link.json")).unwrap();
    fs::create_dir(place.path().join("inputs/folder.json")).unwrap();
    place.says("policy try snp --on inputs", 3, &["folder.json"]);
    assert_eq!(place.run(&format!("{verify} --decision-log log.jsonl")).0, 0);
    place.says("policy try snp --on log.jsonl", 0, &["1 decision: 1 would be refused, 0 accepted"]);
    place.write("one.rego", "package one\n\nallow := true\n");
    place.write("one_test.rego", "package one\n\ntest_one if allow\n");
    place.says("policy test one.rego one_test.rego", 0, &["1 test, 0 failed"]);
}

#[test]
fn a_bundle_takes_the_place_of_a_bundle_alone() {
    let place = Place::new();
    fs::create_dir(place.path().join("team")).unwrap();
    place.write("team/team.rego", "package team\n\nallow := true\n");
    let tar = ["-C", "team", "-czf", "team.tar.gz", "."];
    assert!(Command::new("tar").args(tar).current_dir(place.path()).status().unwrap().success());
    assert_eq!(place.run("policy keygen --out key.pem").0, 0);
    place.write("notes.txt", "mine");
    place.says(
        "policy sign team.tar.gz --sign key.pem --out notes.txt",
        3,
        &["notes.txt is there already, and is no bundle, but a text"],
    );
    assert_eq!(fs::read(place.path().join("notes.txt")).unwrap(), b"mine");
    for _ in 0..2 {
        place.says("policy sign team.tar.gz --sign key.pem --out signed.tar.gz", 0, &["signed    signed.tar.gz"]);
    }
    place.says("policy sign team.tar.gz --sign key.pem", 0, &["signed    team.tar.gz"]);
}

#[test]
fn a_simulator_whose_keys_are_made_says_so_once() {
    let place = Place::new();
    let (_, _, said) = place.run("sim init --product milan");
    assert!(said.contains("making the simulator's keys for Milan"), "{said}");
    assert_eq!(place.run("sim init --product milan").2, "");
    let quiet = place.run("--json sim init --product milan --product genoa");
    assert_eq!((quiet.0, quiet.2.as_str()), (0, ""));
}
