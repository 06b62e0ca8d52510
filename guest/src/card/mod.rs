//! What may pass the card of a guest that proves itself: the rules of its spec, held in the guest's own kernel by two programs of ours.
//!
//! The switch outside ([docs/network.md](../../../docs/network.md)) binds guests and not their host. These bind whoever is at the other
//! end of the card: nothing that comes from there reaches a port that the spec does not name, and nothing of the workload's goes where the
//! spec lets nobody go.
//!
//! Trusts: the spec, the guest's kernel. Never: lets a card work without its rules; gives the workload a way to them.
//! Source: docs/design/guest.md §8.

mod assembler;
mod hold;
mod plan;
mod program;
mod refused;
mod told;

pub use assembler::Instruction;
pub use hold::{Held, hold};
pub use refused::{Direction, Refused};
pub use told::tell;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
