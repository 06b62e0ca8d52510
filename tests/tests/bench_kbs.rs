//! `coffer bench kbs` runs against a broker of its own, and says every figure with its samples and its limit. How long anything
//! took is not looked at.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use coffer_tests::process::{binary, run};
use serde_json::Value;

fn bench(words: &[&str]) -> Result<Command> {
    let mut command = Command::new(binary("coffer")?);
    command.args(["--json", "bench", "kbs"]).args(words);
    Ok(command)
}

/// All of them above zero.
fn samples(figure: &Value, name: &str) -> Result<usize> {
    let all = figure[name].as_array().with_context(|| format!("{name} of {figure}"))?;
    ensure!(all.iter().all(|one| one.as_f64().is_some_and(|one| one > 0.0)), "{name} of {figure}");
    Ok(all.len())
}

#[test]
fn every_figure_has_its_samples_and_its_limit() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut command = bench(&["--guests", "2", "--samples", "2"])?;
    command.arg("--folder").arg(folder.path()).arg("--program").arg(binary("coffer-kbs")?);
    let said: Value = serde_json::from_str(&run(&mut command, b"")?.ok()?)?;

    for (figure, value, limit, aimed, lists) in [
        ("first_secret", "ratio", "limit", 2.0, &[("samples_us", 2), ("commit_samples_us", 2)][..]),
        ("first_secret", "sum_us", "limit", 2.0, &[("checkpoint_samples_us", 2)]),
        ("further_secret", "ratio", "limit", 1.3, &[("samples_us", 2), ("commit_samples_us", 2)]),
        ("in_flight", "ratio", "at_least", 3.0, &[("samples_per_second", 7)]),
        ("in_flight", "ratio", "at_least", 3.0, &[("one_after_the_other_samples_per_second", 7)]),
        ("get_meta", "ratio", "at_least", 0.5, &[("samples_us", 4), ("empty_call_samples_us", 4)]),
        ("memory", "bytes_each", "limit", 131_072.0, &[("samples_bytes", 3)]),
    ] {
        let found = &said[figure];
        ensure!(found[value].as_f64().is_some(), "{value} of {figure}: {found}");
        ensure!(found[limit].as_f64() == Some(aimed), "{limit} of {figure}: {found}");
        for (name, count) in lists {
            ensure!(samples(found, name)? == *count, "{name} of {figure}: {found}");
        }
    }
    ensure!(samples(&said["further_secret"], "encapsulation_samples_us")? > 2, "{}", said["further_secret"]);
    let work = said["first_secret"]["work"].as_array().context("no list of public-key work")?;
    for end in ["guest", "broker"] {
        ensure!(work.iter().any(|one| one["end"] == end), "nothing of the {end}: {work:?}");
    }
    for one in work {
        ensure!(one["operation"].is_string() && samples(one, "samples_us")? > 2, "{one}");
        ensure!(one["count"].as_f64().is_some_and(|count| count >= 1.0), "not counted: {one}");
    }
    ensure!(std::fs::read_dir(folder.path())?.next().is_none(), "what it made is left");
    Ok(())
}

#[test]
fn a_broker_that_is_not_there_is_named_before_anything_is_made() -> Result<()> {
    let mut command = bench(&["--program", "nosuch", "--folder", "nosuch-either"])?;
    let refused = run(&mut command, b"")?;
    let said: Value = serde_json::from_str(&refused.stdout)?;
    ensure!(refused.status == 3, "{}", refused.describe());
    ensure!(said["error"]["message"] == "nosuch: no such program", "{}", refused.describe());
    ensure!(said["error"]["hint"].as_str().is_some_and(|hint| hint.contains("--program")), "{}", refused.describe());
    Ok(())
}
