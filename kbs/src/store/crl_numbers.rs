//! The highest revocation list number that was believed, per root: an older list is never believed again, also after a
//! restart.

use coffer_verifier::{abi::SpkiDigest, binding::length_prefixed};

use super::{
    StoreError,
    ledger::Ledger,
    record::{Fields, Record, RowKey},
    rows::Kind,
};

struct CrlNumber(u64);

impl Record for CrlNumber {
    fn encode(&self) -> Vec<u8> {
        length_prefixed(&[&self.0.to_be_bytes()])
    }

    fn decode(_: &RowKey, body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let number = Self(fields.unsigned()?);
        fields.end(number)
    }
}

impl Ledger {
    /// The highest number believed under a root.
    ///
    /// # Errors
    /// As the store.
    pub async fn crl_number(&mut self, root: &SpkiDigest) -> Result<Option<u64>, StoreError> {
        Ok(self.record::<CrlNumber>(&key(root)).await?.map(|number| number.0))
    }

    /// The root of every number that was seen, whether or not its list is stored.
    pub fn crl_roots(&mut self) -> Vec<SpkiDigest> {
        let keys = self.global_keys(Kind::CrlNumber);
        keys.iter().filter_map(|key| SpkiDigest::try_from(key.part(0)).ok()).collect()
    }

    /// Raises it. Gives what counts now: `number`, or a higher one that was there.
    ///
    /// # Errors
    /// As the store.
    pub async fn raise_crl_number(&mut self, root: &SpkiDigest, number: u64) -> Result<u64, StoreError> {
        match self.crl_number(root).await? {
            Some(there) if there >= number => Ok(there),
            _ => {
                self.put_record(key(root), &CrlNumber(number)).await?;
                Ok(number)
            }
        }
    }
}

fn key(root: &SpkiDigest) -> RowKey {
    RowKey::global(Kind::CrlNumber, &[root.as_bytes()])
}
