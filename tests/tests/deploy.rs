//! What is shipped for systems to run us: each unit starts a program that serves, reads again and ends, and keeps it small.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use coffer_tests::process::{Service, binary, run, wait_for};
use rustix::process::{Pid, Signal, kill_process};

fn unit(program: &str) -> Result<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../deploy/{program}.service"));
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

fn value<'a>(unit: &'a str, key: &str) -> Result<&'a str> {
    let found = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    found.with_context(|| format!("the unit has no {key}"))
}

#[test]
fn the_unit_starts_a_broker_that_reads_again_and_ends_in_order() -> Result<()> {
    serves("coffer-kbs", &["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
}

#[test]
fn the_unit_starts_a_verifier_that_reads_again_and_ends_in_order() -> Result<()> {
    serves("coffer-verifier", &["--listen", "127.0.0.1:0"])
}

fn serves(name: &str, listen: &[&str]) -> Result<()> {
    let unit = unit(name)?;
    let dir = tempfile::tempdir()?;
    let state = dir.path().join("state");
    let program = binary(name)?;
    run(Command::new(&program).args(["init", "--state"]).arg(&state), b"")?.ok()?;
    let mut words = value(&unit, "ExecStart")?.split(' ');
    ensure!(words.next() == Some(&*format!("/usr/bin/{name}")), "the program of the package");
    let folder = state.display().to_string();
    let words: Vec<_> = words.map(|word| word.replace("${STATE_DIRECTORY}", &folder)).collect();
    ensure!(words.contains(&folder), "the state folder is systemd's: {words:?}");
    let ready = dir.path().join("ready");
    let mut service = Service::start(&program, |command| {
        command.args(&words).args(listen).arg("--ready-file");
        command.arg(&ready).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    })?;
    wait_for(Duration::from_secs(20), || ready.exists() || service.ended().is_some())?;
    ensure!(value(&unit, "ExecReload")? == "/bin/kill -HUP $MAINPID", "a reload is SIGHUP");
    let pid = Pid::from_raw(service.id().cast_signed()).context("a number")?;
    kill_process(pid, Signal::HUP)?;
    std::thread::sleep(Duration::from_millis(300));
    ensure!(service.ended().is_none(), "a reload ends nothing");
    kill_process(pid, Signal::TERM)?;
    let patience: u64 = value(&unit, "TimeoutStopSec")?.parse()?;
    wait_for(Duration::from_secs(patience), || service.ended().is_some())?;
    ensure!(service.ended() == Some(0), "SIGTERM is a good end");
    Ok(())
}

#[test]
fn the_unit_takes_away_what_a_broker_does_not_need() -> Result<()> {
    // Its database wants one call more.
    keeps_small("coffer-kbs", &["DynamicUser=yes", "StateDirectoryMode=0700", "SystemCallFilter=fchown"], 15)
}

#[test]
fn the_unit_takes_away_what_a_verifier_does_not_need() -> Result<()> {
    keeps_small("coffer-verifier", &["DynamicUser=yes", "StateDirectoryMode=0700"], 15)
}

#[test]
fn the_units_of_timers_take_away_what_their_commands_do_not_need() -> Result<()> {
    let key = "LoadCredential=witness.pem:/etc/coffer/witness.pem";
    keeps_small("coffer-endorse@", &["DynamicUser=yes", "StateDirectoryMode=0700", "Type=oneshot", key], 15)?;
    // Root's own folder is what it is for.
    keeps_small("coffer-collateral", &["StateDirectory=coffer", "Type=oneshot"], 20)
}

/// It has all that boxes need, and says so; what it must have is that boxes are asked to end, and started by what is installed.
#[test]
fn the_unit_of_boxes_starts_what_is_to_run_and_asks_it_to_end() -> Result<()> {
    let unit = unit("coffer-boxes")?;
    for line in ["Type=oneshot", "RemainAfterExit=yes", "KillMode=control-group", "StateDirectory=coffer", "UMask=0077"]
    {
        ensure!(unit.lines().any(|found| found == line), "the unit has no {line}");
    }
    let dir = tempfile::tempdir()?;
    let folder = dir.path().display().to_string();
    let words = value(&unit, "ExecStart")?.replace("${STATE_DIRECTORY}", &folder);
    let words = words.strip_prefix("-/usr/bin/coffer ").context("the program of the package")?;
    let resumed = run(Command::new(binary("coffer")?).args(words.split(' ')), b"")?.ok()?;
    ensure!(resumed.is_empty(), "there is no box: {resumed}");
    let analyze = Path::new("/usr/bin/systemd-analyze");
    if analyze.exists() {
        let copy = dir.path().join("coffer-boxes.service");
        std::fs::write(&copy, unit.replace("/usr/bin/coffer", &binary("coffer")?.display().to_string()))?;
        let verified = run(Command::new(analyze).arg("verify").arg(&copy), b"")?;
        ensure!(verified.status == 0 && !verified.text().contains("Unknown"), "{}", verified.describe());
    }
    Ok(())
}

/// `exposure`: of 100, by systemd's own opinion, at most.
fn keeps_small(name: &str, more: &[&str], exposure: u8) -> Result<()> {
    let unit = unit(name)?;
    let lines = [
        "UMask=0077",
        "LimitCORE=0",
        "MemorySwapMax=0",
        "CapabilityBoundingSet=",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "MemoryDenyWriteExecute=yes",
        "SystemCallFilter=@system-service",
    ];
    for line in lines.iter().chain(more) {
        ensure!(unit.lines().any(|found| found == *line), "the unit has no {line}");
    }
    let analyze = Path::new("/usr/bin/systemd-analyze");
    if !analyze.exists() {
        eprintln!("skipped: no systemd-analyze here has an opinion");
        return Ok(());
    }
    // No mistake in it, nor in its timer.
    let dir = tempfile::tempdir()?;
    let instance = if name.ends_with('@') { "web" } else { "" };
    let copy = |kind: &str| dir.path().join(format!("{name}{instance}.{kind}"));
    let program = value(&unit, "ExecStart")?.split(' ').next().context("a program")?;
    let built = binary(program.trim_start_matches("/usr/bin/"))?;
    std::fs::write(copy("service"), unit.replace(program, &built.display().to_string()))?;
    let timer = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../deploy/{name}.timer"));
    let mut verify = Command::new(analyze);
    verify.arg("verify").arg(copy("service"));
    if timer.exists() {
        std::fs::copy(timer, copy("timer"))?;
        verify.arg(copy("timer"));
    }
    let verified = run(&mut verify, b"")?;
    ensure!(verified.status == 0 && !verified.text().contains("Unknown"), "{}", verified.describe());
    let most = format!("--threshold={exposure}");
    let security = ["security", "--offline=true", "--no-pager", &most];
    run(Command::new(analyze).args(security).arg(copy("service")), b"")?.ok()?;
    Ok(())
}
