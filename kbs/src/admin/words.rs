//! Words of requests as values, and of failures as answers: a field that means nothing is refused by its name.

use coffer_verifier::{
    Expiry,
    abi::{Measurement, WordError, WorkloadDigest},
};
use tonic::{Code, Status};

use crate::{
    store::{AuditEntry, GuestFacts, StoreError},
    tenant::Tenant,
};

/// Longest name for people, in bytes.
const NAME_LIMIT: usize = 128;

pub(super) fn reference_entry(
    event: &'static str,
    tenant: &Tenant,
    measurement: &Measurement,
    workload: &WorkloadDigest,
) -> AuditEntry {
    let guest = GuestFacts {
        measurement: measurement.to_string(),
        workload_digest: workload.to_string(),
        ..GuestFacts::default()
    };
    AuditEntry { event, tenant: Some(tenant.to_string()), guest: Some(guest), ..AuditEntry::default() }
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
pub(super) fn tenant(text: &str) -> Result<Tenant, Status> {
    Tenant::parse(text).map_err(|error| Status::invalid_argument(format!("tenant: {error}")))
}

/// A name for people, if there is one. One that is there says something.
#[allow(clippy::result_large_err, reason = "tonic's own error type")]
pub(super) fn name(field: &str, text: Option<String>) -> Result<Option<String>, Status> {
    let Some(text) = text else { return Ok(None) };
    if text.is_empty() {
        return Err(Status::invalid_argument(format!("{field} is empty; leave it out, or say something")));
    }
    if text.len() > NAME_LIMIT || text.chars().any(char::is_control) {
        let message = format!("{field} has control characters or over {NAME_LIMIT} bytes");
        return Err(Status::invalid_argument(message));
    }
    Ok(Some(text))
}

/// A name that must be there.
#[allow(clippy::result_large_err, reason = "tonic's own error type")]
pub(super) fn needed(field: &str, text: String) -> Result<String, Status> {
    name(field, Some(text)).map(Option::unwrap_or_default)
}

/// A number that means something where it is given.
#[allow(clippy::result_large_err, reason = "tonic's own error type")]
pub(super) fn non_zero<N: Default + PartialEq>(field: &str, number: Option<N>) -> Result<Option<N>, Status> {
    match number {
        Some(zero) if zero == N::default() => {
            Err(Status::invalid_argument(format!("{field} is 0; leave it out, or give 1 or more")))
        }
        other => Ok(other),
    }
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
pub(super) fn pair(measurement: &[u8], workload: &[u8]) -> Result<(Measurement, WorkloadDigest), Status> {
    let word = |field, error: WordError| Status::invalid_argument(format!("{field}: {error}"));
    let measurement = Measurement::try_from(measurement).map_err(|error| word("measurement", error))?;
    let workload = WorkloadDigest::try_from(workload).map_err(|error| word("workload_digest", error))?;
    for (field, zero) in [("measurement", measurement.is_zero()), ("workload_digest", workload.is_zero())] {
        if zero {
            return Err(Status::invalid_argument(format!("{field}: a zero digest never matches")));
        }
    }
    Ok((measurement, workload))
}

/// Rows that are believed, and why others are not, in words: one that is damaged hides no other.
pub(super) fn sorted<T>(rows: Vec<Result<T, StoreError>>) -> (Vec<T>, Vec<String>) {
    let (mut believed, mut damaged) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in rows {
        match row {
            Ok(row) => believed.push(row),
            Err(error) => {
                tracing::error!(error = %coffer_rim::chain(&error), hint = error.hint(), "stored row is not believed");
                damaged.push(format!("{}; {}", coffer_rim::chain(&error), error.hint()));
            }
        }
    }
    (believed, damaged)
}

/// An expiry as it is sent.
pub(super) fn seconds(expires: Expiry) -> Option<i64> {
    match expires {
        Expiry::Never => None,
        Expiry::At(_) => Some(expires.to_secs()),
    }
}

/// The operator may know what is wrong with the store.
#[allow(clippy::needless_pass_by_value, reason = "stands in map_err")]
pub(super) fn store_status(error: StoreError) -> Status {
    let code = match &error {
        StoreError::Version { .. }
        | StoreError::Minimum { .. }
        | StoreError::Expired { .. }
        | StoreError::OlderManifest { .. }
        | StoreError::RevokedManifest { .. }
        | StoreError::OlderRelease { .. }
        | StoreError::RevokedRelease { .. }
        | StoreError::SameSequence { .. } => Code::FailedPrecondition,
        StoreError::Tampered { .. } | StoreError::Audit(_) | StoreError::State(_) => Code::DataLoss,
        _ => Code::Internal,
    };
    if code != Code::FailedPrecondition {
        tracing::error!(error = %coffer_rim::chain(&error), "admin call failed");
    }
    Status::new(code, format!("{}; {}", coffer_rim::chain(&error), error.hint()))
}

pub(crate) fn fresh_id() -> String {
    let mut bytes = [0; 8];
    // The id only joins lines for a reader.
    let _ = getrandom::fill(&mut bytes);
    hex::encode(bytes)
}
