//! What `coffer attest` hands on: evidence over somebody's nonce, as a record and as files, each of which another verifier believes.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use coffer_tests::{World, image::without_a_machine, process::says};
use coffer_verifier::{
    Evidence,
    abi::{REPORT_LEN, WorkloadDigest},
    binding::{nonce_report_data, workload_report_data},
};
use serde_json::Value;

const NONCE: &[u8] = b"chosen by whoever is to believe it";

#[test]
fn evidence_over_a_nonce_is_believed_elsewhere_for_that_nonce_and_no_other() -> Result<()> {
    let Some((world, _registry, image)) = without_a_machine()? else { return Ok(()) };
    world.coffer(&["run", "-d", "--name", "box", "--tee-simulate", &image, "sleep", "600"])?.ok()?;
    let place = |name: &str| world.folder.path().join(name).to_str().map(str::to_owned).context("a plain name");
    let (record, files) = (place("box.cmw")?, place("box")?);
    let nonce = hex::encode(NONCE);
    let attest = ["attest", "box", "--allow-simulated"];
    let over = [&attest[..], &["--nonce", &nonce]].concat();
    let said = world.coffer(&[&["--json"], &over[..], &["--cmw", &record, "--raw", &files]].concat())?;
    let said: Value = serde_json::from_str(&said.ok()?)?;
    ensure!(said["nonce"] == nonce.as_str(), "{said:#}");

    let bytes = fs::read(&record)?;
    let evidence = Evidence::from_cmw(&bytes)?;
    let workload = WorkloadDigest::of(&evidence.workload_spec);
    let believes = |file: &str, data: &dyn std::fmt::Display, more: &[&str]| {
        let data = data.to_string();
        world.coffer(&[&["verify", file, "--allow-simulated", "--report-data", &data], more].concat())
    };
    let expected = nonce_report_data(&workload, NONCE);
    let report = format!("{files}/report.bin");
    says(&believes(&record, &expected, &[])?, 0, &["accepted"])?;
    says(&believes(&report, &expected, &["--certs", &files])?, 0, &["accepted"])?;
    ensure!(fs::read(&report)? == evidence.report && evidence.report.len() == REPORT_LEN);
    // Of another nonce, or of a workload that chose these very bytes, it is not.
    for other in [nonce_report_data(&workload, b"another nonce"), workload_report_data(&workload, NONCE)] {
        says(&believes(&record, &other, &[])?, 5, &["report-data"])?;
    }

    // The guest that is expected, and another: as of a server.
    let reference = |name: &str, words: &[&str]| -> Result<String> {
        fs::write(
            place(name)?,
            world.coffer(&[&["--json", "measure", "--tee-simulate", &image], words].concat())?.ok()?,
        )?;
        place(name)
    };
    let (expected, other) =
        (reference("expected.json", &["sleep", "600"])?, reference("other.json", &["sleep", "601"])?);
    let verify = ["verify", &record, "--allow-simulated", "--nonce", &nonce, "--reference"];
    says(&world.coffer(&[&verify[..], &[&expected]].concat())?, 0, &["accepted"])?;
    says(&world.coffer(&[&verify[..], &[&other, "--reference", &expected]].concat())?, 0, &["accepted"])?;
    says(&world.coffer(&[&verify[..], &[&other]].concat())?, 6, &["refused"])?;
    says(&world.coffer(&[&verify[..], &["/dev/null"]].concat())?, 3, &["/dev/null"])?;

    // Of the connection: no nonce, and the same files.
    let streamed = world.command(&[&attest[..], &["--cmw", "-"]].concat()).output()?;
    ensure!(streamed.status.success() && streamed.stderr.is_empty(), "{streamed:?}");
    let of_connection = Evidence::from_cmw(&streamed.stdout)?;
    ensure!(of_connection.workload_spec == evidence.workload_spec && of_connection.report != evidence.report);
    let raw = world.command(&[&attest[..], &["--raw", "-"]].concat()).output()?;
    ensure!(raw.status.success() && raw.stdout.len() == REPORT_LEN, "{raw:?}");

    // Nothing is replaced, standard output has one use, and a nonce is what one is.
    says(&world.coffer(&[&attest[..], &["--cmw", &record]].concat())?, 3, &["there already"])?;
    says(&world.coffer(&[&attest[..], &["--raw", &files]].concat())?, 3, &["there already"])?;
    ensure!(fs::read(&record)? == bytes, "it was replaced");
    says(&world.coffer(&[&attest[..], &["--cmw", "-", "--explain"]].concat())?, 2, &["standard output"])?;
    for wrong in ["", "00", "xyz", &"00".repeat(65)] {
        says(&world.coffer(&[&attest[..], &["--nonce", wrong]].concat())?, 2, &["8 to 64 bytes"])?;
    }
    // What is not accepted is written too, for whoever wants to know why, and says so.
    let refused = world.command(&["attest", "box", "--cmw", "-"]).output()?;
    ensure!(refused.status.code() == Some(5) && Evidence::from_cmw(&refused.stdout).is_ok(), "{refused:?}");
    Ok(())
}

#[test]
fn a_nonce_is_answered_to_those_who_are_listed() -> Result<()> {
    let Some((world, _registry, image)) = without_a_machine()? else { return Ok(()) };
    let other = World::new()?;
    other.coffer(&["owner", "init"])?.ok()?;
    let theirs = world.folder.path().join("theirs.pem");
    fs::write(&theirs, other.coffer(&["owner", "show", "--pem"])?.ok()?)?;
    let theirs = theirs.to_str().context("a plain name")?;
    world.coffer(&["owner", "init"])?.ok()?;
    let flags = ["--tee-simulate", "--owner", &format!("{theirs}=logs"), &image, "sleep", "600"];
    world.coffer(&[&["run", "-d", "--name", "box"][..], &flags].concat())?.ok()?;
    // What it is it shows to anybody.
    says(&world.coffer(&["attest", "box", "--allow-simulated"])?, 0, &["accepted"])?;
    let nonce = hex::encode(NONCE);
    let asked = world.coffer(&["attest", "box", "--allow-simulated", "--nonce", &nonce])?;
    says(&asked, 6, &["owner-not-listed", "coffer owner show"])
}
