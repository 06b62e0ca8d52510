//! `coffer-kbs doctor`.

use std::{path::PathBuf, process::ExitCode};

use coffer_kbs::{Finding, Weight};
use coffer_rim::{Class, Failure};
use serde_json::json;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer-kbs doctor --state ./kbs")]
pub struct Args {
    /// State folder; its server may run.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
}

/// Says what was found. Fails if something is broken; a warning is none.
pub fn run(args: &Args, as_json: bool) -> Result<ExitCode, Failure> {
    let found = crate::event_loop::event_loop()?.block_on(coffer_kbs::examine(&args.state));
    let broken = found.iter().filter(|one| one.weight == Weight::Broken).count();
    if as_json {
        let failure = (broken != 0).then(|| failure(broken));
        // Null where there is none, as in every document of ours.
        let hint = |one: &Finding| (!one.hint.is_empty()).then(|| one.hint.clone());
        let findings: Vec<_> =
            found.iter().map(|one| json!({ "weight": one.weight, "what": one.what, "hint": hint(one) })).collect();
        return Ok(crate::document::document(json!({ "ok": broken == 0, "findings": findings }), failure));
    }
    for one in &found {
        let mark = match one.weight {
            Weight::Good => "good   ",
            Weight::Warning => "warning",
            Weight::Broken => "broken ",
        };
        coffer_rim::println!("{mark}  {}", one.what);
        if !one.hint.is_empty() {
            coffer_rim::println!("         {}", one.hint);
        }
    }
    if broken == 0 { Ok(ExitCode::SUCCESS) } else { Err(failure(broken)) }
}

fn failure(broken: usize) -> Failure {
    let what = if broken == 1 { "1 thing is broken".to_owned() } else { format!("{broken} things are broken") };
    Failure::new(Class::Config, what).hint("each has its hint")
}
