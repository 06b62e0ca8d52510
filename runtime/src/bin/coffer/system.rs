//! `coffer system`: all boxes of this installation at once.

pub mod resume;

use crate::row::Entry;

/// Look after all boxes of this installation.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer system resume")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] = &[command!("resume": resume)];
