//! Lists of owners: brings a guest one that the authority of its spec signed, and asks which one is in force.

use coffer_guest_proto::owner_client::OwnerClient;
use coffer_guest_proto::{OwnersAre, OwnersInForce, OwnersRequest, PutOwnersRequest};
use coffer_rim::foreign::foreign_at_most;
use coffer_verifier::UnixTime;
use tonic::Code;

use super::prove::must_run;
use super::refresh::RefreshError;
use super::{Engine, Trust};
use crate::{Class, Failure, agent};

/// Who the owners of a guest are, as it says itself to one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnersTold {
    /// `spec`, `list`, `spec-and-list` or `nobody`.
    pub are: &'static str,
    /// Of the list in force; where nobody is an owner, of the newest that was known.
    pub sequence: Option<u64>,
    /// When the list in force ends.
    pub expires: Option<UnixTime>,
    /// SHA-256 of what the authority signed.
    pub digest: Option<String>,
    /// Why the last look at the key broker took no list: a word, and more of them.
    pub refused: Option<(String, String)>,
}

/// Characters of what a guest says.
const WORD: usize = 64;
const WHY: usize = 400;

impl OwnersTold {
    pub(super) fn read(told: OwnersInForce) -> Self {
        let are = match told.are() {
            OwnersAre::OfSpec => "spec",
            OwnersAre::OfList => "list",
            OwnersAre::OfSpecAndList => "spec-and-list",
            OwnersAre::Nobody => "nobody",
            OwnersAre::Unspecified => "unknown",
        };
        let in_force = told.digest.len() == 32;
        Self {
            are,
            sequence: (told.sequence != 0).then_some(told.sequence),
            expires: in_force.then(|| UnixTime::from_secs(told.expires)),
            digest: in_force.then(|| hex::encode(&told.digest)),
            refused: told.refused.map(|it| (foreign_at_most(&it.word, WORD), foreign_at_most(&it.why, WHY))),
        }
    }
}

impl Engine {
    /// Brings the guest of a box this list. Gives the sequence that counts then.
    ///
    /// # Errors
    /// [`RefreshError`]; whoever was an owner is one still.
    pub async fn put_owners(&self, word: &str, list: Vec<u8>, trust: &Trust) -> Result<u64, RefreshError> {
        let record = self.find(word)?;
        must_run(&record)?;
        let connection = self.connect(&record, trust).await?;
        let answer = OwnerClient::new(connection.channel()).put_owners(PutOwnersRequest { list }).await;
        Ok(answer.map_err(|status| agent::of_status(&status))?.into_inner().sequence)
    }
    /// Asks the guest of a box who its owners are. Nothing where they are the spec's, and no list can say otherwise.
    ///
    /// # Errors
    /// [`RefreshError`].
    pub async fn owners_in_force(&self, word: &str, trust: &Trust) -> Result<Option<OwnersTold>, RefreshError> {
        let record = self.find(word)?;
        must_run(&record)?;
        let connection = self.connect(&record, trust).await?;
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
    use coffer_guest_proto::RefusedOwnerList;

    use super::*;

    #[test]
    fn what_a_guest_says_is_bounded_and_harmless() {
        let hostile = "\u{1b}[2J\n".repeat(10_000);
        let refused = Some(RefusedOwnerList { word: hostile.clone(), why: hostile });
        let told = OwnersInForce { are: 77, digest: vec![1; 5_000], refused, ..OwnersInForce::default() };
        let told = OwnersTold::read(told);
        assert_eq!((told.are, told.sequence, told.expires, &told.digest), ("unknown", None, None, &None));
        let (word, why) = told.refused.unwrap();
        assert!(word.len() < 1_000 && why.len() < 5_000 && ![word, why].concat().contains(char::is_control));
    }
}
