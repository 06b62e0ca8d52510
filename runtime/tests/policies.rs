//! `coffer policy`, and Rego behind the typed floor of `coffer verify`, as a user calls them.

use crate::vectors;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const AT: &str = "2026-09-20T00:00:00Z";

pub fn coffer(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_coffer")).args(words).output().unwrap()
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(output)))
}

/// A vector's file with its certificates, behind these words.
pub fn on(vector: &Path, file: &str, words: &[&str]) -> Output {
    let (file, certs) = (vector.join(file), vector.to_str().unwrap());
    coffer(&[words, &[file.to_str().unwrap(), "--certs", certs, "--at", AT]].concat())
}

pub fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_folder_says_what_the_bundle_that_is_packed_from_it_says() {
    let Some(root) = vectors::folder("snp") else { return };
    let folder = tempfile::tempdir().unwrap();
    let team = folder.path().join("team");
    std::fs::create_dir_all(team.join("blk")).unwrap();
    let rego =
        "package gate\nallow := true\ndeny contains \"listed\" if data.blk.products[input.result.claims.product]\n";
    write(&team, "gate.rego", rego);
    write(&team, "blk/data.json", r#"{"products": {"Milan": true}}"#);
    let bundle = folder.path().join("team.tar.gz");
    let packed = Command::new("tar").arg("-C").arg(&team).arg("-czf").arg(&bundle).arg(".").status();
    assert!(packed.unwrap().success());
    let verify =
        |policy: &Path| on(&root.join("milan-v2-kvm"), "report.bin", &["verify", "--policy", policy.to_str().unwrap()]);
    for policy in [&bundle, &team] {
        let output = verify(policy);
        assert_eq!(output.status.code(), Some(6), "{}", text(&output));
        assert!(text(&output).contains("listed"), "{}", text(&output));
    }
    // A text that is a link is read; what is no file, or would be data elsewhere, is refused by name.
    std::fs::rename(team.join("gate.rego"), folder.path().join("gate.txt")).unwrap();
    std::os::unix::fs::symlink("../gate.txt", team.join("gate.rego")).unwrap();
    assert_eq!(verify(&team).status.code(), Some(6));
    for (name, words) in [("data.yaml", "data stands in data.json"), ("more.REGO", "in lower case")] {
        write(&team, name, "");
        let output = verify(&team);
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        assert!(text(&output).contains(name) && text(&output).contains(words), "{}", text(&output));
        std::fs::remove_file(team.join(name)).unwrap();
    }
    assert!(Command::new("mkfifo").arg(team.join("more.rego")).status().unwrap().success());
    let output = verify(&team);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains("more.rego: is no regular file"), "{}", text(&output));
}

