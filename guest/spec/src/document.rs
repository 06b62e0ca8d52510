//! The initdata document around the spec: written once, then only read; never written again from what was parsed.

use coffer_verifier::abi::WorkloadDigest;
use serde::{Deserialize, Serialize};

use crate::{Tee, WorkloadSpec};

/// Why a document is no workload spec.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// Longer than a spec may be.
    #[error("workload spec has {found} bytes, more than {limit}")]
    TooLong {
        /// Bytes given.
        found: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Not UTF-8.
    #[error("workload spec is not UTF-8")]
    Encoding,
    /// Not the TOML it should be.
    #[error("workload spec, {part}: {message}")]
    Toml {
        /// Which document.
        part: &'static str,
        /// The parser's words.
        message: String,
    },
    /// A field holds what it may not.
    #[error("workload spec field {field} is {found}, expected {expected}")]
    Field {
        /// Field name.
        field: &'static str,
        /// What stands there.
        found: String,
        /// What may stand there.
        expected: &'static str,
    },
}

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
    /// Longest document, in bytes.
    pub const LIMIT: usize = 256 * 1024;

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

fn check(spec: &WorkloadSpec) -> Result<(), SpecError> {
    let field = |field, found: &dyn core::fmt::Debug, expected| {
        Err(SpecError::Field { field, found: format!("{found:?}"), expected })
    };
    if spec.version != 1 {
        return field("version", &spec.version, "1");
    }
    if !is_name(&spec.tenant) {
        return field("tenant", &spec.tenant, NAME_RULE);
    }
    if spec.process.argv.first().is_none_or(String::is_empty) {
        return field("process.argv", &spec.process.argv, "at least a program");
    }
    if let Some(bad) = spec.process.env.iter().find(|entry| entry.find('=').is_none_or(|at| at == 0)) {
        return field("process.env", bad, "NAME=value");
    }
    if !spec.process.cwd.starts_with('/') {
        return field("process.cwd", &spec.process.cwd, "an absolute path");
    }
    if !(1..=64).contains(&spec.process.stop_signal) {
        return field("process.stop_signal", &spec.process.stop_signal, "1 to 64");
    }
    let verity = &spec.root.verity;
    if verity.algorithm != "sha256" {
        return field("root.verity.algorithm", &verity.algorithm, "sha256");
    }
    if verity.block_size != 4096 {
        return field("root.verity.block_size", &verity.block_size, "4096");
    }
    if verity.data_blocks == 0 || verity.hash_start < verity.data_blocks {
        return field("root.verity.hash_start", &verity.hash_start, "a block behind the data");
    }
    if hex::decode(&verity.root_hash).map_or(0, |hash| hash.len()) != 32 {
        return field("root.verity.root_hash", &verity.root_hash, "64 hex digits");
    }
    if hex::decode(&verity.salt).is_err() || verity.salt.len() > 512 {
        return field("root.verity.salt", &verity.salt, "at most 512 hex digits");
    }
    if spec.tee == Tee::None && (spec.kbs.is_some() || !spec.secrets.is_empty()) {
        return field("tee", &spec.tee, "snp or simulated, where a key broker or secrets are named");
    }
    if !spec.secrets.is_empty() && spec.kbs.is_none() {
        return field("kbs", &"absent", "a key broker, where secrets are named");
    }
    if let Some(kbs) = &spec.kbs
        && !(1..=2).contains(&kbs.spki.len())
    {
        return field("kbs.spki", &kbs.spki.len(), "one or two pins");
    }
    for wanted in &spec.secrets {
        if !is_secret_path(&wanted.from) {
            return field("secrets.from", &wanted.from, "kbs:///repository/type/tag");
        }
        let (crate::SecretTarget::File(name) | crate::SecretTarget::Env(name)) = &wanted.to;
        if !is_name(name) {
            return field("secrets.to", name, NAME_RULE);
        }
    }
    let mut targets: Vec<_> = spec.secrets.iter().map(|wanted| format!("{:?}", wanted.to)).collect();
    targets.sort_unstable();
    targets.dedup();
    if targets.len() != spec.secrets.len() {
        return field("secrets.to", &"the same place twice", "each place once");
    }
    if let Some(bad) = spec.inject.iter().find(|name| !is_name(name)) {
        return field("inject", bad, NAME_RULE);
    }
    if let Some(bad) = spec.mounts.iter().find(|mount| !mount.path.starts_with('/') || mount.path.contains("..")) {
        return field("mounts.path", &bad.path, "an absolute path without ..");
    }
    if !spec.floors.seal.min_tcb.is_empty() && hex::decode(&spec.floors.seal.min_tcb).map_or(0, |tcb| tcb.len()) != 8 {
        return field("floors.seal.min_tcb", &spec.floors.seal.min_tcb, "16 hex digits or nothing");
    }
    Ok(())
}

const NAME_RULE: &str = "1 to 64 of [A-Za-z0-9_.-], not starting with . or -";

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

fn is_secret_path(text: &str) -> bool {
    text.strip_prefix("kbs:///").is_some_and(|rest| {
        let segments: Vec<_> = rest.split('/').collect();
        segments.len() == 3 && segments.iter().all(|segment| is_name(segment))
    })
}

#[cfg(test)]
mod tests;
