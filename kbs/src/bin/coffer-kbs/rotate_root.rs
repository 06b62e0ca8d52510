//! `coffer-kbs rotate-root`.

use std::path::PathBuf;

use coffer_kbs::{Position, StateError};
use coffer_rim::Failure;
use serde_json::json;

use crate::error::{OrFail as _, Said as _};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer-kbs rotate-root --state ./kbs")]
pub struct Args {
    /// State folder. Where its server runs, send it SIGUSR1 in place of this command: it changes the key while it serves.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
}

/// Changes the root key.
pub fn run(args: &Args, as_json: bool) -> Result<(), Failure> {
    let rotated = crate::event_loop::event_loop()?.block_on(coffer_kbs::rotate_root(&args.state));
    let ends = match rotated {
        Err(error @ StateError::Locked { .. }) => {
            return Err(error.said().hint("its server changes the key while it serves: send it SIGUSR1"));
        }
        ends => ends.or_fail()?,
    };
    if as_json {
        let Position { epoch, lines, changes } = ends;
        coffer_rim::println!("{}", json!({ "epoch": epoch, "lines": lines, "changes": changes }));
        return Ok(());
    }
    coffer_rim::println!("root.key is new; the database ends with {ends}");
    coffer_rim::println!("{}", crate::serve::NEW_ROOT_KEY);
    Ok(())
}