#[test]
fn rego_behind_the_floor_only_refuses() {
    let Some(root) = vectors::folder("snp") else { return };
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| write(folder.path(), name, text);
    let yes = write("yes.rego", "package yes\nallow := true\n");
    let no = write("no.rego", "package no\nallow := true\ndeny contains \"chip: not ours\\u001b[2J\"\n");
    let milan = root.join("milan-v2-kvm");
    let verdict = |policies: &[&str], vector: &Path, file: &str| {
        let mut words = vec!["--json", "verify"];
        words.extend(policies.iter().flat_map(|policy| ["--policy", *policy]));
        let output = on(vector, file, &words);
        let said = json(&output);
        let codes: Vec<String> =
            said["reasons"].as_array().unwrap().iter().map(|one| one["code"].as_str().unwrap().to_owned()).collect();
        (output.status.code().unwrap(), said["verdict"].as_str().unwrap().to_owned(), codes)
    };
    let codes = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    assert_eq!(verdict(&[&yes], &milan, "report.bin"), (0, "accepted".into(), codes(&[])));
    assert_eq!(verdict(&[&yes, &no], &milan, "report.bin"), (6, "refused".into(), codes(&["rego"])));
    // What the floor refuses no Rego admits, and both say all their reasons.
    let strict = ["product-refused", "platform-info", "tcb-no-minimum"];
    assert_eq!(verdict(&["strict", &yes], &milan, "report.bin"), (6, "refused".into(), codes(&strict)));
    let all = codes(&[&strict[..], &["rego"]].concat());
    assert_eq!(verdict(&["strict", &no], &milan, "report.bin"), (6, "refused".into(), all));
    // Nor is anybody asked about what is not authentic.
    let impostor = verdict(&[&yes, &no], &root.join("neg-impostor-chain"), "report.bin");
    assert!(impostor.0 == 5 && !impostor.2.contains(&"rego".to_owned()), "{impostor:?}");
    let debug = verdict(&[&yes], &root.join("milan-v2-debug"), "report.bin");
    assert!(debug.0 != 0, "{debug:?}");
    // Azure's own policy, on genuine evidence.
    for vector in ["milan-v2-azure-hcl", "genoa-v3-azure-hcl"] {
        let folder = root.join(vector);
        assert_eq!(verdict(&["azure-cvm", "snp"], &folder, "hcl.bin").0, 0, "{vector}");
        assert_eq!(verdict(&["azure-cvm"], &folder, "report.bin").0, 6, "{vector}: a bare report is bound to nothing");
    }
    assert_eq!(verdict(&["azure-cvm"], &milan, "report.bin").0, 6);
    let shown = text(&on(&milan, "report.bin", &["verify", "--policy", &no]));
    assert!(shown.contains("rego: found chip: not ours") && !shown.contains('\u{1b}'), "{shown}");
    // What would read as built in has no place in results.
    let open = "measurements = \"any\"\n";
    for name in ["strict", "Default-Floor", "strict+snp.toml"] {
        let output = on(&milan, "report.bin", &["verify", "--policy", &write(name, open)]);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains("rename it"), "{}", text(&output));
    }
    std::fs::create_dir(folder.path().join("azure-cvm")).unwrap();
    write("azure-cvm/yes.rego", "package yes\nallow := true\n");
    let path = folder.path().join("azure-cvm");
    let output = on(&milan, "report.bin", &["verify", "--policy", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    let twice = on(&milan, "report.bin", &["verify", "--policy", "strict", "--policy", "strict"]);
    assert_eq!(twice.status.code(), Some(2), "{}", text(&twice));
    let broken = write("broken.rego", "package b\nallow if {\n");
    let said = on(&milan, "report.bin", &["verify", "--policy", &broken]);
    assert!(
        said.status.code() == Some(3) && text(&said).contains("broken.rego does not parse: line 3"),
        "{}",
        text(&said)
    );
}

#[test]
fn a_policy_that_ships_refuses_what_a_simulator_says() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("e");
    let sim = |words: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_coffer")).env("COFFER_HOME", home.path()).args(words).output().unwrap()
    };
    let made = sim(&["sim", "evidence", "--out", out.to_str().unwrap()]);
    assert!(made.status.success(), "{}", text(&made));
    let report = out.join("report.bin");
    let words = ["verify", report.to_str().unwrap(), "--certs", out.to_str().unwrap(), "--allow-simulated"];
    let accepted = sim(&words);
    assert_eq!(accepted.status.code(), Some(0), "{}", text(&accepted));
    let input = ["policy", "input", words[1], "--certs", words[3]];
    let unlisted = sim(&input);
    assert!(unlisted.status.code() == Some(5) && text(&unlisted).contains("untrusted-root"), "{}", text(&unlisted));
    assert_eq!(json(&sim(&[&input[..], &["--allow-simulated"]].concat()))["result"]["claims"]["simulated"], true);
    for policy in ["snp", "azure-cvm"] {
        let refused = sim(&[&words[..], &["--policy", policy]].concat());
        assert_eq!(refused.status.code(), Some(6), "{}", text(&refused));
        assert!(text(&refused).contains("rego: found anchor:"), "{}", text(&refused));
    }
}

/// Paths of everything in a value, as the schema writes them, and which of them were null.
fn paths(path: &str, value: &Value, all: &mut BTreeMap<String, bool>) {
    *all.entry(path.to_owned()).or_default() |= value.is_null();
    for (name, inner) in value.as_object().into_iter().flatten() {
        paths(&format!("{path}.{name}"), inner, all);
    }
}

