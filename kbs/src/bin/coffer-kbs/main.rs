//! `coffer-kbs`: the key broker's server.

mod audit;
mod error;
mod init;
mod pin;
mod serve;

use std::{io::Write as _, process::ExitCode};

use clap::{Parser, Subcommand};

use error::{Class, Failure};

/// Releases secrets to attested guests.
#[derive(Debug, Parser)]
#[command(name = "coffer-kbs", version, disable_help_subcommand = true)]
#[command(after_help = "Examples:
  coffer-kbs init --state /var/lib/coffer-kbs
  coffer-kbs serve --state /var/lib/coffer-kbs
  coffer-kbs audit verify --state /var/lib/coffer-kbs")]
struct Cli {
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a state folder: root key, identities, first operator. Overwrites nothing.
    Init(init::Args),
    /// Serve guests and operators until SIGTERM or SIGINT.
    Serve(serve::Args),
    /// Print the key guests pin.
    Pin(pin::Args),
    /// Check the audit trail.
    #[command(subcommand)]
    Audit(audit::Command),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { Class::Usage.code() } else { 0 });
        }
    };
    log();
    let result = if rustls::crypto::aws_lc_rs::default_provider().install_default().is_ok() {
        match cli.command {
            Command::Init(args) => init::run(&args, cli.json),
            Command::Serve(args) => serve::run(&args, cli.json),
            Command::Pin(args) => pin::run(&args, cli.json),
            Command::Audit(command) => audit::run(&command, cli.json),
        }
    } else {
        Err(Failure::new(Class::Internal, "a TLS provider was already installed"))
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print(cli.json);
            ExitCode::from(failure.class.code())
        }
    }
}

/// Prints a line; a reader that went away is no failure of ours.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Logs go to standard error; `COFFER_LOG` or `RUST_LOG` says what, and without them what an operator wants to know.
fn log() {
    let filter = ["COFFER_LOG", "RUST_LOG"].iter().find_map(|name| std::env::var(name).ok());
    let filter = tracing_subscriber::EnvFilter::new(filter.unwrap_or_else(|| "info".into()));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}
