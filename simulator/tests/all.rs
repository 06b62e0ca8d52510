//! The tests of this crate. Each file of this folder is named here.

mod common;
#[path = "../../tests/vectors.rs"]
mod vectors;

mod attacks;
mod behaviour;
mod certificates;
mod kds;
mod peers;
mod processor;
mod properties;
