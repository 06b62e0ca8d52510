//! `coffer completion`.

use std::process::ExitCode;

use clap_complete::Shell;

use crate::cli;
use crate::context::Context;
use crate::error::CliError;

/// Print a completion script.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer completion bash > /etc/bash_completion.d/coffer")]
pub struct Args {
    /// Shell.
    shell: Shell,
}

/// Prints it.
pub fn run(args: &Args, _: &Context) -> Result<ExitCode, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut cli::parser(), "coffer", &mut script);
    print!("{}", String::from_utf8_lossy(&script));
    Ok(ExitCode::SUCCESS)
}
