//! `coffer-kbs`: the key broker's server.

mod audit;
mod backup;
mod doctor;
mod document;
mod error;
mod event_loop;
mod init;
#[path = "../../../../deploy/manual.rs"]
mod manual;
mod pin;
mod refusal;
mod restore;
mod rotate_root;
mod serve;
mod server_key;
mod state;
mod upgrade;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use coffer_rim::{Class, Failure};

use event_loop::event_loop;

/// Releases secrets to attested guests.
#[derive(Debug, Parser)]
#[command(name = "coffer-kbs", version)]
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
    /// Change the keys that guests and operators pin: make the next one, have it pinned, switch.
    #[command(
        subcommand,
        after_help = "Examples:\n  coffer-kbs server-key next --state ./kbs --listener guests\n  \
                      coffer-kbs server-key show --state ./kbs\n  \
                      coffer-kbs server-key switch --state ./kbs --listener guests"
    )]
    ServerKey(server_key::Command),
    /// Check the audit trail, and move old lines of it into files.
    #[command(
        subcommand,
        after_help = "Examples:\n  coffer-kbs audit verify --state ./kbs\n  \
                      coffer-kbs audit archive --state ./kbs --before 2027-01-01 \\\n      --out audit-2026.jsonl"
    )]
    Audit(audit::Command),
    /// Look at every row and the checkpoint, and mend what is damaged.
    #[command(
        subcommand,
        after_help = "Examples:\n  coffer-kbs state verify --state ./kbs\n  \
                                        coffer-kbs state repair --state ./kbs"
    )]
    State(state::Command),
    /// Write a backup, also while the server runs.
    Backup(backup::Args),
    /// Make a key that backups can be encrypted to.
    RecoveryKey(backup::KeyArgs),
    /// Restore a backup, or accept a database that is older than its checkpoint, by name.
    Restore(restore::Args),
    /// Give the database a new root key; sealing keys and certificate roots stay what they are.
    RotateRoot(rotate_root::Args),
    /// Bring the database of an earlier version to this one's format, by name.
    Upgrade(upgrade::Args),
    /// Say what about this state folder is not as it should be.
    Doctor(doctor::Args),
    /// Write man pages, and completions for bash, zsh and fish, into a folder: what packages ship.
    #[command(hide = true, after_help = "Examples:\n  coffer-kbs manual --out ./manual")]
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
            Command::Init(args) => init::run(&args, cli.json).map(done),
            Command::Serve(args) => serve::run(&args, cli.json).map(done),
            Command::Pin(args) => pin::run(&args, cli.json).map(done),
            Command::ServerKey(command) => server_key::run(&command, cli.json).map(done),
            Command::Audit(command) => audit::run(&command, cli.json).map(done),
            Command::State(command) => state::run(&command, cli.json),
            Command::Restore(args) => restore::run(&args, cli.json).map(done),
            Command::Backup(args) => backup::run(&args, cli.json).map(done),
            Command::RecoveryKey(args) => backup::make_key(&args, cli.json).map(done),
            Command::RotateRoot(args) => rotate_root::run(&args, cli.json).map(done),
            Command::Upgrade(args) => upgrade::run(&args, cli.json).map(done),
            Command::Doctor(args) => doctor::run(&args, cli.json),
            Command::Manual(args) => manual::run(&args, Cli::command(), "8", cli.json).map(done),
        }
    } else {
        Err(Failure::new(Class::Internal, "a TLS provider was already installed"))
    };
    let code = match result {
        Ok(code) => code,
        Err(failure) => {
            failure.print("coffer-kbs", cli.json);
            ExitCode::from(failure.class.code())
        }
    };
    coffer_rim::out::verdict(code)
}

fn done((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests;
