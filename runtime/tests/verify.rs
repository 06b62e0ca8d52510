//! `coffer verify` on every genuine vector: exit code, verdict and reasons as the manifest says.

use crate::vectors;
use std::process::{Command, Output};

use serde_json::Value;

fn coffer(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_coffer")).args(words).output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

const AT: &str = "2026-09-20T00:00:00Z";

#[test]
fn every_vector_ends_with_the_exit_code_its_manifest_allows() {
    let Some(root) = vectors::folder("snp") else { return };
    let manifest: Value = serde_json::from_slice(&std::fs::read(root.join("MANIFEST.json")).unwrap()).unwrap();
    let mut runs = 0;
    for vector in manifest.as_array().unwrap() {
        let folder = root.join(vector["name"].as_str().unwrap());
        for run in vector["cli"].as_array().into_iter().flatten() {
            for file in ["report.bin", "hcl.bin"].map(|name| folder.join(name)).iter().filter(|file| file.is_file()) {
                let mut words = vec!["--json", "verify", file.to_str().unwrap(), "--certs", folder.to_str().unwrap()];
                words.extend(["--at", run["at"].as_str().unwrap()]);
                words.extend(run["flags"].as_array().unwrap().iter().map(|flag| flag.as_str().unwrap()));
                let output = coffer(&words);
                let exit = output.status.code().unwrap();
                let said = json(&output);
                let allowed = run["exit"].as_array().unwrap();
                assert!(allowed.iter().any(|code| code == exit), "{}: {exit}, {said}", file.display());
                let verdict = match exit {
                    0 => "accepted",
                    5 => "not-authentic",
                    _ => "refused",
                };
                assert_eq!(said["verdict"], verdict);
                assert_eq!(said["reasons"].as_array().unwrap().is_empty(), exit == 0);
                assert_ne!(said["simulated"], true);
                runs += 1;
            }
        }
    }
    assert!(runs >= 17, "{runs}");
}

#[test]
fn a_missing_endorsement_names_where_to_get_it_and_bad_files_are_told_apart() {
    let Some(root) = vectors::folder("snp") else { return };
    let folder = root.join("milan-v2-kvm");
    let report = folder.join("report.bin");
    let report = report.to_str().unwrap();
    let missing = coffer(&["verify", report, "--json", "--at", AT]);
    assert_eq!(missing.status.code(), Some(5));
    let said = json(&missing);
    assert_eq!(said["reasons"][0]["code"], "endorsement-missing");
    let missing = said["missing"].as_array().unwrap();
    let kinds: Vec<_> = missing.iter().map(|one| one["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["VCEK certificate", "certificate revocation list"], "AMD's own chain is embedded");
    let levels = serde_json::json!({ "bootloader": 3, "tee": 0, "snp": 8, "microcode": 115 });
    assert_eq!(missing[0]["reported_tcb"], levels, "no number that a reader of floating point would round");
    let url = missing[0]["urls"][0].as_str().unwrap();
    assert!(url.contains("https://kdsintf.amd.com/vcek/v1/Milan/d49554ec") && url.contains("ucodeSPL=115"), "{url}");
    assert_eq!(missing[1]["urls"][0], "https://kdsintf.amd.com/vcek/v1/Milan/crl");
    let text = coffer(&["verify", report, "--at", AT]);
    assert!(String::from_utf8_lossy(&text.stdout).contains(url), "{text:?}");
    // What to type: --fetch, which gets what is of today.
    let hint = "hint: with --fetch this command gets them";
    assert!(!String::from_utf8_lossy(&text.stdout).contains(hint), "{text:?}");
    assert!(String::from_utf8_lossy(&text.stdout).contains("hint: name those of that time: --certs DIR"), "{text:?}");
    // A list that is over, as that of the vectors is but for the weeks it was made for.
    let over = coffer(&["verify", report, "--certs", folder.to_str().unwrap()]);
    let over = String::from_utf8_lossy(&over.stdout).into_owned();
    let of_list = "hint: with --fetch this command gets the list of today";
    assert_eq!(over.contains("crl-dates: "), over.contains(of_list), "{over}");
    let input = ["policy", "input", report];
    for words in [&["verify", report][..], &input] {
        let text = coffer(words);
        assert!(String::from_utf8_lossy(&text.stdout).contains(hint), "{text:?}");
    }

    let certs = folder.to_str().unwrap();
    let exit = |words: &[&str]| coffer(&[&["verify"], words].concat()).status.code();
    assert_eq!(exit(&[report, "--certs", certs, "--at", AT]), Some(0));
    assert_eq!(exit(&[report, "--certs", certs, "--at", AT, "--report-data", &"00".repeat(64)]), Some(5));
    assert_eq!(exit(&[report, "--certs", certs, "--at", AT, "--policy", "strict"]), Some(6));
    assert_eq!(exit(&[report, "--certs", certs, "--at", "yesterday"]), Some(2));
    assert_eq!(exit(&[report, "--report-data", "00"]), Some(2));
    assert_eq!(exit(&["/nonexistent"]), Some(3));
    assert_eq!(exit(&[folder.join("crl.der").to_str().unwrap()]), Some(3));
    assert_eq!(exit(&[report, "--vcek", report]), Some(3));
    assert_eq!(exit(&[report, "--policy", report]), Some(3));
}

#[test]
fn a_malformed_report_has_one_exit_code() {
    let Some(root) = vectors::folder("snp") else { return };
    let scratch = tempfile::tempdir().unwrap();
    let mut report = std::fs::read(root.join("milan-v3/report.bin")).unwrap();
    report[0] = 9;
    let (broken, short) = (scratch.path().join("broken.bin"), scratch.path().join("short.bin"));
    std::fs::write(&broken, &report).unwrap();
    std::fs::write(&short, &report[..1183]).unwrap();
    let said = String::from_utf8(coffer(&["verify", broken.to_str().unwrap()]).stdout).unwrap();
    assert!(said.contains("report-malformed: found version 9, expected version 2 to 5"), "{said}");
    for (file, code) in [(&broken, 5), (&short, 3)] {
        let file = file.to_str().unwrap();
        assert_eq!(coffer(&["verify", file]).status.code(), Some(code), "{file}");
        assert_eq!(coffer(&["report", "show", file]).status.code(), Some(code), "{file}");
    }
}

#[test]
fn explain_lists_every_check_also_after_a_failure() {
    let Some(root) = vectors::folder("snp") else { return };
    let report = root.join("milan-v3/report.bin");
    let output = coffer(&["verify", report.to_str().unwrap(), "--explain", "--at", AT]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("FAILED  endorsement-missing"), "{said}");
    for code in coffer_verifier::Code::ALL.iter().filter(|code| code.stage() != coffer_verifier::Stage::Elsewhere) {
        assert!(said.lines().any(|line| line.split_whitespace().nth(1) == Some(code.as_str())), "{code}: {said}");
    }
    let signature = said.lines().find(|line| line.split_whitespace().nth(1) == Some("signature")).unwrap();
    assert!(signature.ends_with("not made, because endorsement-missing failed"), "{signature}");
}

#[test]
fn the_json_is_the_judges_own_form() {
    use coffer_verifier::{CrlPolicy, Endorsements, Evidence, EvidencePolicy, Expected, ExpectedGuest};
    use coffer_verifier::{ExpectedReportData, TrustAnchors, UnixTime, Verifier};
    let Some(root) = vectors::folder("snp") else { return };
    let report = root.join("milan-v3/report.bin");
    let printed = json(&coffer(&["--json", "verify", report.to_str().unwrap(), "--at", AT]));
    let verifier =
        Verifier { anchors: TrustAnchors::amd(), crl: CrlPolicy::Required, policy: EvidencePolicy::default_floor() };
    let evidence = Evidence { report: std::fs::read(report).unwrap(), ..Evidence::default() };
    let wanted = Expected { report_data: ExpectedReportData::Any, guest: ExpectedGuest::WhateverThePolicyAdmits };
    let said = verifier.judge(&evidence, &Endorsements::new(), &wanted, UnixTime::parse(AT).unwrap());
    // Addresses are the command's own; `coffer attest` prints by the same function.
    assert_eq!(printed, coffer_kds::appraisal_json(&said, false));
    let mut bare = printed;
    for missing in bare["missing"].as_array_mut().unwrap() {
        missing.as_object_mut().unwrap().remove("urls");
    }
    assert_eq!(bare, serde_json::to_value(&said).unwrap());
}

#[test]
fn an_azure_blob_says_what_it_does_not_show() {
    let Some(root) = vectors::folder("snp") else { return };
    let folder = root.join("genoa-v3-azure-hcl");
    let (file, certs) = (folder.join("hcl.bin"), folder.to_str().unwrap());
    let words = ["verify", file.to_str().unwrap(), "--certs", certs, "--at", AT];
    let text = coffer(&words);
    assert_eq!(text.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&text.stdout).contains("not shown    freshness"), "{text:?}");
    let said = json(&coffer(&[&words[..], &["--json"]].concat()));
    assert_eq!(said["claims"]["report_data_bound"], false);
    assert_eq!(said["claims"]["report_data_binding"], "attachment");
    let other = coffer(&[&words[..], &["--json", "--report-data", &"00".repeat(64)]].concat());
    assert_eq!(json(&other)["reasons"][0]["code"], "report-data");
}

#[test]
fn report_show_decides_nothing() {
    let Some(root) = vectors::folder("snp") else { return };
    let file = root.join("turin-v5/report.bin");
    let said = json(&coffer(&["--json", "report", "show", file.to_str().unwrap()]));
    assert_eq!(said["product"], "Turin");
    assert_eq!(said["tcb"]["reported"]["fmc"], 1);
    assert_eq!(said["report"]["version"], 5);
    let text = coffer(&["report", "show", file.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&text.stdout).starts_with("not verified"));
}

#[test]
fn an_age_of_manifests_that_nobody_asks_is_said() {
    let Some(root) = vectors::folder("snp") else { return };
    let (vector, folder) = (root.join("milan-v2-kvm"), tempfile::tempdir().unwrap());
    let policy = folder.path().join("web.toml");
    let run = |text: &str| {
        std::fs::write(&policy, text).unwrap();
        let (report, policy) = (vector.join("report.bin"), policy.to_str().unwrap());
        let of = ["--json", "verify", report.to_str().unwrap(), "--certs", vector.to_str().unwrap(), "--at", AT];
        coffer(&[&of[..], &["--policy", policy]].concat())
    };
    let output = run("measurements = \"any\"\nmax_manifest_age = \"7d\"\n");
    // A token would affirm under the name of this policy, and say nothing of what was not asked.
    let keys = folder.path().join("keys.json");
    let keys = keys.to_str().unwrap();
    assert!(coffer(&["token", "init", "--out", keys]).status.success());
    let (report, named) = (vector.join("report.bin"), policy.to_str().unwrap());
    let of = ["token", "issue", report.to_str().unwrap(), "--certs", vector.to_str().unwrap(), "--policy", named];
    let to = ["--keys", keys, "--iss", "https://a.example", "--aud", "b", "--at", AT];
    let issued = coffer(&[&of[..], &to].concat());
    let said = String::from_utf8_lossy(&issued.stderr).into_owned();
    assert!(issued.status.code() == Some(3) && issued.stdout.is_empty() && said.contains("max_manifest_age"), "{said}");
    assert_eq!(json(&output)["not_asked"], serde_json::json!(["max_manifest_age"]));
    let warning = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(warning.starts_with("coffer: warning: max_manifest_age is not asked"), "{warning}");
    assert!(warning.lines().count() == 1 && !warning.contains("WARN"), "{warning}");
    let output = run("measurements = \"any\"\n");
    assert_eq!((json(&output).get("not_asked"), output.stderr.is_empty()), (None, true), "{output:?}");
}

#[test]
fn a_folder_without_a_known_name_is_told_in_a_warning() {
    let Some(root) = vectors::folder("snp") else { return };
    let (report, empty) = (root.join("milan-v2-kvm/report.bin"), tempfile::tempdir().unwrap());
    let output = coffer(&["verify", report.to_str().unwrap(), "--certs", empty.path().to_str().unwrap(), "--at", AT]);
    let warning = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(warning.starts_with("coffer: warning: ") && warning.contains("there is no vcek"), "{warning}");
    assert!(!warning.contains("WARN"), "{warning}");
}

#[test]
fn a_token_has_one_status_and_a_refusal_names_the_flag_that_would_do() {
    let folder = tempfile::tempdir().unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coffer"));
        command.current_dir(&folder).env("COFFER_HOME", folder.path().join("home")).args(words).output().unwrap()
    };
    let said = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(run(&["sim", "evidence", "--out", "e"]).status.success());
    assert!(run(&["token", "init", "--out", "keys.json"]).status.success());
    std::fs::write(folder.path().join("jwks.json"), run(&["token", "jwks", "keys.json"]).stdout).unwrap();
    let to = ["--keys", "keys.json", "--iss", "https://a.example", "--aud", "b"];
    let issue = ["token", "issue", "e/report.bin", "--certs", "e", "--allow-simulated"];
    let token = run(&[&issue[..], &to].concat());
    std::fs::write(folder.path().join("token.jwt"), &token.stdout).unwrap();
    let verify = |more: &[&str]| {
        let output = run(&[&["token", "verify", "token.jwt", "--jwks", "jwks.json", "--aud", "b"], more].concat());
        (output.status.code().unwrap(), said(&output))
    };
    let status = "contraindicated (warning but for its simulated hardware)";
    let refusal = format!("status: found {status}, expected affirming\n  hint: --accept-warnings takes such a status");
    let (exit, neither) = verify(&[]);
    assert!(exit == 6 && neither.contains(&refusal), "{neither}");
    assert!(
        neither.contains("simulated: found simulated evidence, expected AMD's\n  hint: --allow-simulated"),
        "{neither}"
    );
    let (exit, simulated) = verify(&["--allow-simulated"]);
    assert!(exit == 6 && simulated.contains(&refusal) && !simulated.contains("simulated: found"), "{simulated}");
    let (exit, warned) = verify(&["--accept-warnings"]);
    assert!(exit == 6 && warned.contains("simulated: found") && !warned.contains("status: "), "{warned}");
    let (exit, both) = verify(&["--allow-simulated", "--accept-warnings"]);
    assert!(exit == 0 && both.contains(&format!("status       {status}")), "{both}");
    // Whoever issues one of what lacks its certificates hears what to type.
    let lacking = run(&[&["token", "issue", "e/report.bin"], &to[..]].concat());
    let hint = String::from_utf8_lossy(&lacking.stderr).into_owned();
    assert!(
        lacking.status.code() == Some(5) && hint.contains("hint: the evidence names the chip of this installation"),
        "{hint}"
    );
}
