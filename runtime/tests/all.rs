//! The tests of this crate. Each file of this folder is named here.

#[path = "cases/runner.rs"]
mod runner;
#[path = "../../tests/vectors.rs"]
mod vectors;

mod audit;
mod bundles;
mod cases;
mod collateral;
mod conformance;
mod corim;
mod corpora;
mod endpoint;
mod first_use;
mod host;
mod id_and_manifest;
mod images;
mod interrupted;
mod json;
mod lost;
mod metrics;
mod named;
mod output;
mod owner_policy;
mod places;
mod policies;
mod simulator;
mod steps;
mod verify;
