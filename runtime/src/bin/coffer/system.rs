//! `coffer system`: all boxes of this installation at once.

pub mod df;
pub mod info;
pub mod resume;

use crate::row::Entry;

/// Look after all boxes of this installation.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer system df
  coffer system info
  coffer system resume")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] = &[command!("df": df), command!("info": info), command!("resume": resume)];
