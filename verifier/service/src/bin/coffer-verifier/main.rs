//! `coffer-verifier`: the verifier's service.

mod api_key;
mod check;
mod error;
mod event_loop;
mod init;
#[path = "../../../../../deploy/manual.rs"]
mod manual;
mod openapi;
mod refusal;
mod serve;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use coffer_rim::{Class, Failure};

/// Judges SEV-SNP evidence for whoever may ask, over HTTP and gRPC.
#[derive(Debug, Parser)]
#[command(name = "coffer-verifier", version)]
#[command(after_help = "Examples:
  coffer-verifier init --state /var/lib/coffer-verifier \\
      --issuer https://verifier.example
  coffer-verifier serve --state /var/lib/coffer-verifier
  coffer-verifier check --state /var/lib/coffer-verifier")]
struct Cli {
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a state folder: keys, a certificate, one key that may ask. Overwrites nothing.
    Init(init::Args),
    /// Serve until SIGTERM or SIGINT.
    Serve(serve::Args),
    /// Read the configuration and all that it names, and say every mistake.
    Check(check::Args),
    /// Make a key that may ask, and the lines of the configuration that list it.
    ApiKey(api_key::Args),
    /// Print the interface as an OpenAPI document.
    Openapi(openapi::Args),
    /// Write man pages, and completions for bash, zsh and fish, into a folder: what packages ship.
    #[command(hide = true, after_help = "Examples:\n  coffer-verifier manual --out ./manual")]
    Manual(manual::Args),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let as_json = std::env::args_os().any(|word| word == "--json");
            return coffer_rim::out::verdict(refusal::refuse(&error, as_json));
        }
    };
    // What an operator wants to know; `COFFER_LOG` or `RUST_LOG` says otherwise.
    coffer_rim::log::init_service();
    let result = if rustls::crypto::aws_lc_rs::default_provider().install_default().is_ok() {
        match cli.command {
            Command::Init(args) => init::run(&args, cli.json),
            Command::Serve(args) => serve::run(&args, cli.json),
            Command::Check(args) => check::run(&args, cli.json),
            Command::ApiKey(args) => api_key::run(&args, cli.json),
            Command::Openapi(args) => openapi::run(&args),
            Command::Manual(args) => manual::run(&args, Cli::command(), "8", cli.json),
        }
    } else {
        Err(Failure::new(Class::Internal, "a TLS provider was already installed"))
    };
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print("coffer-verifier", cli.json);
            ExitCode::from(failure.class.code())
        }
    };
    coffer_rim::out::verdict(code)
}

#[cfg(test)]
mod tests;
