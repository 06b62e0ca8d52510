//! Lists of owners: brings a guest one that the authority of its spec signed, and asks which one is in force.

use coffer_guest_proto::owner_client::OwnerClient;
use coffer_guest_proto::{OwnersRequest, PutOwnersRequest};
use coffer_spec::SecretPath;
use tonic::Code;

use super::owners_told::OwnersTold;
use super::refresh::RefreshError;
use super::{Engine, Trust};
use crate::{Class, Failure, agent};

/// A guest whose lists the broker keeps takes none from anybody else.
fn not_brought(name: &str, kept: Option<&SecretPath>, failure: Failure) -> RefreshError {
    let is_kept = failure.reason.as_ref().is_some_and(|reason| reason.code == "owner-list-kept-at-broker");
    match kept.filter(|_| is_kept) {
        Some(path) => RefreshError::Kept { name: name.to_owned(), path: path.to_string(), failure },
        None => failure.into(),
    }
}

impl Engine {
    /// Brings the guest of a box this list. Gives the sequence that counts then.
    ///
    /// # Errors
    /// [`RefreshError`]; whoever was an owner is one still.
    pub async fn put_owners(&self, word: &str, list: Vec<u8>, trust: &Trust) -> Result<u64, RefreshError> {
        let guest = self.guest(word)?;
        let connection = self.connect(&guest, trust).await?;
        let document = self.document_of(&guest, &connection)?;
        let answer = OwnerClient::new(connection.channel()).put_owners(PutOwnersRequest { list }).await;
        let kept = document.spec().owner_authority.as_ref().and_then(|authority| authority.kept.as_ref());
        let refused = |status| not_brought(&guest.name(), kept, agent::of_status(&status));
        Ok(answer.map_err(refused)?.into_inner().sequence)
    }

    /// Asks the guest of a box who its owners are. Nothing where they are the spec's, and no list can say otherwise.
    ///
    /// # Errors
    /// [`RefreshError`].
    pub async fn owners_in_force(&self, word: &str, trust: &Trust) -> Result<Option<OwnersTold>, RefreshError> {
        let connection = self.connect(&self.guest(word)?, trust).await?;
        let answer = OwnerClient::new(connection.channel()).owners(OwnersRequest {}).await;
        let answer = answer.map_err(|status| match status.code() {
            Code::Unimplemented => {
                let message = "the guest's agent does not say who its owners are: it is older than this command";
                Failure::new(Class::Config, message).hint("start the box anew from a platform of today")
            }
            _ => agent::of_status(&status),
        });
        Ok(answer?.into_inner().owners.map(OwnersTold::read))
    }
}

#[cfg(test)]
mod tests {
    use coffer_rim::Reason;

    use super::super::{Fault as _, Hint};
    use super::*;

    #[test]
    fn a_list_that_the_broker_keeps_is_put_there_and_its_path_is_said() {
        let path: SecretPath = "kbs:///default/owners/prod".parse().unwrap();
        let refused = |code: &str| Failure {
            reason: Some(Reason { code: code.to_owned(), denial_id: None }),
            ..Failure::new(Class::Config, "the spec says that the key broker keeps the list")
        };
        let refused_here = not_brought("team", Some(&path), refused("owner-list-kept-at-broker"));
        let put = Hint::PutAtBroker { name: "team".into(), path: path.to_string() };
        assert_eq!((refused_here.class(), refused_here.hint()), (Class::Config, Some(put)));
        assert_eq!(refused_here.reason().map(|reason| reason.code).as_deref(), Some("owner-list-kept-at-broker"));
        assert!(not_brought("team", Some(&path), refused("owner-list-older")).hint().is_none());
    }
}
