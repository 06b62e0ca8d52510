//! Brings a guest a list of owners that the authority of its spec signed.

use coffer_guest_proto::PutOwnersRequest;
use coffer_guest_proto::owner_client::OwnerClient;

use super::prove::must_run;
use super::refresh::RefreshError;
use super::{Engine, Trust};
use crate::agent;

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
}
