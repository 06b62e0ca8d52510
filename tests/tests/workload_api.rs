//! A workload asks its agent: secrets, sealing, evidence, over the socket that the agent opens for it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use coffer_tests::{
    World,
    demo::story::{kbs_admin, simulator_anchor},
    image,
    monitors::{Monitor, on_each},
    process::{self, says, wait_for},
    services::{Kbs, Registry},
};
use coffer_verifier::{
    abi::{Report, WorkloadDigest},
    binding::workload_report_data,
    evidence::Evidence,
};
use serde_json::Value;

use crate::secrets::{list, put};

/// A workload of Rust with nothing but the client of one file.
const PROGRAM: &str = "ask_agent.rs";

#[test]
fn a_workload_asks_its_agent_for_everything() -> Result<()> {
    on_each(asks_for_everything)
}

fn asks_for_everything(monitor: Monitor) -> Result<()> {
    let world = World::on(monitor)?;
    let layout = world.folder.path().join("layout");
    image::busybox_layout(&layout, "t", &[("bin/ask", &image::program(world.folder.path(), PROGRAM)?)])?;
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
        "--coco-routes",
        "--audience",
        "https://pay.example",
        &image,
        "sh",
        "-c",
        "ask; exec sleep 120",
    ];
    list(&world, &kbs, &flags)?;
    let terms = ["sealing", "put", "counted", "--policies", "workload", "--allow-simulated"];
    kbs_admin(&world, &kbs, &terms, b"")?;
    let tokens =
        ["certificate", "put", "tokens", "--audience", "https://pay.example", "--issuer", "https://kbs.example"];
    kbs_admin(&world, &kbs, &[&tokens[..], &["--lifetime", "5m", "--allow-simulated"]].concat(), b"")?;
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

    ensure!(line("counted")? == "true" && line("kept")? == "true", "{told}");
    for refused in [line("older")?, line("rival")?] {
        ensure!(refused.contains("\"error\":\"older\"") && refused.contains("generation 1"), "{told}");
    }
    ensure!(line("uncounted")?.contains("measurement-and-chip has no counter"), "{told}");

    // The same door by other names: what the spec lists, and evidence that has no label and says so by its zeroes.
    let loopback = line("loopback")?;
    ensure!(loopback.starts_with("HTTP/1.1 200") && loopback.ends_with(" what only this guest gets"), "{told}");
    let unlisted = line("unlisted")?;
    ensure!(unlisted.starts_with("HTTP/1.1 403") && unlisted.contains("not-released"), "{told}");
    let coco = line("coco")?;
    let coco: Value = serde_json::from_str(coco.split_once("  ").context("a body")?.1)?;

    // A token of the broker's, for the spec's one audience and a key that the agent made, as others verify it.
    ensure!(line("unnamed")?.contains("does not name this audience"), "{told}");
    let given: Value = serde_json::from_str(line("cocotoken")?.split_once("  ").context("a body")?.1)?;
    ensure!(given["tee_keypair"].as_str().is_some_and(|pem| pem.contains("PRIVATE KEY")), "{told}");
    let place = |name: &str| world.folder.path().join(name);
    std::fs::write(place("token.jwt"), given["token"].as_str().context("a token")?)?;
    std::fs::write(place("jwks.json"), kbs_admin(&world, &kbs, &["certificate", "jwks"], b"")?)?;
    let (token, jwks) = (place("token.jwt"), place("jwks.json"));
    let (token, jwks) = (token.to_str().context("a name")?, jwks.to_str().context("a name")?);
    let verify = |aud: &str, simulated: &[&str]| {
        let demands = ["token", "verify", token, "--jwks", jwks, "--iss", "https://kbs.example", "--aud", aud];
        world.coffer(&[&demands[..], &["--accept-warnings"], simulated].concat())
    };
    verify("https://pay.example", &["--allow-simulated"])?.ok()?;
    ensure!(verify("https://pay.example", &[])?.status == 6, "simulated, and said to be");
    ensure!(verify("https://elsewhere.example", &["--allow-simulated"])?.status == 6, "for another audience");

    let evidence = Evidence::from_cmw(&hex::decode(line("evidence")?)?)?;
    let report = Report::parse(&evidence.report)?;
    let workload = WorkloadDigest::of(&evidence.workload_spec);
    ensure!(report.report_data() == workload_report_data(&workload, b"a nonce"), "evidence over something else");
    let (record, data) = (place("evidence.cmw"), place("data"));
    std::fs::write(&record, hex::decode(line("evidence")?)?)?;
    std::fs::write(&data, "a nonce")?;
    let record = record.to_str().context("a name")?;
    let over = |data: &str| world.coffer(&["verify", record, "--allow-simulated", "--workload-data", data]);
    says(&over(&hex::encode("a nonce"))?, 0, &["accepted", "over the data given"])?;
    says(&over(&format!("@{}", data.display()))?, 0, &["accepted"])?;
    says(&over(&hex::encode("another"))?, 5, &["report-data"])?;
    says(&over("@/nowhere")?, 3, &["/nowhere"])?;
    says(&over("xyz")?, 2, &["hexadecimal"])?;
    let field =
        |name: &str| -> Result<Vec<u8>> { Ok(serde_json::from_value(coco["attestation_report"][name].clone())?) };
    ensure!(field("report_data")? == [b"a nonce".as_slice(), &[0; 57]].concat(), "{coco}");
    ensure!(field("measurement")? == report.measurement().as_bytes(), "{coco}");
    ensure!(field("host_data")? == workload.as_bytes() && field("chip_id")? == report.chip_id().as_bytes(), "{coco}");
    let tcb = &coco["attestation_report"]["reported_tcb"];
    ensure!(tcb["snp"].is_u64() && tcb.as_object().is_some_and(|tcb| tcb.contains_key("fmc")), "{coco}");
    ensure!(coco["attestation_report"]["signature"]["r"].as_array().is_some_and(|r| r.len() == 72), "{coco}");

    // What a workload sealed is no owner's to open, under the same context either.
    let sealed = world.folder.path().join("sealed");
    std::fs::write(&sealed, hex::decode(line("sealed")?)?)?;
    let sealed = sealed.to_str().context("a plain name")?;
    let owners = world.coffer(&["unseal", "asks", "--context", "db", sealed, "-o", "-", "--allow-simulated"])?;
    ensure!(owners.status != 0 && owners.stderr.contains("does not open here"), "{}", owners.describe());

    // Where the spec does not have them nobody listens.
    if !monitor.has_machine() {
        let look = "while read -r line; do case $line in *:1F46*) exit 8;; esac; done </proc/net/tcp && exit 7";
        let nobody = world.coffer(&["run", "--rm", "--tee-simulate", &image, "sh", "-c", look])?;
        ensure!(nobody.status == 7, "{}", nobody.describe());
    }
    Ok(())
}
