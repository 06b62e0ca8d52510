//! `coffer measure --manifest`: a signed reference manifest of one workload, for the key broker.

use std::path::PathBuf;

use coffer_platform::files::Platform;
use coffer_runtime::signing_key::{KeyPurpose, SigningKey, write_over};
use coffer_spec::Document;
use coffer_verifier::UnixTime;
use coffer_verifier::manifest::{Component, Contents, MeasuredLaunch, ReferenceManifest, SignedManifest};

use crate::error::{Class, Classify as _, CliError};
use crate::measure::{VCPU_TYPES, measurement};

/// The manifest to write.
#[derive(Debug, clap::Args)]
pub struct ManifestArgs {
    /// Write a signed reference manifest of these launches, for `coffer kbs manifest add`.
    #[arg(long, value_name = "OUT", requires = "sign", conflicts_with = "firmware", help_heading = "Manifest")]
    pub manifest: Option<PathBuf>,
    /// Private manifest key, from `coffer manifest keygen`.
    #[arg(long, value_name = "KEY", requires = "manifest", help_heading = "Manifest")]
    sign: Option<PathBuf>,
    /// Name of the manifest; a later one of a name replaces the earlier [default: the image's reference].
    #[arg(long, value_name = "NAME", requires = "manifest", help_heading = "Manifest")]
    name: Option<String>,
    /// Number that grows within a name; a broker refuses an older one [default: seconds since 1970].
    #[arg(long, value_name = "N", requires = "manifest", help_heading = "Manifest")]
    sequence: Option<u64>,
    /// From when on it admits nothing: a time like 2027-01-01T00:00:00Z, or 90d, 12h, 30m from now [default: 90d].
    #[arg(long, value_name = "WHEN", requires = "manifest", value_parser = Expiry::parse, help_heading = "Manifest")]
    expires: Option<Expiry>,
}

/// When a manifest ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expiry {
    At(UnixTime),
    /// Seconds from now.
    After(i64),
}

impl Expiry {
    fn parse(text: &str) -> Result<Self, String> {
        let expected = "expected a time like 2027-01-01T00:00:00Z, or a duration like 90d, 12h or 30m";
        let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
        for (unit, seconds) in units {
            if let Some(count) = text.strip_suffix(unit).and_then(|count| count.parse::<u32>().ok()) {
                let span = i64::from(count) * seconds;
                return if span > 0 { Ok(Self::After(span)) } else { Err(expected.into()) };
            }
        }
        UnixTime::parse(text).map(Self::At).map_err(|_| expected.into())
    }
}

/// Counts of virtual processors every manifest holds, beside the one asked for.
const VCPU_COUNTS: [u32; 4] = [1, 2, 4, 8];
const LIFETIME: i64 = 90 * 86_400;

impl ManifestArgs {
    /// Signs and writes the manifest, if one is asked for.
    pub fn write(&self, platform: &Platform, document: &Document, vcpus: u32) -> Result<Option<Written>, CliError> {
        let (Some(out), Some(key)) = (&self.manifest, &self.sign) else { return Ok(None) };
        let key = SigningKey::read(key, KeyPurpose::Manifest)?;
        let manifest = self.manifest(platform, document, vcpus, UnixTime::from(std::time::SystemTime::now()))?;
        let envelope = SignedManifest::of(&manifest);
        let signature = key.sign(&envelope.signing_input())?;
        let envelope = envelope.with_signature(key.public(), signature);
        // Public: whoever launches, audits or runs a broker may read it.
        write_over(out, format!("{}\n", envelope.to_json()).as_bytes(), 0o644)?;
        Ok(Some(Written { file: out.clone(), manifest, key: key.public().spki_digest() }))
    }

    fn manifest(
        &self,
        platform: &Platform,
        document: &Document,
        vcpus: u32,
        now: UnixTime,
    ) -> Result<ReferenceManifest, CliError> {
        let mut counts: Vec<u32> = VCPU_COUNTS.into_iter().chain([vcpus]).collect();
        counts.sort_unstable();
        counts.dedup();
        let mut measurements = Vec::new();
        for vcpu_type in VCPU_TYPES {
            for vcpus in &counts {
                measurements.push(MeasuredLaunch {
                    vcpus: *vcpus,
                    vcpu_type: (*vcpu_type).into(),
                    measurement: measurement(platform, document, document.spec().tee, *vcpus, vcpu_type)?,
                });
            }
        }
        ReferenceManifest::new(Contents {
            name: self.name.clone().unwrap_or_else(|| document.spec().image.reference.clone()),
            sequence: self.sequence.unwrap_or_else(|| u64::try_from(now.0).unwrap_or(0)),
            created: now,
            expires: match self.expires {
                Some(Expiry::At(time)) => time,
                Some(Expiry::After(span)) => UnixTime(now.0 + span),
                None => UnixTime(now.0 + LIFETIME),
            },
            components: components(platform)?,
            workload: document.digest(),
            measurements,
        })
        .class(Class::Usage)
    }
}

/// What was written.
pub struct Written {
    /// Where.
    pub file: PathBuf,
    /// What it says.
    pub manifest: ReferenceManifest,
    /// SHA-256 of the SubjectPublicKeyInfo that signed it.
    pub key: coffer_verifier::abi::SpkiDigest,
}

/// Every file of the platform, as its own manifest names it.
fn components(platform: &Platform) -> Result<Vec<Component>, CliError> {
    let files = &platform.manifest;
    let named =
        [("stage0", &files.stage0), ("kernel", &files.kernel), ("initrd", &files.initrd), ("init", &files.init)];
    let named = named.into_iter().map(|(name, digest)| (name.to_owned(), digest));
    let modules = files.modules.iter().map(|(name, digest)| (format!("module {name}"), digest));
    named
        .chain(modules)
        .map(|(name, digest)| {
            let sha256 = hex::decode(digest).ok().and_then(|bytes| bytes.try_into().ok());
            let wrong = || CliError::new(Class::Config, format!("platform.json has no SHA-256 for {name}"));
            Ok(Component { sha256: sha256.ok_or_else(wrong)?, name })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_a_time_or_a_span() {
        assert_eq!(Expiry::parse("90d"), Ok(Expiry::After(90 * 86_400)));
        assert_eq!(Expiry::parse("12h"), Ok(Expiry::After(43_200)));
        assert_eq!(Expiry::parse("30m"), Ok(Expiry::After(1_800)));
        assert_eq!(Expiry::parse("1970-01-01T00:00:10Z"), Ok(Expiry::At(UnixTime(10))));
        for bad in ["", "d", "0d", "-1d", "1.5h", "90", "tomorrow", "99999999999d"] {
            assert!(Expiry::parse(bad).is_err(), "{bad}");
        }
    }
}
