//! The tests of this crate. Each file of this folder is named here.

#[path = "../../../tests/vectors.rs"]
mod vectors;

mod example;
mod header;
mod sys;
