//! `coffer hold`: the process that holds a box in namespaces. Started by its supervisor, never by people.

use std::io;
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use coffer_runtime::monitor::namespaces::hold::hold;

use crate::context::Context;
use crate::error::CliError;

/// Hold a box in namespaces.
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub struct Args {}

/// Holds it until it ends; our status is init's.
pub fn run(_: &Args, _: &Context) -> Result<ExitCode, CliError> {
    Ok(ExitCode::from(hold(io::stdin().as_fd().try_clone_to_owned()?)?))
}
