//! `coffer policy explain`: why a policy says what it says of one input.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coffer_policies::INPUT_LIMIT;
use coffer_policies::decision_log::is_input;
use coffer_policies::explain::{Explained, Explanation, explain};
use coffer_rim::{foreign, input};
use coffer_verifier::said::json_error;
use serde_json::Value;

use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::evidence::rego;

/// Say which rules decided about an input, and what they looked at.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit status: 0 allowed, 6 not.

Examples:
  coffer policy explain team.rego --input input.json
  coffer policy input report.bin --certs certs | \\
      coffer policy explain azure-cvm --input -
  coffer kbs audit show 1f3c --input | coffer policy explain release --input -")]
pub struct Args {
    #[command(flatten)]
    texts: rego::Texts,

    /// What the policy is asked about, JSON, as `coffer policy input` prints it; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
}

/// Explains.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let loaded = args.texts.load()?;
    let input = read_input(&args.input)?;
    is_input(&input).map_err(|error| {
        CliError::caused(Class::Config, &error).while_doing(input::name(&args.input)).hint(error.hint())
    })?;
    let explained = explain(&loaded.name, &loaded.files, loaded.data.as_ref(), &input);
    let explained = explained.map_err(|error| rego::refused(&error))?;
    if context.json {
        println!("{}", serde_json::to_value(&explained).class(Class::Internal)?);
    } else {
        print(&explained);
    }
    let code = if explained.decision.allows() { 0 } else { Class::Refused.code() };
    Ok(ExitCode::from(code))
}

/// JSON from a file or standard input.
pub(super) fn read_input(path: &Path) -> Result<Value, CliError> {
    let most = INPUT_LIMIT as u64;
    let read = if path == Path::new("-") { input::all(std::io::stdin().lock(), most) } else { input::read(path, most) };
    let bytes = read.class_while(Class::Config, format!("reading {}", path.display()))?;
    let damaged =
        |error| CliError::new(Class::Config, format!("{}: {}", input::name(path), json_error(&bytes, &error)));
    serde_json::from_slice(&bytes).map_err(damaged)
}

fn print(explained: &Explanation) {
    println!("{}", if explained.decision.allows() { "allowed" } else { "refused" });
    for reason in explained.decision.reasons() {
        println!("  {}", foreign(reason));
    }
    println!("decided by");
    for one in &explained.decided_by {
        println!("  {}", foreign(one));
    }
    println!("rules");
    explained.rules.iter().for_each(print_rule);
    if explained.cut {
        println!("  … and bodies that were not asked again: there are too many");
    }
    println!("values");
    for one in &explained.values {
        let value = if one.is_there { one.value.to_string() } else { "absent".to_owned() };
        println!("  {:<50} {}", foreign(&one.path), foreign(&value));
    }
}

fn print_rule(rule: &Explained) {
    let value = rule.value.as_ref().map_or_else(|| "undefined".to_owned(), Value::to_string);
    println!("  {:<20} {}", foreign(&rule.rule), foreign(&value));
    for body in &rule.bodies {
        let said = match (body.holds, &body.stopped_at, body.stopped_line) {
            (Some(true), ..) => "holds".to_owned(),
            (Some(false), Some(text), Some(line)) => format!("stops in line {line}: {text}"),
            _ => "not asked again".to_owned(),
        };
        println!("    {:<18} {}", foreign(&body.at), foreign(&said));
    }
}
