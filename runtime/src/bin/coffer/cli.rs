//! From a command line to an exit code.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::boxes;
use crate::commands;
use crate::context::Context;
use crate::docker;
use crate::error::{Class, CliError};
use crate::exits::Exits;
use crate::parser::{self, Globals};
use crate::recorded;
use crate::refusal::{fail, refuse};
use crate::row::{self, Does};

/// Does what a command line says.
pub fn main(words: &[OsString]) -> ExitCode {
    let is_box = |word: &str| boxes::GROUP.commands.iter().any(|entry| entry.name == word);
    let words: &[OsString] = &docker::nouns::flattened(words, is_box);
    let matches = match parser::parse(words) {
        Ok(matches) => matches,
        Err(error) => return refuse(error, words),
    };
    coffer_rim::log::init("warn");
    let Globals { json, home } = match row::parse(&matches) {
        Ok(globals) => globals,
        Err(failure) => return fail(&failure, false, Exits::Class),
    };
    // One provider in the whole process, chosen here and nowhere else.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        return fail(&CliError::new(Class::Internal, "a TLS provider was already installed"), json, Exits::Class);
    }
    let Some((path, entry, matches)) = commands::chosen(&matches) else {
        return fail(
            &CliError::new(Class::Internal, "the parser knows a command that the table does not"),
            json,
            Exits::Class,
        );
    };
    let (Does::Run(run) | Does::Either(run, _)) = entry.does else {
        return fail(&CliError::new(Class::Internal, "a command without an act"), json, Exits::Class);
    };
    let mut context = Context::new(json, home, entry.exits);
    context.acts = recorded::acts;
    context.boxes_named = recorded::boxes_named;
    let recorded = match recorded::begin(&path, entry, matches, &context) {
        Ok(recorded) => recorded,
        Err(failure) => return fail(&failure, json, entry.exits),
    };
    let result = run(matches, &context);
    if let Some(recorded) = recorded {
        recorded.end(&result, entry, &context);
    }
    match result {
        Ok(code) => entry.exits.verdict(code),
        Err(failure) => fail(&failure, json, entry.exits),
    }
}

#[cfg(test)]
pub(crate) mod tests;
