//! `coffer-kbs doctor`.

use std::path::PathBuf;

use coffer_kbs::Weight;
use coffer_rim::{Class, Failure};
use serde_json::json;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer-kbs doctor --state ./kbs")]
pub struct Args {
    /// State folder; its server may run.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
}

/// Says what was found. Fails if something is broken; a warning is none.
pub fn run(args: &Args, as_json: bool) -> Result<(), Failure> {
    let found = crate::event_loop()?.block_on(coffer_kbs::examine(&args.state));
    let broken = found.iter().filter(|one| one.weight == Weight::Broken).count();
    if as_json {
        coffer_rim::println!("{}", json!({ "ok": broken == 0, "findings": found }));
    } else {
        for one in &found {
            let mark = match one.weight {
                Weight::Good => "good   ",
                Weight::Warning => "warning",
                Weight::Broken => "broken ",
            };
            coffer_rim::println!("{mark}  {}", one.what);
            if !one.hint.is_empty() {
                coffer_rim::println!("         {}", one.hint);
            }
        }
    }
    if broken == 0 { Ok(()) } else { Err(Failure::new(Class::Config, format!("{broken} things are broken"))) }
}
