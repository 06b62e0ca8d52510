//! `coffer verify --fetch` and `coffer collateral`, against the simulated key distribution service.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

const COFFER: &str = env!("CARGO_BIN_EXE_coffer");

fn coffer(home: &Path, words: &[&str]) -> Output {
    Command::new(COFFER).env("COFFER_HOME", home).args(words).output().unwrap()
}

fn json(home: &Path, words: &[&str], status: i32) -> Value {
    let output = coffer(home, &[&["--json"], words].concat());
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{words:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{words:?}: {error}: {said}"))
}

/// Ends with its test.
struct Service(Child, String);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn service(home: &Path, fault: &str) -> Service {
    let mut child = Command::new(COFFER)
        .env("COFFER_HOME", home)
        .args(["sim", "kds", "--fault", fault])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut address = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut address).unwrap();
    Service(child, address.trim().to_owned())
}

#[test]
fn what_is_missing_is_fetched_kept_listed_and_carried_to_a_site_without_a_network() {
    let dir = tempfile::tempdir().unwrap();
    let (home, other) = (dir.path().join("home"), dir.path().join("other"));
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let made = json(&home, &["sim", "evidence", "--product", "milan", "--out", &path("evidence")], 0);
    let (report, anchor) = (path("evidence/report.bin"), made["anchor"].as_str().unwrap());
    let verify = ["verify", &report, "--allow-simulated", "--fetch"];
    let with = |words: &[&'static str]| [&verify[..], words].concat();

    assert_eq!(json(&home, &verify, 2)["error"]["class"], "usage", "AMD has nothing of it");
    let nothing = json(&home, &with(&["--offline"]), 5);
    assert_eq!(nothing["not_fetched"].as_array().unwrap().len(), 3, "{nothing}");
    {
        let broken = service(&home, "500");
        let refused = json(&home, &[&verify[..], &["--mirror", &broken.1]].concat(), 5);
        assert!(refused["not_fetched"][0]["error"]["message"].as_str().unwrap().contains("status 500"), "{refused}");
        let none = json(&home, &["collateral", "fetch", &report, "--allow-simulated", "--mirror", &broken.1], 7);
        assert_eq!((&none["certificates"], &none["error"]["class"]), (&0.into(), &"unreachable".into()), "{none}");
    }
    {
        let honest = service(&home, "none");
        let fetched = json(&home, &[&verify[..], &["--mirror", &honest.1]].concat(), 0);
        assert_eq!((fetched["verdict"].as_str(), &fetched["not_fetched"]), (Some("accepted"), &serde_json::json!([])));
        let anew = json(&home, &["collateral", "refresh", "--allow-simulated", "--mirror", &honest.1], 0);
        assert_eq!(anew["lists"], 1, "{anew}");
    }
    // The service is gone.
    assert_eq!(json(&home, &with(&["--offline"]), 0)["verdict"], "accepted");
    json(&home, &["token", "init", "--out", &path("keys.json")], 0);
    let keys = path("keys.json");
    let token = ["token", "issue", &report, "--allow-simulated", "--fetch", "--offline", "--keys", &keys];
    let token = json(&home, &[&token[..], &["--iss", "https://verifier.example", "--aud", "bank"]].concat(), 0);
    assert_eq!((&token["verdict"], &token["not_fetched"]), (&"accepted".into(), &serde_json::json!([])), "{token}");
    let kept = json(&home, &["collateral", "ls", "--allow-simulated"], 0);
    assert_eq!(kept.as_array().unwrap().len(), 3, "{kept}");
    assert!(kept.as_array().unwrap().iter().all(|one| one["of_use"] == true), "{kept}");
    assert_eq!(json(&home, &["collateral", "ls"], 0), serde_json::json!([]), "nothing of it is AMD's");

    let out = path("medium");
    let written = json(&home, &["collateral", "export", "--allow-simulated", "--out", &out], 0);
    assert_eq!(written["without_list"], serde_json::json!([]), "{written}");
    // AMD's is none of it, and a medium of nothing is not made in silence.
    let none = json(&home, &["collateral", "export", "--out", &path("nothing")], 3);
    assert_eq!(none["error"]["class"], "config", "{none}");
    let theirs = ["--allow-simulated", "--anchor", anchor];
    let taken = json(&other, &[&["collateral", "import", &out], &theirs[..]].concat(), 0);
    assert_eq!(taken["items"].as_array().unwrap().len(), 3, "{taken}");
    let judged = json(&other, &[&["verify", &report, "--fetch", "--offline"], &theirs[..]].concat(), 0);
    assert_eq!(judged["verdict"], "accepted");
    let amd = json(&other, &["collateral", "import", &out], 5);
    assert_eq!(amd["items"], serde_json::json!([]), "a simulator's is nothing to who believes AMD alone");
    // A chain without a list is of no use to those who demand one, which is told before somebody carries it away.
    let is_list = |one: &&serde_json::Value| !one["number"].is_null();
    let list = kept.as_array().unwrap().iter().find(is_list).unwrap()["file"].as_str().unwrap().to_owned();
    let aside = format!("{list}.aside");
    std::fs::rename(&list, &aside).unwrap();
    let bare = json(&home, &["collateral", "export", "--allow-simulated", "--out", &path("bare")], 0);
    assert_eq!(bare["without_list"], serde_json::json!(["Milan"]), "{bare}");
    std::fs::rename(&aside, &list).unwrap();
    // In words.
    let said = coffer(&home, &["collateral", "ls", "--allow-simulated"]);
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.starts_with("ITEM") && said.contains("VCEK of Milan chip") && said.contains("of use"), "{said}");

    // A list below the number seen counts neither where it is kept nor where it is brought.
    let list = kept.as_array().unwrap().iter().find(|one| one["item"]["kind"] == "crl").unwrap();
    let list = Path::new(list["file"].as_str().unwrap());
    std::fs::write(list.with_file_name("crl.number"), "999").unwrap();
    assert_eq!(json(&home, &with(&["--offline"]), 5)["reasons"][0]["code"], "endorsement-missing");
    let brought = format!("{out}/vcek/v1/Milan/crl");
    let old = json(&home, &[&verify[..], &["--offline", "--crl", &brought]].concat(), 5);
    assert_eq!(old["reasons"][0]["code"], "crl-number", "{old}");
    let none = ["verify", &report, "--allow-simulated", "--crl", &brought, "--certs", &path("evidence")];
    assert_eq!(json(&home, &none, 0)["verdict"], "accepted", "who keeps nothing has seen nothing");
}