#[test]
fn every_field_of_genuine_inputs_is_described_and_every_description_is_of_one() {
    let Some(root) = vectors::folder("snp") else { return };
    let fields = json(&coffer(&["--json", "policy", "show", "input"]));
    let fields: BTreeMap<&str, &str> = fields["fields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|field| (field["path"].as_str().unwrap(), field["kind"].as_str().unwrap()))
        .collect();
    let mut there = BTreeMap::new();
    let mut count = 0;
    for vector in ["milan-v2-kvm", "genoa-v5-siena", "turin-v5", "milan-v3-vlek-vmpl1", "milan-v2-debug"] {
        let output = on(&root.join(vector), "report.bin", &["policy", "input"]);
        if output.status.success() {
            paths("input", &json(&output), &mut there);
            count += 1;
        }
    }
    assert!(count >= 4, "{count}");
    for (path, was_null) in &there {
        let kind = fields.get(path.as_str()).unwrap_or_else(|| panic!("{path} is not described"));
        assert!(!was_null || kind.contains("null"), "{path} was null, and is described as {kind}");
    }
    let ours: BTreeSet<&str> = fields.keys().copied().filter(|path| path.starts_with("input.result")).collect();
    let missing: Vec<_> = ours.iter().filter(|path| !there.contains_key(**path)).collect();
    assert!(missing.is_empty(), "described, and in no input: {missing:?}");
}

#[test]
fn authors_see_what_is_wrong_with_file_and_line_in_text_and_json() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    write(folder.path(), "team.rego", "package team\nallow if {\n\tx := 1\n\tinput.result.claims.debug == false\n}\n");
    let tests =
        "package team_test\nimport data.team\ntest_no if not team.allow with input as {}\ntest_yes if team.allow\n";
    write(folder.path(), "team_test.rego", tests);
    let lint = coffer(&["policy", "lint", path]);
    assert_eq!(lint.status.code(), Some(3));
    let said = text(&lint);
    assert!(
        said.contains("team.rego:3:5: unused-variable: x ") && said.contains("team.rego:4:5: unknown-field: "),
        "{said}"
    );
    let lint = json(&coffer(&["--json", "policy", "lint", path]));
    assert_eq!((lint["findings"][0]["line"].as_u64(), lint["findings"].as_array().unwrap().len()), (Some(3), 2));
    let tested = coffer(&["policy", "test", path]);
    let said = text(&tested);
    assert!(
        tested.status.code() == Some(3)
            && said.contains("FAIL  team_test.test_yes")
            && said.contains("team_test.rego:4"),
        "{said}"
    );
    let tested = json(&coffer(&["--json", "policy", "test", path]));
    assert_eq!((tested["failed"].as_u64(), tested["tests"][0]["passed"].as_bool()), (Some(1), Some(true)));
    let input = write(folder.path(), "input.json", "{\"result\": {\"claims\": {\"debug\": true}}}");
    let explained = coffer(&["--json", "policy", "explain", path, "--input", &input]);
    assert_eq!(explained.status.code(), Some(6));
    let said = json(&explained);
    assert_eq!(said["allow"], false);
    assert!(
        said["decided_by"][0].as_str().unwrap().contains("stops in line 4: input.result.claims.debug == false"),
        "{said}"
    );
    assert_eq!(said["values"][0]["value"], true);
    for shipped in ["snp", "azure-cvm", "release"] {
        assert_eq!(coffer(&["policy", "lint", shipped]).status.code(), Some(0), "{shipped}");
        assert_eq!(coffer(&["policy", "test", shipped]).status.code(), Some(0), "{shipped}");
        let shown = json(&coffer(&["--json", "policy", "show", shipped]));
        assert!(shown["text"].as_str().unwrap().contains("package coffer."), "{shown}");
    }
    assert_eq!(coffer(&["policy", "show", "nobody"]).status.code(), Some(1));
    let schema = coffer(&["policy", "show", "input", "--schema"]);
    assert_eq!(json(&schema)["properties"]["now_unix"]["type"], "integer");
    let endless = "package t\nallow if count([1 | some a in numbers.range(1, 4000); some b in numbers.range(1, 4000); a + b < 0]) == 0\n\
                   test_x if allow\n";
    let endless = write(folder.path(), "endless.rego", endless);
    let said = coffer(&["policy", "test", &endless]);
    assert!(said.status.code() == Some(3) && text(&said).contains("FAIL"), "{}", text(&said));
}

