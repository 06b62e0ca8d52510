//! What every program of ours does at its rim: how a failure is said and which exit code it has, what reaches a terminal,
//! where logs go, how a file that matters is written, which file says that a server is ready, how much is read of one that a person names, that it is a file at all,
//! what is wrong with a configuration, how files are carried from one place to another, and what a template of `--format` makes.
//!
//! Trusts: nothing it is given to print. Text from a registry, a guest or a peer is escaped here, once, and nowhere else.
//! Never: ends the process, decides anything about evidence, writes a file in place.

pub mod carry;
pub mod failure;
pub mod file;
pub mod folder;
pub mod foreign;
pub mod input;
pub mod listen;
pub mod log;
#[macro_use]
pub mod out;
mod hidden;
pub mod private_socket;
pub mod ready;
pub mod regular;
pub mod settings;
pub mod sys;
pub mod template;
pub mod unnamed;
pub mod usage;
mod whole;

pub use failure::{Class, Classify, Failure, NamedFile, Reason, chain};
pub use foreign::{Foreign, foreign};