#[test]
fn what_lies_in_a_folder_and_is_no_file_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (home, folder) = (dir.path().join("home"), dir.path().join("evidence"));
    let evidence = folder.to_str().unwrap();
    json(&home, &["sim", "evidence", "--out", evidence], 0);
    std::fs::remove_file(folder.join("crl.der")).unwrap();
    assert!(Command::new("mkfifo").arg(folder.join("crl.der")).status().unwrap().success());
    let report = format!("{evidence}/report.bin");
    let said = json(&home, &["verify", &report, "--allow-simulated", "--certs", evidence], 3);
    assert!(said["error"]["message"].as_str().unwrap().contains("no regular file"), "{said}");
    // The pipe is passed over, and the certificate table has the list too.
    let said = json(&home, &["collateral", "import", "--allow-simulated", evidence], 0);
    assert_eq!(said["items"].as_array().unwrap().len(), 4, "leaf, chain, and a list for both services: {said}");
}

/// A service that says each item's first time that it wants no request for two seconds, and then that it has none.
fn busy() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut seen = std::collections::BTreeSet::new();
        for line in listener.incoming() {
            let mut line = line.unwrap();
            let mut asked = String::new();
            let _ = BufReader::new(&line).read_line(&mut asked);
            let answer = if seen.insert(asked) { "429 Busy\r\nRetry-After: 2" } else { "404 None" };
            let _ = write!(line, "HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    format!("http://{address}")
}

#[test]
fn whoever_waits_for_the_service_is_told_for_what_and_a_script_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let evidence = dir.path().join("evidence");
    json(&home, &["sim", "evidence", "--product", "milan", "--out", evidence.to_str().unwrap()], 0);
    let report = evidence.join("report.bin");
    let mirror = busy();
    let words = ["verify", report.to_str().unwrap(), "--allow-simulated", "--fetch", "--mirror", &mirror];
    let said = coffer(&home, &words);
    let told = String::from_utf8(said.stderr).unwrap();
    let line = told.lines().next().unwrap_or_default();
    assert!(
        line.starts_with(&format!("coffer: {mirror} wants no request for "))
            && line.contains(" s: waiting for ")
            && line.contains("VCEK revocation list of Milan"),
        "{told}"
    );
    let mirror = busy();
    let words = ["verify", report.to_str().unwrap(), "--allow-simulated", "--fetch", "--mirror", &mirror];
    let quiet = Command::new(COFFER).env("COFFER_HOME", &home).arg("--json").args(words).output();
    assert_eq!(String::from_utf8(quiet.unwrap().stderr).unwrap(), "");
    // Where nobody is slow nobody is told.
    let honest = service(&home, "none");
    let fast =
        coffer(&home, &["verify", report.to_str().unwrap(), "--allow-simulated", "--fetch", "--mirror", &honest.1]);
    assert!(fast.status.success() && !String::from_utf8_lossy(&fast.stderr).contains("waiting"), "{fast:?}");
}

