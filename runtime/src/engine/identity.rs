//! Whose launch a box is: an ID block, signed here or by its author elsewhere.

use coffer_spec::Tee;
use coffer_verifier::abi::Measurement;

use super::{Fault, Hint};
use crate::id_block::{GUEST_POLICY, LaunchNames, SignedLaunch};
use crate::signing_key::SigningKey;
use crate::{Class, Failure};

/// Whose launch it is.
pub enum LaunchIdentity {
    /// Signed here, for the predicted measurement.
    Sign {
        /// Signs the launch.
        id: Box<SigningKey>,
        /// Signs the ID key.
        author: Option<Box<SigningKey>>,
        /// What is signed beside the measurement.
        names: LaunchNames,
    },
    /// Signed elsewhere, by its author.
    Signed(Box<SignedLaunch>),
}

impl LaunchIdentity {
    /// The ID block of a launch with this measurement: signed now, or checked.
    ///
    /// # Errors
    /// Class `config` if it is for another launch or its signatures do not hold.
    pub fn of(&self, measurement: Measurement) -> Result<SignedLaunch, Failure> {
        match self {
            Self::Sign { id, author, names } => {
                SignedLaunch::sign(measurement, GUEST_POLICY, *names, id, author.as_deref())
            }
            Self::Signed(signed) => {
                signed.check(&measurement, GUEST_POLICY)?;
                Ok(SignedLaunch::clone(signed))
            }
        }
    }

    /// Refuses an ID block where nobody would check it.
    pub(super) fn check_tee(identity: Option<&Self>, tee: Tee) -> Result<(), UncheckedIdBlock> {
        if identity.is_some() && tee == Tee::None { Err(UncheckedIdBlock) } else { Ok(()) }
    }
}

/// An ID block that no secure processor would check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no secure processor checks the ID block of a box without one")]
pub struct UncheckedIdBlock;

impl Fault for UncheckedIdBlock {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn hint(&self) -> Option<Hint> {
        Some(Hint::WithProcessorOrNoIdBlock)
    }
}
