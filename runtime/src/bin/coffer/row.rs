//! What a row of the table of commands holds, and how it is written.
//!
//! Knows no command. The groups make their rows of it, and `commands` the table of the groups.

use std::process::ExitCode;

use clap::{ArgMatches, Args};

use crate::context::Context;
use crate::error::{Class, CliError};
use crate::exits::Exits;

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
        $crate::row::Entry {
            name: $name,
            exits: $crate::exits::Exits::$exits,
            define: <$args as clap::Args>::augment_args,
            does: $crate::row::Does::Run(|matches, context| {
                $run(&$crate::row::parse::<$args>(matches)?, context)
            }),
        }
    };
}

/// A row whose commands stand in the table `COMMANDS` of its module, with `Args` for its documentation.
macro_rules! noun {
    ($name:literal: $module:ident) => {
        $crate::row::Entry {
            name: $name,
            exits: $crate::exits::Exits::Class,
            define: <$module::Args as clap::Args>::augment_args,
            does: $crate::row::Does::Choose($module::COMMANDS),
        }
    };
}

/// A row that its module wrote itself, as `ENTRY`.
macro_rules! entry {
    ($module:ident) => {
        $module::ENTRY
    };
}

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
    /// Runs where no further word is given.
    Either(fn(&ArgMatches, &Context) -> Result<ExitCode, CliError>, &'static [Entry]),
}

impl Does {
    /// The commands that may stand behind it.
    pub const fn commands(self) -> &'static [Entry] {
        match self {
            Self::Run(_) => &[],
            Self::Choose(commands) | Self::Either(_, commands) => commands,
        }
    }
}

impl Entry {
    /// As the parser knows it.
    pub fn parser(&self) -> clap::Command {
        let command = (self.define)(clap::Command::new(self.name));
        match self.does {
            Does::Run(_) => command,
            Does::Choose(commands) => with(command, commands),
            Does::Either(_, commands) => {
                with(command, commands).subcommand_required(false).args_conflicts_with_subcommands(true)
            }
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

/// Arguments out of what the parser made of them.
///
/// # Errors
/// Class `internal`: the parser was built from the same type.
pub fn parse<A: Args>(matches: &ArgMatches) -> Result<A, CliError> {
    A::from_arg_matches(matches).map_err(|error| CliError::new(Class::Internal, error.to_string()))
}
