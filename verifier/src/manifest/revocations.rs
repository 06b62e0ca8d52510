//! What no manifest and no policy may be endorsed with any more: an operator's list of releases that turned out to be bad.
//!
//! Trusts: whoever wrote the file. Never: means nothing by an unknown key, or by a list whose time is over.

use serde::Deserialize;

use super::document::{Contents, ManifestError};
use crate::{
    Expiry, UnixTime,
    abi::{Measurement, WorkloadDigest},
};

/// Releases, measurements, workloads, files and policies that are revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocations {
    until: Expiry,
    manifests: Vec<(String, Option<u64>)>,
    measurements: Vec<Measurement>,
    workloads: Vec<WorkloadDigest>,
    components: Vec<String>,
    policies: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    until: String,
    #[serde(default)]
    manifests: Vec<FileManifest>,
    #[serde(default)]
    measurements: Vec<Measurement>,
    #[serde(default)]
    workloads: Vec<WorkloadDigest>,
    #[serde(default)]
    components: Vec<String>,
    #[serde(default)]
    policies: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileManifest {
    name: String,
    /// Of its author: what dates one anew does not lift it out. Left out: every sequence of the name, those to come included.
    up_to_sequence: Option<u64>,
}

impl Revocations {
    /// Reads the file. `until` is mandatory: a time, or the word `never` where the list counts for good.
    ///
    /// # Errors
    /// [`ManifestError`], naming the key.
    pub fn from_toml(text: &str) -> Result<Self, ManifestError> {
        let file: File = toml::from_str(text).map_err(|error| ManifestError::Json {
            part: "revocation list",
            message: crate::said::toml_error(text, &error),
        })?;
        let field = |field: String, expected| ManifestError::Field { field, expected };
        let until = match file.until.as_str() {
            "never" => Expiry::Never,
            time => Expiry::At(
                UnixTime::parse(time)
                    .map_err(|_| field("until".into(), "a time like 2026-09-20T00:00:00Z, or the word never"))?,
            ),
        };
        for (key, digests) in [("components", &file.components), ("policies", &file.policies)] {
            for (at, digest) in digests.iter().enumerate() {
                if hex::decode(digest).is_ok_and(|bytes| bytes.len() == 32 && hex::encode(bytes) == *digest) {
                    continue;
                }
                return Err(field(format!("{key}[{at}]"), "64 lower-case hexadecimal digits"));
            }
        }
        let manifests = file.manifests.into_iter().map(|one| (one.name, one.up_to_sequence)).collect();
        let File { measurements, workloads, components, policies, .. } = file;
        Ok(Self { until, manifests, measurements, workloads, components, policies })
    }

    /// Its time is over: somebody should have looked at it since.
    pub fn is_over(&self, now: UnixTime) -> bool {
        self.until.is_over(now)
    }

    /// Nothing is listed: all that it says is that somebody looked.
    pub fn is_empty(&self) -> bool {
        let Self { until: _, manifests, measurements, workloads, components, policies } = self;
        let digests = [components.is_empty(), policies.is_empty()];
        manifests.is_empty() && measurements.is_empty() && workloads.is_empty() && digests == [true, true]
    }

    /// A policy is listed, by the SHA-256 that names its texts.
    pub fn lists_policy(&self, digest: &[u8; 32]) -> bool {
        self.policies.contains(&hex::encode(digest))
    }

    /// What of a manifest is listed, in words; nothing if it may be endorsed.
    pub fn named_in(&self, contents: &Contents) -> Vec<String> {
        let mut named = Vec::new();
        let Contents { name, workload, measurements, components, .. } = contents;
        let release = contents.released();
        for (listed, up_to) in &self.manifests {
            match up_to {
                _ if listed != name => {}
                None => named.push(format!("{name}, whatever its sequence")),
                Some(up_to) if release <= *up_to => named.push(format!("{name} up to sequence {up_to}")),
                Some(_) => {}
            }
        }
        if self.workloads.contains(workload) {
            named.push(format!("workload {workload}"));
        }
        for launch in measurements {
            if self.measurements.contains(&launch.measurement) {
                named.push(format!("measurement {}", launch.measurement));
            }
        }
        for component in components {
            let digest = hex::encode(component.sha256);
            if self.components.contains(&digest) {
                named.push(format!("{} {digest}", component.name));
            }
        }
        named
    }
}

#[cfg(test)]
mod tests {
    use super::super::document::tests::contents;
    use super::*;

    #[test]
    fn each_kind_of_entry_names_what_it_is_about_and_nothing_else() {
        let named =
            |text: &str| Revocations::from_toml(&format!("until = \"never\"\n{text}")).unwrap().named_in(&contents());
        let one = |text: &str| {
            let named = named(text);
            assert_eq!(named.len(), 1, "{text}: {named:?}");
            named[0].clone()
        };
        assert_eq!(named(""), [""; 0]);
        let release = "[[manifests]]\nname = \"registry.example/web:1\"\nup_to_sequence = ";
        assert_eq!(one(&format!("{release}7")), "registry.example/web:1 up to sequence 7");
        assert_eq!(named(&format!("{release}6")), [""; 0]);
        let dated = Contents { sequence: 9, release: Some(7), ..contents() };
        let list = Revocations::from_toml(&format!("until = \"never\"\n{release}7")).unwrap();
        assert_eq!(list.named_in(&dated).len(), 1, "a later date lifts nothing out of a list");
        let every = "[[manifests]]\nname = \"registry.example/web:1\"\n";
        assert_eq!(one(every), "registry.example/web:1, whatever its sequence");
        assert_eq!(named("[[manifests]]\nname = \"web\"\nup_to_sequence = 7"), [""; 0]);
        assert!(one(&format!("workloads = [\"{}\"]", "02".repeat(32))).starts_with("workload 02"));
        assert!(one(&format!("measurements = [\"{}\"]", "05".repeat(48))).starts_with("measurement 05"));
        assert!(one(&format!("components = [\"{}\"]", "01".repeat(32))).starts_with("kernel 01"));
        assert_eq!(named(&format!("workloads = [\"{}\"]", "03".repeat(32))), [""; 0]);
    }

    #[test]
    fn a_policy_is_listed_by_the_digest_of_its_texts() {
        let list = Revocations::from_toml(&format!("until = \"never\"\npolicies = [\"{}\"]", "07".repeat(32))).unwrap();
        assert!(list.lists_policy(&[7; 32]) && !list.lists_policy(&[8; 32]));
        assert!(!list.is_empty() && Revocations::from_toml("until = \"never\"").unwrap().is_empty());
        assert_eq!(list.named_in(&contents()), [""; 0]);
    }

    #[test]
    fn a_list_says_how_long_it_counts_and_has_no_other_keys() {
        let until = |text: &str| Revocations::from_toml(&format!("until = \"{text}\""));
        let list = until("1970-01-01T00:16:40Z").unwrap();
        assert!(!list.is_over(UnixTime(999)) && list.is_over(UnixTime(1000)));
        assert!(!until("never").unwrap().is_over(UnixTime(i64::MAX)));
        for wrong in [
            "",
            "until = \"soon\"",
            "until = \"never\"\nmeasurments = []",
            "until = \"never\"\ncomponents = [\"AB\"]",
            "until = \"never\"\npolicies = [\"ab\"]",
        ] {
            assert!(Revocations::from_toml(wrong).is_err(), "{wrong}");
        }
    }
}
