//! `coffer`: runs OCI images in attested microVMs.

#![allow(clippy::unnecessary_wraps, reason = "every subcommand has the same signature")]

#[macro_use]
mod out;

mod boxes;
mod cli;
mod error;
mod evidence;
mod host;
mod image;
mod kbs;
mod kbs_trust;
mod launch;
mod prove;
mod sim;
mod table;

use boxes::{create, exec, flags, inspect, live, logs, ps, restart, rm, run, start, stop, supervise, volumes};
use evidence::{bench, report, verify};
use host::{completion, doctor, version};
use image::{images, progress, pull, rmi};
use launch::{id_block, id_flags, id_key, manifest, measure, measure_firmware, measure_manifest, platform, spec};
use prove::{attest, guest, inject_secret, owner, seal};

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use cli::{Cli, Context};
use error::{Class, CliError};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error, &words),
    };
    log();
    // One provider in the whole process, chosen here and nowhere else.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        error::print(&CliError::new(Class::Internal, "a TLS provider was already installed"), cli.json);
        return ExitCode::from(Class::Internal.code());
    }
    let context = Context::new(cli.json, cli.home);
    match cli.command.run(&context) {
        Ok(code) => code,
        Err(error) => {
            error::print(&error, context.json);
            ExitCode::from(cli::failure_code(&error, &words))
        }
    }
}

/// Prints what clap found wrong; `--help` and `--version` also come this way and are no failure.
fn refuse(error: &clap::Error, words: &[String]) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if words.iter().any(|word| word == "--json") && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    {
        let text = error.render().to_string();
        let first = text.lines().next().unwrap_or_default();
        let message = first.strip_prefix("error: ").unwrap_or(first);
        error::print(&CliError::new(Class::Usage, message).hint("coffer --help lists commands and flags"), true);
    } else {
        let _ = error.print();
    }
    ExitCode::from(cli::failure_code(&CliError::new(Class::Usage, ""), words))
}

/// Logs go to standard error; `COFFER_LOG` or `RUST_LOG` says what, and without them only warnings.
fn log() {
    let filter = ["COFFER_LOG", "RUST_LOG"].iter().find_map(|name| std::env::var(name).ok());
    let filter = tracing_subscriber::EnvFilter::new(filter.unwrap_or_else(|| "warn".into()));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
