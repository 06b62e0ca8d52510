//! `coffer policy lint`: what is wrong with a policy before it decides anything.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use coffer_policies::lint::{self, Finding};
use coffer_policies::typed::{Guests, lint_typed};
use coffer_verifier::STRICT;
use serde_json::json;

use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::evidence::rego;

/// Say what is wrong with a policy, each with file, line and column.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Typed policies (TOML) are looked at one by one, all Rego together; the word `strict` as any TOML file: it names no guest.
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

/// What is no text is a finding; what is not there, or may not be read, ends it.
fn aside(path: &Path, error: io::Error, code: &'static str, findings: &mut Vec<Finding>) -> Result<(), CliError> {
    if !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::FileTooLarge) {
        return Err(error).class_while(Class::Config, path.display());
    }
    let file = path.display().to_string();
    findings.push(Finding { file, line: 1, column: 1, code, message: error.to_string() });
    Ok(())
}

/// Lints.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let guests = if args.guests_elsewhere { Guests::Elsewhere } else { Guests::Here };
    let mut findings = Vec::new();
    if args.texts.is_strict() {
        findings.extend(lint_typed("strict", STRICT, guests));
    } else {
        // One that is no text hides nothing of the others.
        let mut no_text = Vec::new();
        let typed = args.texts.typed(&mut |path, error| aside(path, error, "mistake", &mut no_text))?;
        for (name, text) in typed {
            findings.extend(lint_typed(&name, &text, guests));
        }
        if let Some(loaded) = args.texts.load_rego(&mut |path, error| aside(path, error, "parse", &mut no_text))? {
            let found = lint::lint(&loaded.name, &loaded.files, loaded.data.as_ref());
            findings.extend(found.map_err(|error| rego::refused(&error))?);
        }
        findings.extend(no_text);
    }
    if context.json {
        println!("{}", json!({ "findings": findings }));
    } else {
        for finding in &findings {
            println!("{}", coffer_rim::foreign(&finding.to_string()));
        }
        if findings.is_empty() {
            println!("no findings");
        }
    }
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(Class::Config.code()) })
}
