//! Whose guest an owner asks: that of a box here, or one elsewhere, of which nothing is known here but an address.
//!
//! Trusts: nothing of an address. Whoever answers there is the guest once it has proved that, and nobody before.

use coffer_spec::{Document, Tee};

use super::{Engine, OpenError};
use crate::BoxId;
use crate::endpoint::{Address, OWNERS_SCHEME};
use crate::owner_access::OwnerConnection;
use crate::state::BoxRecord;
use crate::{Class, Failure};

/// A guest that is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Guest {
    /// That of a box here.
    Here(Box<BoxRecord>),
    /// One behind an address, which its host published for owners.
    Elsewhere(Address),
}

impl Guest {
    /// Whether a word is an address, and no box's name.
    pub fn is_elsewhere(word: &str) -> bool {
        word.starts_with(OWNERS_SCHEME)
    }

    /// The box's name, or the address as it is typed.
    pub fn name(&self) -> String {
        match self {
            Self::Here(record) => record.name.clone(),
            Self::Elsewhere(address) => format!("{OWNERS_SCHEME}{address}"),
        }
    }

    /// The box's.
    pub fn id(&self) -> Option<&BoxId> {
        match self {
            Self::Here(record) => Some(&record.id),
            Self::Elsewhere(_) => None,
        }
    }

    /// In a sentence.
    pub(super) fn said(&self) -> String {
        match self {
            Self::Here(record) => format!("the guest of box {}", record.name),
            Self::Elsewhere(address) => format!("the guest at {address}"),
        }
    }

    /// What its record says: simulated. Of one elsewhere nothing is known.
    pub fn is_simulated(&self) -> bool {
        matches!(self, Self::Here(record) if record.options.tee == Tee::Simulated)
    }
}

impl Engine {
    /// Finds the box, or reads the address.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn guest(&self, word: &str) -> Result<Guest, OpenError> {
        if Guest::is_elsewhere(word) {
            return Ok(Guest::Elsewhere(Address::of_owners(word)?));
        }
        Ok(Guest::Here(Box::new(self.find(word)?)))
    }

    /// What the guest runs: of a box here the document that it was created with, of one elsewhere the one that it proved to run.
    ///
    /// # Errors
    /// A document that does not read.
    pub(super) fn document_of(&self, guest: &Guest, connection: &OwnerConnection) -> Result<Document, Failure> {
        match guest {
            Guest::Here(record) => self.document(record),
            Guest::Elsewhere(_) => Document::parse(connection.attested().evidence().workload_spec.clone())
                .map_err(|error| Failure::caused(Class::Platform, &error).while_doing("the guest's spec")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{engine, recorded};
    use super::super::{Fault as _, ProveError, Trust};
    use super::*;

    #[tokio::test]
    async fn an_address_is_no_guest_until_somebody_says_which() {
        let (_dir, engine) = engine();
        recorded(&engine, "web");
        assert_eq!(engine.guest("web").unwrap().name(), "web");
        let at = "coffer://127.0.0.1:1";
        assert_eq!(engine.guest(at).unwrap().name(), at);
        // Nobody is dialled: that nothing listens there would be said otherwise.
        let error = engine.attest(at, &Trust::default()).await.unwrap_err();
        assert!(matches!(error, ProveError::Nobody(_)) && error.class() == Class::Usage, "{error}");
        for (word, why) in [("coffer://", "HOST:PORT"), ("coffer://host", "HOST:PORT")] {
            let error = engine.guest(word).unwrap_err();
            assert!(error.class() == Class::Usage && error.to_string().contains(why), "{error}");
        }
        assert!(matches!(engine.find(at), Err(OpenError::Elsewhere(_))), "it is no box");
    }
}
