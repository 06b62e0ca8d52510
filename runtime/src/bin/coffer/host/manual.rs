//! `coffer manual`: what packages ship beside the program.

use std::process::ExitCode;

use crate::context::Context;
use crate::error::CliError;
use crate::parser::parser;

#[path = "../../../../../deploy/manual.rs"]
mod pages;

/// Write man pages, and completions for bash, zsh and fish, into a folder: what packages ship.
#[derive(Debug, clap::Args)]
#[command(hide = true, after_help = "Examples:\n  coffer manual --out ./manual")]
pub struct Args {
    #[command(flatten)]
    pages: pages::Args,
}

/// Writes it.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    pages::run(&args.pages, parser(), "1", context.json)?;
    Ok(ExitCode::SUCCESS)
}
