//! Leave to let something out, and what leaves: encrypted to the key of the report it was decided on.

use coffer_kbs_client::{GENERATION, GET_SEALING_KEY, GET_SECRET, ResourcePath, SealingName, secret_aad};
use coffer_ratls::{Attested, HpkeError, HpkeSealed};
use zeroize::Zeroizing;

use crate::{
    certificate::Issued,
    guest::Judged,
    store::{AuditEntry, Counter, Ledger, StoreError},
    token::Token,
};

/// Leave to release one thing. Only [`crate::decide::Decider::decide`] makes one, from a decision without a reason against;
/// nothing else opens the road to the guest's key.
pub struct Permit(Granted);

/// What leave is for.
pub enum Granted {
    /// A version of a secret.
    Secret {
        /// Where.
        path: ResourcePath,
        /// Which.
        version: u64,
        /// The value.
        value: Zeroizing<Vec<u8>>,
    },
    /// A sealing key.
    SealingKey {
        /// Its name.
        name: SealingName,
        /// The key.
        key: Zeroizing<[u8; 32]>,
    },
    /// A counter.
    Generation {
        /// Of what is sealed under this name.
        name: SealingName,
        /// Which.
        counter: [u8; 16],
        /// Where it is.
        found: u64,
        /// Where it goes: nothing, if it is read or not as expected.
        moved: Option<(Counter, u64)>,
        /// What was asked.
        asked: Option<(u64, u64)>,
    },
    /// A certificate, which is no secret.
    Certificate(Issued),
    /// A token, of no use without the key it is for.
    Token(Token),
}

/// What leaves, for the guest alone.
pub enum Released {
    /// A secret.
    Secret {
        /// Its version.
        version: u64,
        /// Its value.
        sealed: HpkeSealed,
    },
    /// A sealing key.
    SealingKey(HpkeSealed),
    /// Where a counter is.
    Generation {
        /// Whether it was set.
        set: bool,
        /// The number, encrypted.
        sealed: HpkeSealed,
    },
    /// A chain, leaf first.
    Certificate(Issued),
    /// A token.
    Token(Token),
}

/// What is released, and what it changes in the ledger. In clear until it is sealed.
pub struct Outcome(Granted);

impl Permit {
    pub(crate) fn new(granted: Granted) -> Self {
        Self(granted)
    }

    /// Uses it up for somebody to whom something can be sealed.
    ///
    /// # Errors
    /// [`HpkeError`].
    pub fn outcome(self, attested: &Attested<Judged>) -> Result<Outcome, HpkeError> {
        attested.can_seal()?;
        Ok(Outcome(self.0))
    }
}

impl Outcome {
    /// Encrypts what is released to the key of the report it was decided on. It leaves once its line is committed.
    ///
    /// # Errors
    /// [`HpkeError`].
    pub fn seal(self, attested: &Attested<Judged>) -> Result<Released, HpkeError> {
        let tenant = attested.admitted().tenant.as_str();
        Ok(match self.0 {
            Granted::Secret { path, version, value } => {
                let sealed = attested.seal(GET_SECRET, &secret_aad(tenant, &path, version), &value)?;
                Released::Secret { version, sealed }
            }
            Granted::SealingKey { name, key } => {
                Released::SealingKey(attested.seal(GET_SEALING_KEY, &name.key_aad(tenant), key.as_slice())?)
            }
            Granted::Generation { name, counter, found, moved, .. } => {
                let set = moved.is_some();
                let current = moved.map_or(found, |(_, next)| next);
                let aad = name.generation_aad(tenant, &counter, set);
                Released::Generation { set, sealed: attested.seal(GENERATION, &aad, &current.to_be_bytes())? }
            }
            Granted::Certificate(issued) => Released::Certificate(issued),
            Granted::Token(token) => Released::Token(token),
        })
    }

    /// Does what it changes.
    ///
    /// # Errors
    /// As the store.
    pub async fn apply(&self, ledger: &mut Ledger) -> Result<(), StoreError> {
        match &self.0 {
            Granted::Generation { moved: Some((counter, next)), .. } => ledger.set_generation(counter, *next).await,
            _ => Ok(()),
        }
    }

    /// Says it in the trail.
    pub fn describe(&self, entry: &mut AuditEntry) {
        entry.outcome = "released";
        match &self.0 {
            Granted::Secret { version, .. } => entry.version = Some(*version),
            Granted::SealingKey { .. } => {}
            Granted::Generation { found, moved, asked, .. } => {
                entry.generation = Some(moved.as_ref().map_or(*found, |(_, next)| *next));
                match (moved, asked) {
                    (Some(_), _) => entry.outcome = "done",
                    (None, Some((expected, _))) => {
                        entry.outcome = "conflict";
                        entry.reasons.push(format!("generation: found {found}, expected {expected}"));
                    }
                    (None, None) => {}
                }
            }
            Granted::Certificate(issued) => entry.serial = Some(issued.serial.clone()),
            Granted::Token(token) => entry.serial = Some(token.id.clone()),
        }
    }
}
