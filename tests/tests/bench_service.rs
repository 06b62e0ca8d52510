//! `coffer bench service` runs against a service of its own, and says every figure with its samples and its limit. How long anything
//! took is not looked at.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use coffer_tests::process::{binary, run};
use serde_json::Value;

#[test]
fn every_figure_has_its_samples_and_its_limit() -> Result<()> {
    let mut command = Command::new(binary("coffer")?);
    command.args(["--json", "bench", "service", "--rounds", "2", "--program"]).arg(binary("coffer-verifier")?);
    let said: Value = serde_json::from_str(&run(&mut command, b"")?.ok()?)?;
    let positive = |value: &Value| value.as_f64().is_some_and(|number| number > 0.0);
    let samples = |figure: &Value, name: &str| -> Result<()> {
        let all = figure[name].as_array().with_context(|| format!("{name} of {figure}"))?;
        ensure!(all.len() == 2 && all.iter().all(positive), "{name} of {figure}");
        Ok(())
    };
    for name in ["core_samples_us", "signature_samples_us"] {
        samples(&said, name)?;
    }
    for name in ["appraisal", "token"] {
        samples(&said[name], "samples_us")?;
        ensure!(positive(&said[name]["ratio"]) && said[name]["at_least"] == 0.8, "{said}");
        ensure!(positive(&said[name]["one_caller_us"]) && positive(&said[name]["one_caller_ratio"]), "{said}");
        ensure!(said[name]["callers"] == 4, "{said}");
    }
    let overload = &said["overload"];
    for name in ["answered", "p50_us", "p99_us", "limit_us", "processor_us"] {
        ensure!(positive(&overload[name]), "{name}: {overload}");
    }
    ensure!(overload["shed"].is_u64() && overload["clients"] == 16 && overload["at_once"] == 8, "{overload}");
    ensure!(said["memory"]["growth_bytes"].as_u64().is_some_and(|grown| grown < 64 << 20), "{}", said["memory"]);
    Ok(())
}

#[test]
fn a_service_that_is_not_there_is_named() -> Result<()> {
    let refused =
        run(Command::new(binary("coffer")?).args(["--json", "bench", "service", "--program", "nosuch"]), b"")?;
    let said: Value = serde_json::from_str(&refused.stdout)?;
    ensure!(refused.status == 3 && said["error"]["message"] == "nosuch: no such program", "{}", refused.describe());
    Ok(())
}
