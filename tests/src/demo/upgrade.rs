//! A new release of the platform: what was sealed under the old one moves over, and the old one gets no key any more.

use anyhow::{Context, Result, ensure};

use super::{
    attack::changed_platform,
    story::{kbs_admin, plain},
};
use crate::{
    World,
    process::{Finished, run},
    services::Kbs,
};

const CONTEXT: &str = "app/state";

/// Carries `state` over from the box `demo`, on the platform of this world, to a new box `next` of the same workload on the next release.
///
/// # Errors
/// If a command fails, or the old platform still opens what was moved.
pub fn carry_over(world: &World, kbs: &Kbs, flags: &[&str], state: &[u8]) -> Result<((), String)> {
    let file = |name: &str| -> Result<String> { Ok(plain(&world.folder.path().join(name))?.to_owned()) };
    let (bound, movable, moved) = (file("bound.sealed")?, file("movable.sealed")?, file("moved.sealed")?);
    let sealing = |words: &[&str], input: &[u8]| -> Result<Finished> {
        world.coffer_with(&[words, &["--allow-simulated", "--context", CONTEXT]].concat(), input)
    };
    let policies = ["--policies", "measurement,workload", "--allow-simulated"];
    kbs_admin(world, kbs, &[&["sealing", "put", CONTEXT], &policies[..]].concat(), b"")?;
    sealing(&["seal", "demo", "--to", "measurement", "-o", &bound], state)?.ok()?;

    let release = changed_platform(&world.platform, &world.folder.path().join("release"), 2)?;
    let on_release = |words: &[&str]| -> Result<Finished> {
        let mut command = world.command(&[words, flags].concat());
        run(command.env("COFFER_PLATFORM", &release), b"")
    };
    let reference = on_release(&["--json", "measure"])?.ok()?;
    kbs_admin(world, kbs, &["reference", "add", "--from", "-", "--name", "next"], reference.as_bytes())?;
    on_release(&["run", "-d", "--name", "next"])?.ok()?;
    // What its owner expects is the new release too.
    let next = ["next", "--platform", plain(&release)?];
    let early = sealing(&[&["unseal"], &next[..], &[&bound]].concat(), b"")?;
    ensure!(
        early.status != 0 && early.text().contains("does not open here"),
        "it opens on another platform\n{}",
        early.describe()
    );

    sealing(&["reseal", "demo", "--to", "workload", &bound, "-o", &movable], b"")?.ok()?;
    sealing(&[&["reseal"], &next[..], &["--to", "measurement", &movable, "-o", &moved]].concat(), b"")?.ok()?;
    kbs_admin(world, kbs, &["reference", "remove", "--name", "demo"], b"")?;

    let late = sealing(&["unseal", "demo", &movable], b"")?;
    ensure!(late.status != 0 && late.text().contains("not-released"), "the old one opens it\n{}", late.describe());
    let back = sealing(&[&["unseal"], &next[..], &[&moved]].concat(), b"")?.ok()?;
    ensure!(back.as_bytes() == state, "unsealed {back:?}");
    let value: serde_json::Value = serde_json::from_str(&reference)?;
    let measurement = value["measurement"].as_str().context("measure prints a measurement")?;
    Ok(((), format!("measurement {}…", measurement.get(..16).unwrap_or(measurement))))
}
