//! What policies saw of decisions, beside the trail: rows that decide nothing, and so are bound to nothing. The line of a
//! decision names the SHA-256 of its row; whoever reads one compares it.
//!
//! Never: takes a row for the input of a line that is not there; stops at what somebody else planted among them.

use std::collections::{BTreeMap, VecDeque};

use coffer_kbs_client::trail::InputOf;
use coffer_verifier::binding::length_prefixed;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{
    StoreError,
    known::every,
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

impl KeptInput {
    /// What the line names: SHA-256 of all that is kept, hex.
    pub fn digest(&self) -> String {
        hex::encode(Sha256::digest(self.body()))
    }

    /// One byte, whether something beside the policy spoke against it, and the JSON.
    fn body(&self) -> Vec<u8> {
        [&[u8::from(self.refused_beside)], self.json.as_bytes()].concat()
    }

    /// What is no input of ours is one that no line names.
    fn read(line: u64, body: &[u8]) -> Self {
        let (flag, json) = body.split_first().unwrap_or((&1, &[]));
        Self { line, refused_beside: *flag != 0, json: String::from_utf8_lossy(json).into_owned() }
    }
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
        let row = Row { body: input.body(), mac: Vec::new() };
        Ok(self.transaction.put(Kind::DecisionInput, &key(tenant, input.line), row).await?)
    }

    /// Throws one away.
    ///
    /// # Errors
    /// As the store.
    pub async fn drop_input(&mut self, tenant: &Tenant, line: u64) -> Result<(), StoreError> {
        Ok(self.transaction.remove(Kind::DecisionInput, &key(tenant, line)).await?)
    }

    /// The input of a line, if it is kept and what the line names: `named`.
    pub(super) async fn input_of(
        &mut self,
        tenant: &Tenant,
        line: u64,
        named: &str,
    ) -> Result<Option<InputOf>, StoreError> {
        let row = self.transaction.get(Kind::DecisionInput, &key(tenant, line)).await?;
        let kept = row.map(|row| KeptInput::read(line, &row.body)).filter(|kept| kept.digest() == named);
        Ok(kept.map(|kept| InputOf { input_of: line, refused_beside: kept.refused_beside, input: kept.json }))
    }

    /// Inputs of a tenant from a line on, oldest first, of lines that are there.
    ///
    /// # Errors
    /// As the store.
    pub async fn inputs(&mut self, tenant: &Tenant, from: u64, limit: usize) -> Result<Vec<KeptInput>, StoreError> {
        let from = from.max(self.trail_start().archived + 1);
        let (mut found, mut from) = (Vec::new(), key(tenant, from));
        let last = key(tenant, self.head.lines);
        while found.len() < limit {
            let wanted = limit - found.len();
            let rows = self.transaction.from(Kind::DecisionInput, &from, wanted).await?;
            let end = rows.len() < wanted || rows.last().is_some_and(|(key, _)| *key > last);
            if let Some((key, _)) = rows.last() {
                from = [key.as_slice(), &[0]].concat();
            }
            let rows = rows.iter().take_while(|(key, _)| *key <= last);
            found.extend(rows.filter_map(|(key, row)| Some(KeptInput::read(line_of(key)?.1, &row.body))));
            if end {
                break;
            }
        }
        Ok(found)
    }

    /// Numbers of lines whose input should be kept, and is gone: of each tenant's last ones.
    pub(super) async fn inputs_that_are_gone(&mut self) -> Result<Vec<u64>, StoreError> {
        let mut named: BTreeMap<Tenant, VecDeque<u64>> = BTreeMap::new();
        let mut from = self.trail_start().archived + 1;
        loop {
            let rows = self.lines(from, BATCH).await?;
            let last = rows.len() < BATCH;
            for (key, row) in rows {
                let Ok(number) = key.as_slice().try_into().map(u64::from_be_bytes) else { continue };
                from = number.saturating_add(1);
                let Ok(Line { tenant: Some(tenant), input: Some(_) }) = serde_json::from_slice(&row.body) else {
                    continue;
                };
                let Ok(tenant) = Tenant::parse(&tenant) else { continue };
                let lines = named.entry(tenant).or_default();
                lines.push_back(number);
                if lines.len() > KEPT_INPUTS {
                    lines.pop_front();
                }
            }
            if last {
                break;
            }
        }
        let mut gone = Vec::new();
        for (tenant, lines) in named {
            for line in lines {
                if self.transaction.get(Kind::DecisionInput, &key(&tenant, line)).await?.is_none() {
                    gone.push(line);
                }
            }
        }
        gone.sort_unstable();
        Ok(gone)
    }

    /// Rows of this kind that no line names, in words, with their keys.
    pub(super) async fn inputs_of_no_line(&mut self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let mut found = Vec::new();
        for (key, row) in every(&mut self.transaction, Kind::DecisionInput).await? {
            let Some((tenant, line)) = line_of(&key) else {
                found.push(("what a policy saw of no decision".to_owned(), key));
                continue;
            };
            if line <= self.trail_start().archived {
                // Of a line that is archived: nobody reads it, and the next archive takes it away.
                continue;
            }
            let text = self.audit_line(line).await?;
            let of = text.as_deref().and_then(|text| serde_json::from_str::<Line>(text).ok());
            let named = of.filter(|of| of.tenant.as_ref() == Some(&tenant)).and_then(|of| of.input);
            if named != Some(KeptInput::read(line, &row.body).digest()) {
                found.push((format!("what a policy saw of the decision of line {line}"), key));
            }
        }
        Ok(found)
    }
}

/// Inputs of one tenant that are kept.
pub const KEPT_INPUTS: usize = 1000;
/// Lines read at once.
const BATCH: usize = 1000;

/// What is looked at of a line.
#[derive(Deserialize)]
struct Line {
    tenant: Option<String>,
    input: Option<String>,
}

/// Tenant and line of a key.
fn line_of(key: &[u8]) -> Option<(String, u64)> {
    let mut fields = Fields(key);
    let of = (fields.text()?, fields.unsigned()?);
    fields.end(of)
}

fn key(tenant: &Tenant, line: u64) -> Vec<u8> {
    length_prefixed(&[tenant.as_str().as_bytes(), &line.to_be_bytes()])
}
