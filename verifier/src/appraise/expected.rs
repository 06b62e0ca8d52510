//! Which guest is expected, beside every policy.

use super::policy::{Pair, SignerRule};

/// The guest that is expected. It is demanded beside the policy, which can only narrow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedGuest {
    /// This platform for this workload, and no other.
    Exactly(Pair),
    /// One of these pairs, or a launch that one of these authors signed: what a key broker's references admit.
    Admitted {
        /// Measurement and workload, admitted together.
        pairs: Vec<Pair>,
        /// Authors whose launches need no listed pair.
        signers: Vec<SignerRule>,
    },
    /// Waives it: the policy alone says which guests are accepted. A policy that names none accepts every genuine guest.
    WhateverThePolicyAdmits,
}
