//! `coffer rm`.

use std::process::ExitCode;

use coffer_runtime::lock::BoxLock;
use coffer_runtime::supervisor::control::Command;
use coffer_runtime::supervisor::of_state;
use coffer_runtime::{BoxState, StateError};

use crate::cli::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::start::each;
use crate::stop::stop;

/// Remove boxes.
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "remove",
    after_help = "Examples:
  coffer rm web
  coffer rm --force web db"
)]
pub struct Args {
    /// Kill a box that runs; a box that is not there is no failure.
    #[arg(short, long)]
    force: bool,
    /// Names or ids.
    #[arg(required = true, value_name = "BOX")]
    boxes: Vec<String>,
}

/// Removes them; goes on after an error.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let (home, state) = context.open_state()?;
    let runtime = context.runtime()?;
    let mut names = args.boxes.clone();
    if args.force {
        names.retain(|name| {
            let known = !matches!(state.find(name), Err(StateError::Unknown(_)));
            if !known {
                eprintln!("coffer: no such box: {name}");
            }
            known
        });
    }
    each(context, &names, |name| {
        let record = state.find(name).map_err(of_state)?;
        let folder = home.box_folder(&record.id);
        // The record of a box that is just being started does not say so yet.
        if record.state == BoxState::Running || BoxLock::is_held(&folder) {
            if !args.force {
                return Err(CliError::new(Class::Config, format!("box {name} is running"))
                    .hint("stop it first, or remove it with -f"));
            }
            runtime.block_on(stop(&home, &state, record.id.as_str(), Command::Kill))?;
        }
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).class_while(Class::Config, format!("cannot remove {}", folder.display()))?;
            }
            _ => {}
        }
        state.remove(&record.id).map_err(of_state)
    })
}
