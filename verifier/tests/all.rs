//! The tests of this crate. Each file of this folder is named here.

#[path = "../../fuzz/fuzz_targets/exercise.rs"]
mod exercise;
mod forge;
#[path = "../../tests/mutate.rs"]
mod mutate;
mod sys;
mod vectors;

mod binding;
mod cached;
mod corpora;
mod differential;
mod documented;
mod ear;
mod embedded;
mod endorsements;
mod floor;
mod golden;
mod hcl;
mod judge;
mod negative;
mod seed_corpora;
mod signature;
