//! The initdata document around the spec: written once, then only read; never written again from what was parsed.

use coffer_machine::spec_disk::DOCUMENT_LIMIT;
use coffer_verifier::abi::WorkloadDigest;
use serde::{Deserialize, Serialize};

use crate::{SpecError, WorkloadSpec, check::check};

/// A parsed spec with the bytes it was parsed from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    bytes: Vec<u8>,
    digest: WorkloadDigest,
    spec: WorkloadSpec,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Initdata {
    version: String,
    algorithm: String,
    data: Data,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    #[serde(rename = "workload.toml")]
    workload: String,
}

impl Document {
    /// Longest document, in bytes: what a guest reads of its spec disk.
    pub const LIMIT: usize = DOCUMENT_LIMIT;

    /// Writes a spec as a document.
    ///
    /// # Errors
    /// [`SpecError`] if the spec breaks a rule of its own.
    pub fn write(spec: &WorkloadSpec) -> Result<Self, SpecError> {
        let workload =
            toml::to_string(spec).map_err(|e| SpecError::Toml { part: "workload.toml", message: e.to_string() })?;
        let outer = Initdata { version: INITDATA_VERSION.into(), algorithm: ALGORITHM.into(), data: Data { workload } };
        let text = toml::to_string(&outer).map_err(|e| SpecError::Toml { part: "initdata", message: e.to_string() })?;
        Self::parse(text.into_bytes())
    }

    /// Parses a document; the digest is over exactly these bytes.
    ///
    /// # Errors
    /// [`SpecError`] names the part and the field.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, SpecError> {
        if bytes.len() > Self::LIMIT {
            return Err(SpecError::TooLong { found: bytes.len(), limit: Self::LIMIT });
        }
        let text = core::str::from_utf8(&bytes).map_err(|_| SpecError::Encoding)?;
        let outer: Initdata =
            toml::from_str(text).map_err(|e| SpecError::Toml { part: "initdata", message: e.to_string() })?;
        require("version", &outer.version, INITDATA_VERSION)?;
        require("algorithm", &outer.algorithm, ALGORITHM)?;
        let spec: WorkloadSpec = toml::from_str(&outer.data.workload)
            .map_err(|e| SpecError::Toml { part: "workload.toml", message: e.to_string() })?;
        check(&spec)?;
        let digest = WorkloadDigest::of(&bytes);
        Ok(Self { bytes, digest, spec })
    }

    /// The raw bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 over the raw bytes.
    pub fn digest(&self) -> WorkloadDigest {
        self.digest
    }

    /// What they say.
    pub fn spec(&self) -> &WorkloadSpec {
        &self.spec
    }
}

const INITDATA_VERSION: &str = "0.1.0";
const ALGORITHM: &str = "sha256";

fn require(field: &'static str, found: &str, expected: &'static str) -> Result<(), SpecError> {
    if found == expected { Ok(()) } else { Err(SpecError::Field { field, found: format!("{found:?}"), expected }) }
}

#[cfg(test)]
mod fields;
#[cfg(test)]
mod tests;
