//! The tests of this crate. Each file of this folder is named here.

mod common;
#[path = "../../../tests/mutate.rs"]
mod mutate;
#[path = "../../../tests/simulated.rs"]
mod simulated;
#[path = "../../../tests/vectors.rs"]
mod vectors;

mod appraiser;
mod configuration;
mod fetched;
mod frames;
mod grpc;
mod http;
mod page;
mod process;
mod replicas;
mod secured;
mod traces;
mod unread;