#[test]
fn a_decision_is_logged_without_what_is_masked_and_tried_again() {
    let Some(root) = vectors::folder("snp") else { return };
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log.jsonl");
    let log = log.to_str().unwrap();
    let milan = root.join("milan-v2-kvm");
    let masks = ["--mask", "/input/result/claims/report/chip_id", "--mask", "/input/result/claims/leaf/hwid"];
    let logged = [&["verify", "--decision-log", log][..], &masks].concat();
    assert_eq!(on(&milan, "report.bin", &logged).status.code(), Some(0));
    assert_eq!(on(&milan, "report.bin", &[&logged[..], &["--policy", "strict"]].concat()).status.code(), Some(6));
    assert_eq!(on(&root.join("neg-impostor-chain"), "report.bin", &logged).status.code(), Some(5));
    let lines = std::fs::read_to_string(log).unwrap();
    let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 3);
    let said: Vec<_> = events.iter().map(|event| event["result"]["allow"].as_bool().unwrap()).collect();
    assert_eq!(said, [true, false, false]);
    assert!(events[0]["input"]["result"]["claims"]["report"].get("chip_id").is_none());
    assert_eq!(events[0]["erased"][0], "/input/result/claims/report/chip_id");
    assert!(events[1]["bundles"]["strict"]["revision"].is_string() && events[2].get("input").is_none());
    assert_ne!(events[0]["decision_id"], events[1]["decision_id"]);
    assert!(!lines.contains("d49554ec717f4e5b"), "the chip stands in its line");
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(log).unwrap().permissions().mode() & 0o777, 0o600);

    let next = write(
        folder.path(),
        "next.rego",
        "package next\nallow := true\ndeny contains \"product\" if input.result.claims.product == \"Milan\"\n",
    );
    let yes = write(folder.path(), "yes.rego", "package yes\nallow := true\n");
    let tried = json(&coffer(&["--json", "policy", "try", &next, "--on", log]));
    assert_eq!((tried["would_be_refused"].as_u64(), tried["without_input"].as_u64()), (Some(1), Some(1)), "{tried}");
    assert_eq!(tried["decisions"][0]["reasons"][0], "product");
    assert_eq!(tried["decisions"][0]["masked"], true);
    let tried = json(&coffer(&["--json", "policy", "try", &yes, "--on", log]));
    assert_eq!(
        (tried["would_be_refused"].as_u64(), tried["would_be_accepted"].as_u64()),
        (Some(0), Some(0)),
        "{tried}"
    );
    let inputs = folder.path().join("inputs");
    std::fs::create_dir(&inputs).unwrap();
    write(&inputs, "a.json", &events[0]["input"].to_string());
    let shown = text(&coffer(&["policy", "try", &next, "--against", &yes, "--on", inputs.to_str().unwrap()]));
    assert!(shown.contains("accepted -> refused") && shown.contains("a.json"), "{shown}");
    // A folder says nothing of then: what is refused now is not hidden behind that.
    let no = write(folder.path(), "no.rego", "package no\nallow := false\n");
    let tried = json(&coffer(&["--json", "policy", "try", &no, "--on", inputs.to_str().unwrap()]));
    assert_eq!(tried["of_unknown"], serde_json::json!({ "refused": 1, "accepted": 0 }), "{tried}");
    let shown = text(&coffer(&["policy", "try", &no, "--on", inputs.to_str().unwrap()]));
    assert!(
        shown.contains("0 decisions: 0 would be refused") && shown.contains("1 refused, 0 accepted now"),
        "{shown}"
    );
    let broken = write(folder.path(), "broken.jsonl", "{\"result\": {}}\n{\n");
    let said = coffer(&["policy", "try", &yes, "--on", &broken]);
    assert!(said.status.code() == Some(3) && text(&said).contains("broken.jsonl:2"), "{}", text(&said));
    // What cannot be written is not said either.
    let nowhere = folder.path().join("none/log");
    let nowhere = on(&milan, "report.bin", &["verify", "--decision-log", nowhere.to_str().unwrap()]);
    assert!(nowhere.status.code() == Some(3) && !text(&nowhere).contains("accepted"), "{}", text(&nowhere));
    assert_eq!(
        on(&milan, "report.bin", &["verify", "--decision-log", log, "--mask", "/labels"]).status.code(),
        Some(2)
    );
}

