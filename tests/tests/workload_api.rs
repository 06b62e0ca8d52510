//! A workload asks its agent: secrets, sealing, evidence, over the socket that the agent opens for it.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use coffer_tests::{
    World,
    demo::story::simulator_anchor,
    image,
    monitors::{Monitor, on_each},
    process::{self, run, wait_for},
    services::{Kbs, Registry},
};
use coffer_verifier::{
    abi::{Report, WorkloadDigest},
    binding::workload_report_data,
    evidence::Evidence,
};

use crate::secrets::{list, put};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/ask_agent.rs");

/// A workload of Rust with nothing but the client of one file.
fn asking(folder: &Path) -> Result<Vec<u8>> {
    let built = folder.join("ask");
    let mut rustc = Command::new("rustc");
    rustc
        .args(["--edition", "2024", "-C", "target-feature=+crt-static", "-C", "strip=symbols", "-o"])
        .arg(&built)
        .arg(PROGRAM);
    run(&mut rustc, b"")?.ok()?;
    Ok(std::fs::read(built)?)
}

#[test]
fn a_workload_asks_its_agent_for_everything() -> Result<()> {
    on_each(asks_for_everything)
}

fn asks_for_everything(monitor: Monitor) -> Result<()> {
    let world = World::on(monitor)?;
    let layout = world.folder.path().join("layout");
    image::busybox_layout(&layout, "t", &[("bin/ask", &asking(world.folder.path())?)])?;
    let registry = Registry::start(world.folder.path())?;
    let image = registry.push(&layout, "t", "app:1")?;
    let anchor = simulator_anchor(&world)?;
    let anchor = anchor.to_str().context("a plain name")?;
    let kbs = Kbs::start(world.folder.path(), &["--allow-simulated", anchor, "--tenant", "default"])?;
    put(&world, &kbs, "key", "what only this guest gets")?;
    let flags = [
        "--tee-simulate",
        "--kbs",
        &kbs.address,
        "--kbs-pin",
        &kbs.pin,
        "-u",
        "65534",
        "--secret",
        "key=kbs:///demo/app/key",
        &image,
        "sh",
        "-c",
        "ask; exec sleep 120",
    ];
    list(&world, &kbs, &flags)?;
    world.coffer(&[&["run", "-d", "--name", "asks"], &flags[..]].concat())?.ok()?;
    let mut told = String::new();
    wait_for(Duration::from_mins(1), || {
        let logs = world.coffer(&["logs", "asks", "--allow-simulated"]).and_then(process::Finished::ok);
        told = logs.unwrap_or_default();
        told.contains("\nbroker ")
    })?;
    let line = |name: &str| -> Result<&str> {
        let found = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.with_context(|| format!("no line {name:?} in:\n{told}"))
    };
    ensure!(line("secret")? == "1 what only this guest gets", "{told}");
    let refused = line("refused")?;
    ensure!(refused.starts_with("403 not-released {") && refused.contains("\"id\":\""), "{told}");
    ensure!(line("opened")? == "true" && line("resealed")? == "true", "{told}");
    ensure!(line("elsewhere")?.contains("does-not-open"), "{told}");
    ensure!(line("broker")?.contains("not-released"), "no terms, no key: {told}");

    let evidence = Evidence::from_cmw(&hex::decode(line("evidence")?)?)?;
    let report = Report::parse(&evidence.report)?;
    let workload = WorkloadDigest::of(&evidence.workload_spec);
    ensure!(report.report_data() == workload_report_data(&workload, b"a nonce"), "evidence over something else");

    // What a workload sealed is no owner's to open, under the same context either.
    let sealed = world.folder.path().join("sealed");
    std::fs::write(&sealed, hex::decode(line("sealed")?)?)?;
    let sealed = sealed.to_str().context("a plain name")?;
    let owners = world.coffer(&["unseal", "asks", "--context", "db", sealed, "-o", "-", "--allow-simulated"])?;
    ensure!(owners.status != 0 && owners.stderr.contains("does not open here"), "{}", owners.describe());
    Ok(())
}