#[test]
fn a_simulators_service_is_not_blamed_as_a_mirror_and_what_became_of_each_item_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let (home, other) = (dir.path().join("home"), dir.path().join("other"));
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let made = json(&home, &["sim", "evidence", "--product", "milan", "--out", &path("evidence")], 0);
    let (report, anchor) = (path("evidence/report.bin"), made["anchor"].as_str().unwrap());
    let honest = service(&home, "none");
    let url = honest.1.clone();
    let mirror = ["--mirror", &url];
    let fetch = [&["collateral", "fetch", &report], &mirror[..]].concat();

    // Of this installation's simulator, which is known by its chip: nobody is asked.
    let own = json(&home, &fetch, 5);
    let words = own["error"]["message"].as_str().unwrap();
    assert!(words.contains("simulated evidence") && own.get("failures").is_none(), "{own}");
    assert!(own["error"]["hint"].as_str().unwrap().contains("--allow-simulated"), "{own}");
    // Of another's, by what the service answers.
    let others = json(&other, &fetch, 5);
    let line = json(&other, &[&["collateral", "fetch", "--product", "milan"], &mirror[..]].concat(), 5);
    let verified = json(&other, &[&["verify", &report, "--fetch"], &mirror[..]].concat(), 5);
    for failure in [&others["failures"][0], &line["failures"][0], &verified["not_fetched"][0]] {
        let hint = failure["error"]["hint"].as_str().unwrap();
        assert!(hint.contains("simulated") && hint.contains("--allow-simulated"), "{failure}");
    }
    let hint = line["error"]["hint"].as_str().unwrap();
    assert!(hint.contains("--allow-simulated"), "{line}");
    let shown = coffer(&home, &["verify", &report]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("hint: the evidence names the chip of this installation") && !shown.contains("kdsintf"),
        "{shown}"
    );

    let believed = [&fetch[..], &["--allow-simulated"]].concat();
    let refresh = [&["collateral", "refresh", "--allow-simulated"], &mirror[..]].concat();
    let results = |said: &Value| -> Vec<String> {
        let all = said["items"].as_array().unwrap().iter();
        all.map(|one| format!("{} {}", one["kind"].as_str().unwrap(), one["result"].as_str().unwrap())).collect()
    };
    let sorted = |said: &Value| {
        let mut all = results(said);
        all.sort_unstable();
        all
    };
    let first = json(&home, &believed, 0);
    assert_eq!(sorted(&first), ["chain fetched", "crl fetched", "vcek fetched"], "{first}");
    assert_eq!((&first["certificates"], &first["lists"]), (&3.into(), &1.into()));
    let again = json(&home, &believed, 0);
    assert_eq!(sorted(&again), ["chain kept", "crl kept", "vcek kept"], "{again}");
    let anew = json(&home, &refresh, 0);
    // The service may have dated it anew meanwhile.
    assert!(["crl updated", "crl kept"].contains(&results(&anew)[0].as_str()), "{anew}");
    let said = coffer(&home, &believed);
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.lines().count() == 3 && said.lines().all(|line| line.starts_with("kept      V")), "{said}");
    // One that cannot be got anew stays, and that is said beside why.
    drop(honest);
    let stays = json(&home, &refresh, 7);
    assert_eq!(results(&stays), ["crl kept"], "{stays}");
    assert_eq!(stays["failures"].as_array().unwrap().len(), 1, "{stays}");

    let medium = path("medium");
    json(&home, &["collateral", "export", "--allow-simulated", "--out", &medium], 0);
    let import = ["collateral", "import", &medium, "--allow-simulated", "--anchor", anchor];
    let taken = json(&other, &import, 0);
    assert_eq!(sorted(&taken), ["chain imported", "crl imported", "vcek imported"], "{taken}");
    let twice = coffer(&other, &import);
    let twice = String::from_utf8(twice.stdout).unwrap();
    assert!(twice.lines().count() == 3 && twice.lines().all(|line| line.starts_with("kept      V")), "{twice}");
}
