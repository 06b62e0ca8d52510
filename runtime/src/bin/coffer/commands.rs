//! The table of commands, and what a row of it holds.
//!
//! A command is a file with `Args` and `run`, and beside its `mod` line a row in the table of its group (`boxes.rs`, `kbs.rs`, …).
//! Nothing else names it: parsing, help, completion, exit codes and the tests go by the rows. A file without a row is dead
//! code, which the build refuses.

use std::process::ExitCode;

use clap::{ArgMatches, Args};

use crate::context::Context;
use crate::error::{Class, CliError};
use crate::exits::Exits;
use crate::{boxes, evidence, host, image, kbs, launch, prove, sim};

/// A row: `command!("ps": ps)` is `ps::Args` and `ps::run`; `command!("show": ShowArgs => show)` names both.
macro_rules! command {
    ($name:literal: $module:ident) => {
        command!($name: $module::Args => $module::run)
    };
    ($name:literal: $module:ident, $exits:ident) => {
        command!($name: $module::Args => $module::run, $exits)
    };
    ($name:literal: $args:ty => $run:path) => {
        command!($name: $args => $run, Class)
    };
    ($name:literal: $args:ty => $run:path, $exits:ident) => {
        $crate::commands::Entry {
            name: $name,
            exits: $crate::exits::Exits::$exits,
            define: <$args as clap::Args>::augment_args,
            does: $crate::commands::Does::Run(|matches, context| {
                $run(&$crate::commands::parse::<$args>(matches)?, context)
            }),
        }
    };
}

/// A row whose commands stand in the table `COMMANDS` of its module, with `Args` for its documentation.
macro_rules! noun {
    ($name:literal: $module:ident) => {
        $crate::commands::Entry {
            name: $name,
            exits: $crate::exits::Exits::Class,
            define: <$module::Args as clap::Args>::augment_args,
            does: $crate::commands::Does::Choose($module::COMMANDS),
        }
    };
}

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

/// Commands that stand together in help and in one folder.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Heading in help.
    pub heading: &'static str,
    /// Its commands.
    pub commands: &'static [Entry],
}

/// A row: one command, or a word with commands of its own behind it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The word. Aliases stand with the arguments.
    pub name: &'static str,
    /// Whose exit codes it has.
    pub exits: Exits,
    /// Adds documentation and arguments.
    pub define: fn(clap::Command) -> clap::Command,
    /// What it does.
    pub does: Does,
}

/// What a row does.
#[derive(Clone, Copy, Debug)]
pub enum Does {
    /// Runs, with what was parsed of its arguments and of the global ones before it.
    Run(fn(&ArgMatches, &Context) -> Result<ExitCode, CliError>),
    /// Leaves it to a further word.
    Choose(&'static [Entry]),
}

/// Every command of the first level.
pub fn all() -> impl Iterator<Item = &'static Entry> {
    GROUPS.iter().flat_map(|group| group.commands)
}

impl Entry {
    /// As the parser knows it.
    pub fn parser(&self) -> clap::Command {
        let command = (self.define)(clap::Command::new(self.name));
        match self.does {
            Does::Run(_) => command,
            Does::Choose(commands) => with(command, commands),
        }
    }

    /// Answers to this word.
    pub fn is_called(&self, word: &str) -> bool {
        self.name == word || self.parser().get_all_aliases().any(|alias| alias == word)
    }
}

/// A parser that demands one of these commands.
pub fn with(parser: clap::Command, commands: &'static [Entry]) -> clap::Command {
    parser.subcommands(commands.iter().map(Entry::parser)).subcommand_required(true).disable_help_subcommand(true)
}

/// The command that was asked for, and what was parsed for it.
pub fn chosen(matches: &ArgMatches) -> Option<(&'static Entry, &ArgMatches)> {
    let (name, mut matches) = matches.subcommand()?;
    let mut entry = all().find(|entry| entry.name == name)?;
    while let Does::Choose(commands) = entry.does {
        let (name, inner) = matches.subcommand()?;
        (entry, matches) = (commands.iter().find(|entry| entry.name == name)?, inner);
    }
    Some((entry, matches))
}

/// Arguments out of what the parser made of them.
///
/// # Errors
/// Class `internal`: the parser was built from the same type.
pub fn parse<A: Args>(matches: &ArgMatches) -> Result<A, CliError> {
    A::from_arg_matches(matches).map_err(|error| CliError::new(Class::Internal, error.to_string()))
}