#[test]
fn a_typed_policy_is_linted_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let open = "measurements = \"any\"\nvmpls = [0, 1]\n[guest_policy]\ndebug = \"any\"\n";
    let open = write(folder.path(), "open.toml", open);
    let lint = coffer(&["policy", "lint", &open]);
    let said = text(&lint);
    assert_eq!(lint.status.code(), Some(3), "{said}");
    for (line, code) in [(1, "any-guest"), (1, "no-minimum-tcb"), (2, "other-vmpls"), (4, "debug-allowed")] {
        assert!(said.contains(&format!("open.toml:{line}:1: {code}: ")), "{code}: {said}");
    }
    let listed = json(&coffer(&["--json", "policy", "lint", &open]));
    assert_eq!(listed["findings"].as_array().unwrap().len(), 4, "{listed}");
    let wrong = write(folder.path(), "wrong.toml", "measurement = []\nvmpls = [9]\n");
    let said = text(&coffer(&["policy", "lint", &wrong, "snp"]));
    assert_eq!(said.matches(": mistake: ").count(), 3, "each, and not the first: {said}");
    // A floor of a key broker's, whose references say which guests are meant.
    let strict = json(&coffer(&["--json", "policy", "show", "strict"]))["text"].as_str().unwrap().to_owned();
    let floor = write(folder.path(), "floor.toml", &strict);
    let alone = coffer(&["policy", "lint", &floor]);
    assert!(alone.status.code() == Some(3) && text(&alone).contains(": any-guest: "), "{}", text(&alone));
    let elsewhere = coffer(&["policy", "lint", &floor, "--guests-elsewhere"]);
    assert_eq!((elsewhere.status.code(), text(&elsewhere).as_str()), (Some(0), "no findings\n"));
    // The word says what its text does.
    let word = coffer(&["policy", "lint", "strict"]);
    assert!(word.status.code() == Some(3) && text(&word).contains("strict:"), "{}", text(&word));
    let of_file = text(&alone).replace(&floor, "strict");
    assert_eq!(text(&word), of_file);
    let elsewhere = coffer(&["policy", "lint", "strict", "--guests-elsewhere"]);
    assert_eq!((elsewhere.status.code(), text(&elsewhere).as_str()), (Some(0), "no findings\n"));
    assert_eq!(coffer(&["policy", "lint", "/nonexistent.toml"]).status.code(), Some(3));
}

#[test]
fn what_comes_with_coffer_is_linted_and_tested_by_its_word() {
    let run = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_coffer")).arg("policy").args(words).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    for word in ["snp", "azure-cvm", "release"] {
        assert_eq!(run(&["lint", word]), (0, String::new()), "{word}");
    }
    assert_eq!(run(&["lint", "strict", "--guests-elsewhere"]), (0, String::new()));
    for word in ["snp", "azure-cvm", "release"] {
        assert_eq!(run(&["test", word]).0, 0, "{word}");
    }
    // Typed, it has no tests in Rego: that is said, and not that a file is missing.
    for words in [["test", "strict"], ["lint", "strict"]].map(|[command, word]| [command, word, "snp"]) {
        let (exit, why) = run(&words);
        assert!(exit == 3 && why.contains("strict is a typed policy"), "{words:?}: {why}");
    }
    assert_eq!(run(&["test", "strict"]).0, 3);
}

#[test]
fn every_file_that_is_no_policy_is_reported_and_not_the_first_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let all = [
        file("a.rego", b"package a\nallow if {\n"),
        file("b.rego", b"words\n"),
        file("c.rego", b"package c\n\nx if {\n\ty := 1\n}\n"),
        file("d.rego", &[0xff, 0xfe]),
        file("e.toml", &[0xff, 0xfe]),
        file("f.toml", b"words"),
        file("g.rego", b"package g\n\nx if http.send({}).a\n"),
    ];
    let words: Vec<&str> = ["--json", "policy", "lint"].into_iter().chain(all.iter().map(String::as_str)).collect();
    let lint = coffer(&words);
    let said = json(&lint);
    assert_eq!(lint.status.code(), Some(3), "{said}");
    let found: Vec<(&str, &str)> = said["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["file"].as_str().unwrap(), one["code"].as_str().unwrap()))
        .collect();
    let codes = ["parse", "parse", "unused-variable", "parse", "mistake", "mistake", "forbidden-function"];
    for (file, code) in all.iter().zip(codes) {
        assert!(found.contains(&(file.as_str(), code)), "{file} {code}: {found:?}");
    }
    // The same of a folder.
    let in_folder = text(&coffer(&["policy", "lint", folder.path().to_str().unwrap()]));
    for name in ["a.rego", "b.rego", "c.rego", "d.rego", "g.rego"] {
        assert!(in_folder.contains(&format!("/{name}:")), "{name}: {in_folder}");
    }
    assert!(!in_folder.contains(".toml"), "{in_folder}");
    // One that is not there is no finding, and nor is a folder without any.
    let empty = tempfile::tempdir().unwrap();
    for none in ["/nonexistent.rego", empty.path().to_str().unwrap()] {
        let said = coffer(&["--json", "policy", "lint", none]);
        assert!(said.status.code() == Some(3) && json(&said)["error"]["class"] == "config", "{}", text(&said));
    }
}

