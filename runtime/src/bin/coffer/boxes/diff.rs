//! `coffer diff`.
//!
//! Trusts: nothing of the list. What is no list of changes, or more than there can be, is an error.

use std::io::Read as _;
use std::process::ExitCode;

use serde_json::json;

use crate::boxes::cp::pump::take;
use crate::context::Context;
use crate::error::{self, Class, Classify as _, CliError};
use crate::prove::guest::Trust;

/// List what a running box has in its root file system that its image has not.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A is what was added, C what was changed, D what was deleted. What is mounted in the box, volumes and memory, is not looked at,
nor are its host name files, which each box has of its own.
Where the spec does not let the host cp or exec, it is done as owner, in a guest that proves itself first.

Examples:
  coffer diff web
  coffer --json diff web"
)]
pub struct Args {
    #[command(flatten)]
    trust: Trust,
    /// Name or id.
    #[arg(value_name = "BOX")]
    name: String,
}

/// Bytes of a list that are read.
const LONGEST: u64 = 64 << 20;

/// Lists it.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    let trust = args.trust.read()?;
    let list = context.runtime()?.block_on(async {
        let mut session = engine.read_changes(&args.name, false, &trust).await.map_err(error::of)?;
        take(&mut session, false, |from| {
            let mut list = Vec::new();
            from.take(LONGEST + 1).read_to_end(&mut list).class(Class::Config)?;
            Ok(list)
        })
        .await
    })?;
    let changes = read(&list)?;
    if context.json {
        let of = |(word, path): &(char, String)| json!({ "change": word, "path": path });
        println!("{}", json!({ "changes": changes.iter().map(of).collect::<Vec<_>>() }));
        return Ok(ExitCode::SUCCESS);
    }
    for (word, path) in &changes {
        println!("{word} {}", coffer_rim::foreign(path));
    }
    Ok(ExitCode::SUCCESS)
}

/// Words and paths, by path.
fn read(list: &[u8]) -> Result<Vec<(char, String)>, CliError> {
    let unreadable = || CliError::new(Class::Config, "the guest's list of changes cannot be read");
    if list.len() as u64 > LONGEST {
        return Err(unreadable());
    }
    let Some(list) = list.strip_suffix(&[0]) else {
        return if list.is_empty() { Ok(Vec::new()) } else { Err(unreadable()) };
    };
    let one = |line: &[u8]| match line.split_first() {
        Some((word @ (b'A' | b'C' | b'D'), path)) if path.starts_with(b"/") && path.len() > 1 => {
            Ok((char::from(*word), String::from_utf8_lossy(path).into_owned()))
        }
        _ => Err(unreadable()),
    };
    let mut changes = list.split(|byte| *byte == 0).map(one).collect::<Result<Vec<_>, _>>()?;
    changes.sort_by(|(_, one), (_, other)| one.cmp(other));
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_by_path_and_what_is_none_is_refused() {
        let changes = read(b"D/b\0C/a\0A/a/\xff\n\0").unwrap();
        let expected = [('C', "/a"), ('A', "/a/\u{fffd}\n"), ('D', "/b")];
        assert_eq!(changes, expected.map(|(word, path)| (word, path.to_owned())));
        assert!(read(b"").unwrap().is_empty());
        for bad in [&b"A/a"[..], b"\0", b"A/a\0\0", b"X/a\0", b"Aa\0", b"A/\0", b"A\0"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
