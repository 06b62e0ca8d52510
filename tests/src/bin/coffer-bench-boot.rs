//! `coffer-bench-boot`: what stage0 and the rest of a start cost, beside a plain QEMU boot of the same kernel and initrd, in
//! one run; and a box without a machine beside init alone. Prints one JSON object; figures mean something on an idle machine
//! only. With `--namespaces`, only the latter.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use coffer_platform::{FIXED_COMMAND_LINE, files::Platform};
use coffer_tests::{
    World,
    bare_boot::{BareBoot, INIT_SPOKE},
    bare_namespaces::BareInit,
    image::pulled,
    monitors::Monitor,
};
use serde_json::{Value, json};

const ROUNDS: usize = 7;

/// Of a box without a machine, which is started in less time than one measures well.
const MORE_ROUNDS: usize = 25;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let alone = match &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--namespaces"] => true,
        _ => bail!("usage: coffer-bench-boot [--namespaces]"),
    };
    let namespaces = in_namespaces()?;
    if alone {
        println!("{namespaces}");
        return Ok(());
    }
    let world = World::new()?;
    let platform = Platform::load(&world.platform)?;
    let boot = BareBoot::honest(&platform, FIXED_COMMAND_LINE)?;
    let (_registry, image) = pulled(&world)?;

    let (mut plain, mut with_stage0, mut stage0, mut ready) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let one = [seconds(&boot, true)?, seconds(&boot, false)?];
        let timings = timings(&world, &image)?;
        // The first round fills the page cache.
        if round > 0 {
            plain.push(one[0]);
            with_stage0.push(one[1]);
            stage0.push(at(&timings, "kernel-checked")? - at(&timings, "stage0-started")?);
            ready.push(at(&timings, "agent-ready")?);
        }
    }
    let (plain, ready) = (median(&mut plain), median(&mut ready));
    let figures = json!({
        "kernel": platform.manifest.kernel_package,
        "rounds": ROUNDS,
        "plain_qemu_to_init_s": plain,
        "stage0_qemu_to_init_s": median(&mut with_stage0),
        "stage0_s": median(&mut stage0),
        "run_to_agent_ready_s": ready,
        "run_to_agent_ready_over_plain_qemu": ready / plain,
        "namespaces": namespaces,
    });
    println!("{figures}");
    Ok(())
}

/// Whole runs of `true` in boxes without a machine, beside init in the same namespaces up to the end of the same program; in a
/// plain box there is no public-key work, with the simulated processor there is. Null where this host has none such.
fn in_namespaces() -> Result<Value> {
    let monitor = Monitor::of("process").context("a row")?;
    let world = World::on(monitor)?;
    if let Some(why) = monitor.lacks(&world)? {
        eprintln!("no boxes without a machine on this host: {why}");
        return Ok(Value::Null);
    }
    let (_registry, image) = pulled(&world)?;
    let bare = BareInit::of_box(&world, &["--network", "none", &image, "true"])?;
    let run = |words: &[&str]| -> Result<f64> {
        let words: Vec<&str> = ["run", "--rm"].iter().chain(words).chain(&[image.as_str(), "true"]).copied().collect();
        let begun = Instant::now();
        world.coffer(&words)?.ok()?;
        Ok(begun.elapsed().as_secs_f64())
    };
    let (mut alone, mut plain, mut simulated, mut without) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..=MORE_ROUNDS {
        let one = [bare.seconds()?, run(&[])?, run(&["--tee-simulate", "--allow-simulated"])?];
        // The first round makes the simulator and fills the page cache.
        if round > 0 {
            alone.push(one[0]);
            plain.push(one[1]);
            simulated.push(one[2]);
            without.push(run(&["--network", "none"])?);
        }
    }
    let (alone, plain) = (median(&mut alone), median(&mut plain));
    Ok(json!({
        "rounds": MORE_ROUNDS,
        "init_by_unshare_s": alone,
        "run_true_s": plain,
        "run_true_over_init": plain / alone,
        "run_true_without_card_s": median(&mut without),
        "run_true_simulated_s": median(&mut simulated),
    }))
}

fn seconds(boot: &BareBoot, plain: bool) -> Result<f64> {
    let start = Instant::now();
    let outcome = if plain { boot.run_plain(INIT_SPOKE)? } else { boot.run(INIT_SPOKE)? };
    ensure!(outcome.console.contains(INIT_SPOKE), "{outcome:#?}");
    Ok(start.elapsed().as_secs_f64())
}

fn timings(world: &World, image: &str) -> Result<Vec<Value>> {
    world.coffer(&["run", "--name", "bench", image, "true"])?.ok()?;
    let list: Value = serde_json::from_str(&world.coffer(&["inspect", "bench"])?.ok()?)?;
    world.coffer(&["rm", "-f", "bench"])?.ok()?;
    list[0]["Timings"].as_array().cloned().with_context(|| format!("no timings: {list:#}"))
}

fn at(timings: &[Value], phase: &str) -> Result<f64> {
    let step = timings.iter().find(|step| step["phase"] == phase);
    let at = step.and_then(|step| step["at_us"].as_f64());
    Ok(at.with_context(|| format!("no phase {phase} in {timings:?}"))? / 1e6)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