#[test]
fn a_policy_that_calls_what_none_may_is_refused_when_it_is_named_and_not_when_that_is_reached() {
    let Some(root) = vectors::folder("snp") else { return };
    let folder = tempfile::tempdir().unwrap();
    let body = "package p\n\ndefault allow := true\n\nallow := false if {\n\tinput.result.claims.product == \"Turin\"\n\thttp.send({}).x\n}\n";
    let policy = write(folder.path(), "p.rego", body);
    let said = on(&root.join("milan-v2-kvm"), "report.bin", &["verify", "--policy", &policy]);
    let words = text(&said);
    assert_eq!(said.status.code(), Some(3), "{words}");
    for part in ["p.rego, line 7, column ", "http.send is not available to policies", "hint: ", "input.now_unix"] {
        assert!(words.contains(part), "{part}: {words}");
    }
    assert_eq!(coffer(&["policy", "test", &policy]).status.code(), Some(3));
}

#[test]
fn what_a_key_broker_alone_gives_is_told_to_whoever_judges_evidence() {
    let Some(root) = vectors::folder("snp") else { return };
    let folder = tempfile::tempdir().unwrap();
    let milan = root.join("milan-v2-kvm");
    for command in [&["verify"][..], &["policy", "input"]] {
        let said = on(&milan, "report.bin", &[command, &["--policy", "release"]].concat());
        let words = text(&said);
        assert_eq!(said.status.code(), Some(2), "{words}");
        for part in ["--policy release", "input.spec", "`snp`", "coffer policy show release"] {
            assert!(words.contains(part), "{part}: {words}");
        }
    }
    // The same text under a name of one's own.
    let own = json(&coffer(&["--json", "policy", "show", "release"]))["text"].as_str().unwrap().to_owned();
    let own = write(folder.path(), "own.rego", &own);
    let refused = json(&on(&milan, "report.bin", &["--json", "verify", "--policy", &own]));
    let hint = refused["reasons"][0]["hint"].as_str().unwrap();
    assert!(hint.contains("input.spec") && hint.contains("key broker alone"), "{refused}");
    let words = text(&on(&milan, "report.bin", &["verify", "--policy", "nosuch"]));
    assert!(words.contains("`release` is the key broker's"), "{words}");
    // Nor is Rego asked by whoever asks a typed policy alone.
    let home = folder.path().join("home");
    let of = |words: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_coffer")).env("COFFER_HOME", &home).args(words).output().unwrap()
    };
    for rego in ["snp", &own, folder.path().to_str().unwrap(), "team.tar.gz"] {
        for words in [
            &["attest", "web", "--policy", rego][..],
            &["seal", "web", "--policy", rego],
            &["connect", "--policy", rego, "--reference", "x", "--guest-port", "1", "127.0.0.1:1"],
        ] {
            let said = of(words);
            let told = text(&said);
            assert_eq!(said.status.code(), Some(2), "{words:?}: {told}");
            assert!(told.contains("it is Rego") && told.contains("coffer verify FILE --policy"), "{words:?}: {told}");
        }
    }
}

#[test]
fn a_typed_policy_is_told_from_broken_rego_and_a_missing_input_is_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let run = |words: &[&str]| {
        let command =
            Command::new(env!("CARGO_BIN_EXE_coffer")).current_dir(&folder).arg("policy").args(words).output();
        let output = command.unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (floor, log) = (folder.path().join("floor.toml"), folder.path().join("log.jsonl"));
    std::fs::write(&floor, "min_guest_svn = 3\n").unwrap();
    std::fs::write(&log, "").unwrap();
    for words in [
        &["test", "floor.toml"][..],
        &["explain", "floor.toml", "--input", "input.json"],
        &["try", "floor.toml", "--on", "log.jsonl"],
    ] {
        let (exit, why) = run(words);
        assert!(exit == 3 && why.contains("floor.toml is a typed policy (TOML), and no Rego"), "{words:?}: {why}");
    }
    let (exit, why) = run(&["explain", "snp", "--input", "nope.json"]);
    assert!(exit == 3 && why.contains("reading nope.json"), "{why}");
}
