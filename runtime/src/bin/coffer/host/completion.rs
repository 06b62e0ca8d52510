//! `coffer completion`.

use std::process::ExitCode;

use clap_complete::Shell;

use crate::context::Context;
use crate::error::CliError;
use crate::parser::parser;

/// Print a completion script.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer completion bash > /etc/bash_completion.d/coffer")]
pub struct Args {
    /// Shell.
    shell: Shell,
}

/// Prints it.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut parser(), "coffer", &mut script);
    let script = String::from_utf8_lossy(&script);
    if context.json {
        println!("{}", serde_json::json!({ "shell": args.shell.to_string(), "script": script }));
    } else {
        print!("{script}");
    }
    Ok(ExitCode::SUCCESS)
}
