//! `coffer policy show`: policies that come with Coffer, and what policies see.

use std::process::ExitCode;

use coffer_policies::{INPUT_SCHEMA, SHIPPED, Shipped, fields};
use coffer_verifier::STRICT;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};

/// Print a policy that comes with Coffer, or what policies see.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer policy show
  coffer policy show azure-cvm > team.rego
  coffer policy show azure-cvm --tests > team_test.rego
  coffer policy show input
  coffer policy show input --schema > input.schema.json")]
pub struct Args {
    /// `strict` (typed, TOML), `snp`, `azure-cvm` or `release` (Rego), or `input`: every field of a policy's input; without a
    /// name, what there is.
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// The unit tests in place of the policy.
    #[arg(long, requires = "name", conflicts_with = "schema")]
    tests: bool,

    /// The input's JSON Schema, for `opa check --schema`.
    #[arg(long, requires = "name")]
    schema: bool,
}

const INPUT: &str = "input";

/// Prints.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let Some(name) = args.name.as_deref() else {
        list(context);
        return Ok(ExitCode::SUCCESS);
    };
    if args.schema && name != INPUT {
        return Err(CliError::new(Class::Usage, "--schema is of `coffer policy show input`"));
    }
    if name == INPUT && !args.tests {
        return show_input(args.schema, context);
    }
    let shipped = Shipped::named(name);
    let text = match (&shipped, args.tests) {
        (Some(shipped), false) => shipped.text,
        (Some(shipped), true) => shipped.tests,
        (None, false) if name == "strict" => STRICT,
        (None, true) if name == "strict" || name == INPUT => {
            return Err(CliError::new(Class::NotFound, format!("{name} has no unit tests in Rego")));
        }
        (None, _) => {
            return Err(CliError::new(Class::NotFound, format!("no policy {name} comes with Coffer"))
                .hint("`coffer policy show` lists those there are"));
        }
    };
    if context.json {
        let language = if shipped.is_some() { "rego" } else { "toml" };
        println!("{}", json!({ "name": name, "language": language, "text": text, "sha256": digest(text) }));
    } else {
        print!("{text}");
    }
    Ok(ExitCode::SUCCESS)
}

fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

fn list(context: &Context) {
    let first = |text: &str| text.lines().next().unwrap_or_default().trim_start_matches(['#', ' ']).to_owned();
    let mut rows = vec![("strict".to_owned(), "toml", first(STRICT))];
    rows.extend(SHIPPED.iter().map(|shipped| (shipped.word(), "rego", first(shipped.text))));
    if context.json {
        let rows =
            rows.iter().map(|(name, language, about)| json!({ "name": name, "language": language, "about": about }));
        println!("{}", json!({ "policies": rows.collect::<Vec<_>>() }));
        return;
    }
    for (name, language, about) in rows {
        println!("{name:<10} {language}  {about}");
    }
}

fn show_input(schema: bool, context: &Context) -> Result<ExitCode, CliError> {
    match (schema, context.json) {
        (true, false) => print!("{INPUT_SCHEMA}"),
        (true, true) => {
            let schema: Value = serde_json::from_str(INPUT_SCHEMA).class(Class::Internal)?;
            println!("{schema}");
        }
        (false, true) => println!("{}", json!({ "fields": fields() })),
        (false, false) => {
            for field in fields() {
                println!("{:<56} {:<24} {}", field.path, field.kind, field.meaning);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
