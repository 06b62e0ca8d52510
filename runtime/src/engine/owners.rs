//! Lists of owners: brings a guest one that the authority of its spec signed, and asks which one is in force.

use coffer_guest_proto::owner_client::OwnerClient;
use coffer_guest_proto::{OwnersRequest, PutOwnersRequest};
use tonic::Code;

use super::owners_told::OwnersTold;
use super::prove::must_run;
use super::refresh::RefreshError;
use super::{Engine, Trust};
use crate::{Class, Failure, agent};

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
