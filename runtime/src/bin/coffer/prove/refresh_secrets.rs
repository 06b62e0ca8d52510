//! `coffer refresh-secrets`.

use std::process::ExitCode;

use coffer_guest_proto::Found;
use coffer_runtime::engine::{OwnersTold, Refreshed};
use serde_json::json;

use crate::context::Context;
use crate::error::{self, CliError};
use crate::prove::guest::Trust;
use crate::prove::owner::in_force;
use crate::table;

/// Have a guest look for new versions of its secrets at the key broker now, and not only every quarter of an hour.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer refresh-secrets web")]
pub struct Args {
    #[command(flatten)]
    trust: Trust,
    /// Name or id; or coffer://HOST:PORT of a guest elsewhere, with --reference.
    #[arg(value_name = "BOX")]
    name: String,
}

/// Has it look, and says what it found, and who the owners are then where a list may say so. Fails where the broker refused one, a value has no room, or a list
/// of owners was not taken.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    let trust = args.trust.read()?;
    let (found, owners) = context.runtime()?.block_on(engine.refresh(&args.name, &trust)).map_err(error::of)?;
    if context.json {
        let row = |it: &Refreshed| json!({ "name": it.name, "version": it.version, "found": word(it), "denial_id": it.denial_id });
        println!(
            "{}",
            json!({ "secrets": found.iter().map(row).collect::<Vec<_>>(), "owners": owners.as_ref().map(in_force::described) })
        );
    } else {
        let row = |it: &Refreshed| {
            let id = it.denial_id.as_ref().map(|id| format!(" (id {id})")).unwrap_or_default();
            vec![it.name.clone(), it.version.to_string(), format!("{}{id}", word(it))]
        };
        // Of a box that has none, and asks for a list of owners alone, there is no table.
        if !found.is_empty() {
            table::print(&["SECRET", "VERSION", "FOUND"], &found.iter().map(row).collect::<Vec<_>>());
        } else if owners.is_none() {
            println!("no secret of this box comes to a file from the key broker: there is nothing to look for");
        }
        // Each has an id of its own, in the table.
        if let Some(id) = found.iter().find_map(|it| it.denial_id.as_ref()) {
            eprintln!("hint: {}", coffer_runtime::agent::broker_trail(id));
        }
        if let Some(told) = &owners {
            println!("{}", in_force::lines(told));
        }
    }
    let all = is_done(&found, owners.as_ref());
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::from(error::Class::Refused.code()) })
}

/// All that there is newer is in place.
fn is_done(found: &[Refreshed], owners: Option<&OwnersTold>) -> bool {
    found.iter().all(|it| matches!(it.found, Found::Unchanged | Found::Replaced))
        && owners.is_none_or(|told| told.refused.is_none())
}

fn word(it: &Refreshed) -> &'static str {
    match it.found {
        Found::Unchanged => "unchanged",
        Found::Replaced => "replaced",
        Found::Refused => "not-released",
        Found::Unusable => "unusable",
        Found::Unspecified => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_owners_that_was_not_taken_is_no_success() {
        let told = |refused: Option<(&str, &str)>| OwnersTold {
            are: "list",
            sequence: Some(2),
            expires: None,
            digest: None,
            refused: refused.map(|(word, why)| (word.to_owned(), why.to_owned())),
        };
        let secret = |found| Refreshed { name: "a".into(), version: 1, found, denial_id: None };
        assert!(is_done(&[], None) && is_done(&[secret(Found::Replaced)], Some(&told(None))));
        assert!(!is_done(&[], Some(&told(Some(("owner-list-older", "it is older"))))));
        assert!(!is_done(&[secret(Found::Refused)], Some(&told(None))));
    }
}
