//! `coffer`: runs OCI images in attested microVMs.

#![allow(clippy::unnecessary_wraps, reason = "every command has the same signature")]

use std::process::ExitCode;

#[macro_use]
extern crate coffer_rim;

#[macro_use]
mod row;

mod boxes;
mod cli;
mod commands;
mod confirm;
mod context;
mod docker;
mod error;
mod evidence;
mod exits;
mod format;
mod host;
mod image;
mod inspected;
mod kbs;
mod launch;
mod named;
mod network;
mod output;
mod parser;
mod passing;
mod prove;
mod recorded;
mod refusal;
mod several;
mod signals;
mod sim;
mod stamps;
mod system;
mod table;
mod terminal;
mod values;
mod volume;
mod words;

fn main() -> ExitCode {
    if coffer_runtime::standard_output_was_closed() {
        coffer_rim::out::shut();
    }
    let words: Vec<_> = std::env::args_os().collect();
    cli::main(&words)
}
