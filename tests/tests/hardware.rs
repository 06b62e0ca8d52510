//! What `make hardware` does on an SNP host is rehearsed here with the simulator in the processor's place.

use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use coffer_tests::process::{binary, run};

#[test]
fn the_road_for_hardware_is_gone_with_a_simulated_processor() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let out = dir.path().join("archive.tar.gz");
    let own = dir.path().join("home");
    std::fs::create_dir_all(own.join("host"))?;
    std::fs::write(own.join("host/certificates.bin"), b"what the operator imported")?;
    let mut command = Command::new(binary("coffer-hardware")?);
    let finished = run(command.env("COFFER_HOME", &own).args(["--simulated", "--boxes", "2", "--out"]).arg(&out), b"")?;
    ensure!(finished.status == 0, "{}", finished.describe());
    let files = files(&out)?;
    let file = |name: &str| {
        let found = files.iter().find(|(path, _)| path == &format!("coffer-hardware/{name}"));
        found.map(|(_, bytes)| bytes).with_context(|| format!("no {name} in the archive"))
    };
    let results: serde_json::Value = serde_json::from_slice(file("results.json")?)?;
    let stories = results["stories"].as_array().context("stories")?;
    let of = |outcome: &str| stories.iter().filter(|one| one["outcome"] == outcome).count();
    ensure!(of("failed") == 0 && of("passed") >= 5 && of("passed") % 5 == 0, "{results:#}");
    // What a monitor cannot do here is said, with its reason.
    ensure!(stories.iter().all(|one| one["outcome"] != "skipped" || !one["said"].as_str().unwrap_or("").is_empty()));
    ensure!(!file("evidence-qemu.cmw")?.is_empty() && !file("doctor.txt")?.is_empty());
    ensure!(String::from_utf8_lossy(file("host.txt")?).contains("processor"), "the host was looked at");
    ensure!(file("certificates.bin")? == b"what the operator imported", "guests hand on the host's own certificates");
    for (path, bytes) in &files {
        let text = String::from_utf8_lossy(bytes);
        ensure!(!text.contains("PRIVATE KEY") && !text.contains("a secret of this run alone"), "{path} tells");
    }
    Ok(())
}

#[test]
fn a_host_that_cannot_launch_is_looked_at_and_nothing_is_launched() -> Result<()> {
    if Path::new("/dev/sev").exists() {
        eprintln!("skipped: this host may be able to");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let out = dir.path().join("archive.tar.gz");
    let finished = run(Command::new(binary("coffer-hardware")?).arg("--out").arg(&out), b"")?;
    ensure!(finished.status == 4, "{}", finished.describe());
    let files = files(&out)?;
    ensure!(files.iter().any(|(path, _)| path.ends_with("/host.txt")), "the host was looked at");
    ensure!(!files.iter().any(|(path, _)| path.contains("evidence")), "nothing was launched");
    Ok(())
}

#[test]
fn what_is_not_understood_is_refused() -> Result<()> {
    for words in [&["--boxes", "0"][..], &["--boxes"], &["--simulate"], &["x"]] {
        let finished = run(Command::new(binary("coffer-hardware")?).args(words), b"")?;
        ensure!(
            finished.status == 2 && finished.stderr.contains("is no option, or lacks its value\n\nusage:"),
            "{}",
            finished.describe()
        );
    }
    Ok(())
}

fn files(archive: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(archive)?));
    let mut all = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        all.push((entry.path()?.display().to_string(), bytes));
    }
    Ok(all)
}
