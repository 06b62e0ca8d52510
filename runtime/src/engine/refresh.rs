//! Has a guest look for new versions of its secrets now, at the key broker its spec names.

use coffer_guest_proto::owner_client::OwnerClient;
use coffer_guest_proto::{Found, RefreshRequest};
use coffer_rim::Reason;
use coffer_spec::Act;

use super::owners_told::OwnersTold;
use super::prove::{OwnerMayNot, ProveError};
use super::{Engine, Fault, Hint, OpenError, Trust};
use crate::{Class, Failure, agent};

/// What a guest found of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refreshed {
    /// Its name under `/run/secrets`.
    pub name: String,
    /// The version in place now.
    pub version: u64,
    /// What came of it.
    pub found: Found,
    /// The broker's number for its refusal, if it refused.
    pub denial_id: Option<String>,
}

/// Why a guest did not do what its owner asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RefreshError {
    /// The installation does not open, or has no such box.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The local owner may not.
    #[error(transparent)]
    MayNot(#[from] OwnerMayNot),
    /// The guest did not prove itself.
    #[error(transparent)]
    Prove(#[from] ProveError),
    /// A list of owners was brought to a guest that has them from the key broker.
    #[error("{failure}")]
    Kept {
        /// The box.
        name: String,
        /// Where they are kept.
        path: String,
        /// What the guest said.
        failure: Failure,
    },
    /// The box's spec, its guest's agent, or the broker behind it.
    #[error(transparent)]
    Other(#[from] Failure),
}

impl Fault for RefreshError {
    fn class(&self) -> Class {
        match self {
            Self::Open(error) => error.class(),
            Self::MayNot(error) => error.class(),
            Self::Prove(error) => error.class(),
            Self::Kept { failure, .. } | Self::Other(failure) => failure.class(),
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Open(error) => error.hint(),
            Self::MayNot(error) => error.hint(),
            Self::Prove(error) => error.hint(),
            Self::Kept { name, path, .. } => Some(Hint::PutAtBroker { name: name.clone(), path: path.clone() }),
            Self::Other(failure) => Fault::hint(failure),
        }
    }

    fn reason(&self) -> Option<Reason> {
        match self {
            Self::Kept { failure, .. } | Self::Other(failure) => Fault::reason(failure),
            _ => None,
        }
    }
}

impl Engine {
    /// Has the guest of a box look now. It replaces files of which there is another version, and what the spec says follows.
    /// Gives an entry for each file that comes from the broker, and who the owners are then, where a list may say so.
    ///
    /// # Errors
    /// [`RefreshError`]; what is in place stays.
    pub async fn refresh(
        &self,
        word: &str,
        trust: &Trust,
    ) -> Result<(Vec<Refreshed>, Option<OwnersTold>), RefreshError> {
        let guest = self.guest(word)?;
        self.may_ask::<RefreshError>(&guest, Act::Inject)?;
        let connection = self.connect(&guest, trust).await?;
        let answer = OwnerClient::new(connection.channel()).refresh(RefreshRequest {}).await;
        let answer = answer.map_err(|status| agent::of_status(&status))?.into_inner();
        let told = answer.secrets.into_iter().map(|it| Refreshed {
            found: it.found(),
            denial_id: (it.denial_id != 0).then(|| format!("{:016x}", it.denial_id)),
            name: it.name,
            version: it.version,
        });
        Ok((told.collect(), answer.owners.map(OwnersTold::read)))
    }
}
