//! What `coffer kbs` prints of a broker that runs: lines for people, one document for scripts.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, ensure};
use coffer_tests::{
    process::{Finished, binary, run},
    services::Kbs,
};
use serde_json::{Value, json};

struct Operator {
    folder: tempfile::TempDir,
    kbs: Kbs,
}

impl Operator {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let kbs = Kbs::start(folder.path(), &[])?;
        Ok(Self { folder, kbs })
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn says(&self, profile: &Path, words: &[&str]) -> Result<Finished> {
        let mut command = Command::new(binary("coffer")?);
        command.args(["kbs", "--profile"]).arg(profile).args(words).env("COFFER_HOME", self.folder.path());
        run(&mut command, b"")
    }

    fn done(&self, words: &[&str]) -> Result<String> {
        self.says(&self.kbs.profile, words)?.ok()
    }
}

#[test]
fn each_pair_that_is_admitted_has_a_line_of_its_own() -> Result<()> {
    let operator = Operator::new()?;
    let (one, other, workload) = ("1b".repeat(48), "2b".repeat(48), "3c".repeat(32));
    let measured = json!({ "measurement": one, "run_measurements": [one, other], "workload_digest": workload });
    let file = operator.path("measured.json");
    fs::write(&file, measured.to_string())?;
    let lines = |end: &str| {
        let line = |measurement: &str| format!("measurement {measurement} for workload {workload} {end}\n");
        line(&one) + &line(&other)
    };
    let add = ["reference", "add", "--from", &file, "--name", "web"];
    assert_eq!(operator.done(&add)?, lines("admitted"));
    assert_eq!(operator.done(&add)?, lines("was admitted already; name and expiry updated"));
    let document: Value = serde_json::from_str(&operator.done(&[&["--json"], &add[..]].concat())?)?;
    assert_eq!(document["measurement"], one.as_str());
    assert_eq!(document["pairs"].as_array().map(Vec::len), Some(2), "{document}");
    Ok(())
}

#[test]
fn an_auditor_of_one_tenant_exports_its_lines_and_is_told_that_they_are_a_part() -> Result<()> {
    let operator = Operator::new()?;
    for tenant in ["acme", "globex"] {
        operator.done(&["tenant", "add", tenant])?;
    }
    let profile = operator.path("auditor.toml");
    operator.done(&["admin", "add", "ada", "--role", "auditor@acme", "--new-profile", &profile])?;
    let file = operator.path("acme.jsonl");
    let export = ["audit", "export", &file, "--tenant", "acme"];
    let said = operator.says(Path::new(&profile), &export)?.ok()?;
    ensure!(said.contains("has the 1 lines of tenant acme, of a trail that ends with line"), "{said}");
    let written = fs::read_to_string(&file)?;
    let lines: Vec<Value> = written.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(lines.len(), 2, "{written}");
    assert_eq!((&lines[0]["event"], &lines[0]["tenant"]), (&json!("tenant.add"), &json!("acme")));
    assert_eq!((&lines[1]["tenant"], &lines[1]["lines"]), (&json!("acme"), &json!(1)));
    ensure!(!written.contains("globex"), "{written}");
    // The whole is not for it, and the part does not pass for a whole.
    let whole = operator.says(Path::new(&profile), &["audit", "export", &operator.path("all.jsonl")])?;
    assert_eq!(whole.status, 6, "{whole:?}");
    let verified = operator.says(Path::new(&profile), &["audit", "verify", &file])?;
    ensure!(verified.status == 3 && verified.stderr.contains("of one tenant alone"), "{verified:?}");
    Ok(())
}
