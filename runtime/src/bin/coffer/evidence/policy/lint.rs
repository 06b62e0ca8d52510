//! `coffer policy lint`: what is wrong with a policy before it decides anything.

use std::process::ExitCode;

use coffer_policies::lint;
use coffer_policies::typed::{Guests, lint_typed};
use coffer_verifier::STRICT;
use serde_json::json;

use crate::context::Context;
use crate::error::{Class, CliError};
use crate::evidence::rego;

/// Say what is wrong with a policy, each with file, line and column.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Typed policies (TOML) are looked at one by one, all Rego together. What it finds: docs/policies.md, \"Lint\".
Exit status: 0 nothing, 3 something, or a file that cannot be read.

Examples:
  coffer policy lint team.rego team_test.rego
  coffer policy lint policies/ --json
  coffer policy lint floor.toml
  coffer policy lint broker-floor.toml --guests-elsewhere")]
pub struct Args {
    #[command(flatten)]
    texts: rego::Texts,

    /// Of typed policies: which guests are meant is said elsewhere, as by a key broker's references or by --reference.
    #[arg(long)]
    guests_elsewhere: bool,
}

/// Lints.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let guests = if args.guests_elsewhere { Guests::Elsewhere } else { Guests::Here };
    let mut findings = Vec::new();
    if args.texts.is_strict() {
        // It says which platforms, by its word, and nobody's guests.
        findings.extend(lint_typed("strict", STRICT, Guests::Elsewhere));
    } else {
        for (name, text) in args.texts.typed()? {
            findings.extend(lint_typed(&name, &text, guests));
        }
        if let Some(loaded) = args.texts.load_rego()? {
            let found = lint::lint(&loaded.name, &loaded.files, loaded.data.as_ref());
            findings.extend(found.map_err(|error| rego::refused(&error))?);
        }
    }
    if context.json {
        println!("{}", json!({ "findings": findings }));
    } else {
        for finding in &findings {
            println!("{}", coffer_rim::foreign(&finding.to_string()));
        }
    }
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(Class::Config.code()) })
}
