//! What policies saw of decisions, beside the trail: rows that decide nothing, and so are bound to nothing. The line of a
//! decision names the SHA-256 of its input; whoever reads one compares it.

use coffer_verifier::binding::length_prefixed;

use super::{
    StoreError,
    ledger::Ledger,
    record::Fields,
    rows::{Kind, Row, Transaction as _},
};
use crate::tenant::Tenant;

/// The input of one decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptInput {
    /// Number of its line in the trail.
    pub line: u64,
    /// Something beside the policy spoke against it.
    pub refused_beside: bool,
    /// As the policy got it.
    pub json: String,
}

impl Ledger {
    /// The number that the next line of the trail gets.
    pub fn next_line(&self) -> u64 {
        self.head.lines + 1
    }

    /// Keeps an input, in place of one of its line.
    ///
    /// # Errors
    /// As the store.
    pub async fn put_input(&mut self, tenant: &Tenant, input: &KeptInput) -> Result<(), StoreError> {
        let body = [&[u8::from(input.refused_beside)], input.json.as_bytes()].concat();
        let row = Row { body, mac: Vec::new() };
        Ok(self.transaction.put(Kind::DecisionInput, &key(tenant, input.line), row).await?)
    }

    /// Throws one away.
    ///
    /// # Errors
    /// As the store.
    pub async fn drop_input(&mut self, tenant: &Tenant, line: u64) -> Result<(), StoreError> {
        Ok(self.transaction.remove(Kind::DecisionInput, &key(tenant, line)).await?)
    }

    /// Inputs of a tenant from a line on, oldest first.
    ///
    /// # Errors
    /// As the store.
    pub async fn inputs(&mut self, tenant: &Tenant, from: u64, limit: usize) -> Result<Vec<KeptInput>, StoreError> {
        let rows = self.transaction.from(Kind::DecisionInput, &key(tenant, from), limit).await?;
        let found = rows.into_iter().map_while(|(key, row)| {
            let mut fields = Fields(&key);
            let of = fields.text()?;
            let line = fields.unsigned()?;
            (of == tenant.as_str()).then(|| read(line, &row)).flatten()
        });
        Ok(found.collect())
    }
}

fn read(line: u64, row: &Row) -> Option<KeptInput> {
    let (flag, json) = row.body.split_first()?;
    Some(KeptInput { line, refused_beside: *flag != 0, json: String::from_utf8_lossy(json).into_owned() })
}

fn key(tenant: &Tenant, line: u64) -> Vec<u8> {
    length_prefixed(&[tenant.as_str().as_bytes(), &line.to_be_bytes()])
}
