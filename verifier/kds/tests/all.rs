//! The client against a simulated key distribution service on loopback.

mod common;
#[path = "../../../tests/vectors.rs"]
mod vectors;

mod documented;
mod faults;
mod flood;
mod folder;
mod genuine;
mod hostile;
mod lists;
mod use_of_it;
