//! `coffer-kbs server-key show|next|switch`.

use std::path::PathBuf;

use coffer_kbs::{Listener, ServerKeys};
use coffer_rim::Failure;
use serde_json::json;

use crate::error::OrFail as _;

/// What to do with the listeners' keys.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print the keys of both listeners, as they are pinned, and the next ones that wait.
    #[command(after_help = "Examples:\n  coffer-kbs server-key show --state ./kbs")]
    Show {
        /// State folder.
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
    },
    /// Make the next key of a listener beside the present one, which is shown as before: have it pinned, then `switch`.
    #[command(after_help = "Examples:\n  coffer-kbs server-key next --state ./kbs --listener guests\n  \
                            coffer-kbs server-key next --state ./kbs --listener operators")]
    Next(Args),
    /// Show the next key in place of the present one, which is gone then: whoever pins that one alone is refused. Counts from the
    /// broker's next start on.
    #[command(after_help = "Examples:\n  coffer-kbs server-key switch --state ./kbs --listener guests\n  \
                            coffer-kbs server-key switch --state ./kbs --listener operators")]
    Switch(Args),
}

/// Arguments of `next` and `switch`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// State folder; its server may run.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Whose listener: its key is one of its own.
    #[arg(long, value_name = "WHOSE")]
    listener: Whose,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Whose {
    Guests,
    Operators,
}

impl From<Whose> for Listener {
    fn from(whose: Whose) -> Self {
        match whose {
            Whose::Guests => Self::Guests,
            Whose::Operators => Self::Operators,
        }
    }
}

/// Does it.
pub fn run(command: &Command, as_json: bool) -> Result<(), Failure> {
    match command {
        Command::Show { state } => show(state, as_json),
        Command::Next(args) => next(args, as_json),
        Command::Switch(args) => switch(args, as_json),
    }
}

fn show(state: &std::path::Path, as_json: bool) -> Result<(), Failure> {
    let keys = |listener| coffer_kbs::server_keys(state, listener).or_fail();
    let (guests, operators) = (keys(Listener::Guests)?, keys(Listener::Operators)?);
    if as_json {
        coffer_rim::println!("{}", json!({ "guests": guests, "operators": operators }));
        return Ok(());
    }
    for (whose, ServerKeys { present, next }) in [("guests", guests), ("operators", operators)] {
        coffer_rim::println!("{whose:<9}  present  {present}");
        if let Some(next) = next {
            coffer_rim::println!("{whose:<9}  next     {next}");
        }
    }
    Ok(())
}

fn next(Args { state, listener }: &Args, as_json: bool) -> Result<(), Failure> {
    let listener = Listener::from(*listener);
    let ServerKeys { present, next } = coffer_kbs::make_next_key(state, listener).or_fail()?;
    if as_json {
        coffer_rim::println!("{}", json!({ "listener": listener, "present": present, "next": next }));
        return Ok(());
    }
    coffer_rim::println!("present {present}");
    coffer_rim::println!("next {}", next.map(|next| next.to_string()).unwrap_or_default());
    coffer_rim::println!(
        "{}",
        match listener {
            Listener::Guests => "pin both in each workload: `--kbs-pin` twice, or `spki` of its spec; then switch",
            Listener::Operators =>
                "pin both in each operator's profile: `coffer kbs admin pin PRESENT NEXT`; then switch",
        }
    );
    Ok(())
}

fn switch(Args { state, listener }: &Args, as_json: bool) -> Result<(), Failure> {
    let listener = Listener::from(*listener);
    let (former, ServerKeys { present, .. }) = coffer_kbs::switch_key(state, listener).or_fail()?;
    if as_json {
        coffer_rim::println!("{}", json!({ "listener": listener, "former": former, "present": present }));
        return Ok(());
    }
    coffer_rim::println!("present {present}");
    coffer_rim::println!("former {former}: gone; whoever pins it alone is refused");
    coffer_rim::println!("a broker that runs shows the new key once it is started again");
    Ok(())
}
