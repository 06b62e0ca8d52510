//! `coffer-bench-boxes` runs, and says every figure with its samples. How long anything took is not looked at.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use coffer_tests::{
    image::without_a_machine,
    process::{binary, run},
};
use serde_json::Value;

#[test]
fn every_figure_has_its_samples() -> Result<()> {
    if without_a_machine()?.is_none() {
        return Ok(());
    }
    let mut command = Command::new(binary("coffer-bench-boxes")?);
    command.args(["--short", "--isolation", "process"]);
    let said: Value = serde_json::from_str(&run(&mut command, b"")?.ok()?)?;
    let [pull, exec, output] = [&said["pull"][0], &said["exec"], &said["output"]];
    for (figure, samples) in [
        (pull, "ready_s"),
        (pull, "gunzip_s"),
        (exec, "exec_ms"),
        (exec, "fork_and_exec_ms"),
        (output, "through_s"),
        (output, "raw_s"),
        (&said["forwarded"]["out"], "through_s"),
        (&said["forwarded"]["out"], "passt_s"),
        (&said["forwarded"]["into"], "through_s"),
        (&said["forwarded"]["into"], "passt_s"),
    ] {
        let all = figure[samples].as_array().with_context(|| format!("{samples} of {figure}"))?;
        ensure!(!all.is_empty() && all.iter().all(Value::is_f64), "{samples} of {figure}");
    }
    for (figure, limit, held) in
        [(&pull["ratio"], &pull["most"], &pull["held"]), (&exec["over_ms"], &exec["most_ms"], &exec["held"])]
    {
        let (figure, limit) = (figure.as_f64().context("a figure")?, limit.as_f64().context("a limit")?);
        ensure!(*held == (figure <= limit), "{held}: {figure} of {limit}");
    }
    for way in ["out", "into"] {
        let [ratio, least, held] = ["ratio", "least", "held"].map(|name| &said["forwarded"][way][name]);
        let (ratio, least) = (ratio.as_f64().context("a figure")?, least.as_f64().context("a limit")?);
        ensure!(*held == (ratio >= least), "{held}: {ratio} of {least}");
    }
    ensure!(output["against"].as_str().is_some_and(|against| against.contains("no vsock")), "{output}");
    ensure!(output["least"].is_null() && output["held"].is_null(), "{output}");
    ensure!(said["at_once"]["failed"] == serde_json::json!([]), "{}", said["at_once"]);
    Ok(())
}

#[test]
fn a_word_that_it_does_not_know_is_refused_before_anything_is_measured() -> Result<()> {
    let said = run(Command::new(binary("coffer-bench-boxes")?).args(["--isolation", "nothing"]), b"")?;
    ensure!(said.status != 0 && said.stdout.is_empty() && said.stderr.contains("nothing"), "{}", said.describe());
    Ok(())
}
