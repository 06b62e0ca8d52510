//! `coffer policy lint`: what is wrong with a policy before it decides anything.

use std::process::ExitCode;

use coffer_policies::lint;
use coffer_verifier::{EvidencePolicy, STRICT};
use serde_json::json;

use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::evidence::rego;

/// Say what is wrong with a policy, each with file, line and column.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What it finds: docs/policies.md, \"Lint\". Exit status: 0 nothing, 3 something, or a file that cannot be read.

Examples:
  coffer policy lint team.rego team_test.rego
  coffer policy lint policies/ --json
  coffer policy lint strict")]
pub struct Args {
    #[command(flatten)]
    texts: rego::Texts,
}

/// Lints.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    if args.texts.is_strict() {
        EvidencePolicy::from_toml(STRICT).class_while(Class::Internal, "strict")?;
        if context.json {
            println!("{}", json!({ "findings": [] }));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let loaded = args.texts.load()?;
    let findings =
        lint::lint(&loaded.name, &loaded.files, loaded.data.as_ref()).map_err(|error| rego::refused(&error))?;
    if context.json {
        println!("{}", json!({ "findings": findings }));
    } else {
        for finding in &findings {
            println!("{}", coffer_rim::foreign(&finding.to_string()));
        }
    }
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(Class::Config.code()) })
}
