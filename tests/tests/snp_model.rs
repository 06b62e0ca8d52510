//! The ROM that ships, in a model of an SEV-SNP machine: `scripts/snp-model`.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use coffer_tests::{World, process::run};

/// What cannot be run is a failure, not a skip: `make setup` brings the emulator.
#[test]
fn stage0_boots_under_honest_hosts_and_no_hostile_one_gets_past_it() -> Result<()> {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/snp-model/run");
    let world = World::new()?;
    let said = run(Command::new(model).arg(&world.platform), b"")?.ok().context("a case of the model failed")?;
    println!("{said}");
    let figures = |group: &str| -> Result<(u64, u64)> {
        let line = said.lines().find_map(|line| line.strip_prefix(&format!("snp-model: {group}: ")));
        let mut words = line.with_context(|| format!("no line of {group}"))?.split(' ');
        let mut number = || words.find_map(|word| word.parse().ok()).context("a number");
        Ok((number()?, number()?))
    };
    for (group, least) in [("honest", 20), ("hostile", 60), ("parked", 5), ("injection", 5), ("broken", 5)] {
        let (cases, failed) = figures(group)?;
        ensure!(cases >= least && failed == 0, "{group}: {cases} cases, {failed} failed");
    }
    let (exits, for_page_states) = figures("512 MiB, the platform's own kernel")?;
    ensure!(for_page_states <= 16 && exits <= 400, "{exits} exits, {for_page_states} for page states");
    let (pairs, places) = figures("events")?;
    ensure!(pairs > 10_000_000 && places > 5_000, "{pairs} events before {places} instructions");
    Ok(())
}
