//! The operator's side of revocation lists that evidence need not bring.

use coffer_verifier::abi::SpkiDigest;

use crate::{admin::AdminClient, error::ClientError, kbs::admin::v1, listed::Listed};

pub use v1::{CrlInfo, PutCrlResponse as PutCrl, SeenCrl};

impl AdminClient {
    /// Takes the list of a root away: whether there was one, and the number below which no list of that root is believed.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn remove_crl(&self, root: &SpkiDigest) -> Result<(bool, u64), ClientError> {
        let request = v1::RemoveCrlRequest { root: root.as_bytes().to_vec() };
        let answer = self.done(self.admin.clone().remove_crl(request)).await?;
        Ok((answer.existed, answer.seen))
    }

    /// Brings a list; `root`: the certificate of its root, where the broker has it not.
    ///
    /// # Errors
    /// [`ClientError::Rejected`] for one that is no believed root's, not fresh, or older than one that was seen.
    pub async fn put_crl(&self, crl: &[u8], root: Option<&[u8]>) -> Result<PutCrl, ClientError> {
        let request = v1::PutCrlRequest { crl: crl.to_vec(), root: root.map(<[u8]>::to_vec) };
        self.done(self.admin.clone().put_crl(request)).await
    }

    /// The lists that were brought; and, of roots of which none is kept, the highest number that was seen.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_crls(&self) -> Result<(Listed<CrlInfo>, Vec<SeenCrl>), ClientError> {
        let response = self.done(self.admin.clone().list_crls(v1::ListCrlsRequest {})).await?;
        Ok((Listed { rows: response.lists, damaged: response.damaged }, response.seen_alone))
    }
}
