//! The attack kit: evidence as a bad day would bring it, with exactly one thing wrong.
//!
//! For testing one's own policies and services: each attack says what a correct verifier must answer. The forgeries are made
//! with the simulator's keys, so they fool nobody who does not list its anchor.
//! Source: AMD 56860, AMD 57230, RFC 5280; AMD's security bulletins for the attacks on the platform.

mod forge;
mod list;

pub use forge::{AttackError, EvidenceSet, Scene, forge, genuine};
pub use list::{ATTACKS, Attack, Expect, Group, find};
