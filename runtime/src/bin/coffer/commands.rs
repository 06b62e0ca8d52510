//! The table of commands.
//!
//! A command is a file with `Args` and `run`, and beside its `mod` line a row in the table of its group (`boxes.rs`, `kbs.rs`, …).
//! Nothing else names it: parsing, help, completion, exit codes and the tests go by the rows. A file without a row is dead
//! code, which the build refuses.

use clap::ArgMatches;

use crate::row::{Entry, Group};
use crate::{boxes, evidence, host, image, kbs, launch, prove, sim};

/// Every group, in the order in which help shows them.
pub const GROUPS: &[Group] = &[
    boxes::GROUP,
    image::GROUP,
    prove::GROUP,
    launch::GROUP,
    evidence::GROUP,
    Group { heading: "Key broker", commands: &[noun!("kbs": kbs)] },
    Group { heading: "Simulator", commands: &[noun!("sim": sim)] },
    host::GROUP,
];

/// Every command of the first level.
pub fn all() -> impl Iterator<Item = &'static Entry> {
    GROUPS.iter().flat_map(|group| group.commands)
}

/// The command that was asked for, by its words and its row, and what was parsed for it.
pub fn chosen(matches: &ArgMatches) -> Option<(String, &'static Entry, &ArgMatches)> {
    let (name, mut matches) = matches.subcommand()?;
    let mut entry = all().find(|entry| entry.name == name)?;
    let mut path = name.to_owned();
    while let Some((name, inner)) = matches.subcommand() {
        (entry, matches) = (entry.does.commands().iter().find(|entry| entry.name == name)?, inner);
        path = format!("{path} {name}");
    }
    Some((path, entry, matches))
}
