//! Revocation lists that operators brought: the newest of each root, for evidence that carries none or an older one.

use coffer_verifier::{abi::SpkiDigest, binding::length_prefixed};

use super::{
    StoreError,
    ledger::Ledger,
    record::{Fields, Record, RowKey},
    rows::Kind,
};

/// A list as an operator brought it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCrl {
    /// Whose it is.
    pub root: SpkiDigest,
    /// DER.
    pub der: Vec<u8>,
    /// Who brought it.
    pub by: String,
    /// When.
    pub put_unix: i64,
}

impl Record for StoredCrl {
    fn encode(&self) -> Vec<u8> {
        length_prefixed(&[&self.der, self.by.as_bytes(), &self.put_unix.to_be_bytes()])
    }

    fn decode(key: &RowKey, body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let list = Self {
            root: SpkiDigest::try_from(key.part(0)).ok()?,
            der: fields.bytes()?.to_vec(),
            by: fields.text()?,
            put_unix: fields.signed()?,
        };
        fields.end(list)
    }
}

impl Ledger {
    /// Keeps a list, in place of an older one of its root.
    ///
    /// # Errors
    /// As the store.
    pub async fn put_crl(&mut self, list: &StoredCrl) -> Result<(), StoreError> {
        self.put_record(key(&list.root), list).await
    }

    /// The list of a root.
    ///
    /// # Errors
    /// As the store.
    pub async fn crl(&mut self, root: &SpkiDigest) -> Result<Option<StoredCrl>, StoreError> {
        self.record(&key(root)).await
    }

    /// Takes the list of a root away, believed or not. True if there was one. What was seen of the root stays.
    ///
    /// # Errors
    /// As the store.
    pub async fn remove_crl(&mut self, root: &SpkiDigest) -> Result<bool, StoreError> {
        self.remove_record(key(root)).await
    }

    /// Every list.
    ///
    /// # Errors
    /// As the store.
    pub async fn crls(&mut self) -> Result<Vec<Result<StoredCrl, StoreError>>, StoreError> {
        let keys = self.global_keys(Kind::Crl);
        self.records(keys).await
    }
}

fn key(root: &SpkiDigest) -> RowKey {
    RowKey::global(Kind::Crl, &[root.as_bytes()])
}
