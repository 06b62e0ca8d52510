//! `coffer policy test`: runs unit tests in Rego, as `opa test` does, with the engine that will decide.

use std::process::ExitCode;

use coffer_policies::rego_test;
use serde_json::json;

use crate::context::Context;
use crate::error::{Class, CliError};
use crate::evidence::rego;

/// Run the test_ rules of Rego files.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit status: 0 every test holds, 3 one does not, or a file that is no policy or has no test.

Examples:
  coffer policy test team.rego team_test.rego
  coffer policy test policies/ --json
  coffer policy test azure-cvm")]
pub struct Args {
    #[command(flatten)]
    texts: rego::Texts,
}

/// Tests.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let loaded = args.texts.load()?;
    let outcomes = rego_test::run_all(&loaded.name, &loaded.files, loaded.data.as_ref());
    let outcomes = outcomes.map_err(|error| rego::refused(&error))?;
    let failed = outcomes.iter().filter(|outcome| !outcome.passed).count();
    if context.json {
        println!("{}", json!({ "tests": outcomes, "failed": failed }));
    } else {
        for outcome in &outcomes {
            let word = if outcome.passed { "ok  " } else { "FAIL" };
            let place = if outcome.passed { String::new() } else { format!("  {}:{}", outcome.file, outcome.line) };
            let why = outcome.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            println!("{word}  {}", coffer_rim::foreign(&format!("{}{place}{why}", outcome.name)));
        }
        let plural = if outcomes.len() == 1 { "" } else { "s" };
        println!("{} test{plural}, {failed} failed", outcomes.len());
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(Class::Config.code()) })
}
