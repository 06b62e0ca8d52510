//! `coffer measure --manifest`: a signed reference manifest of one workload, for the key broker.

use std::path::PathBuf;

use coffer_runtime::engine::{ManifestRequest, Measured};
use coffer_runtime::signing_key::{KeyPurpose, SigningKey, write_over};
use coffer_verifier::UnixTime;
use coffer_verifier::manifest::ReferenceManifest;

use crate::error::{self, Class, CliError};

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
pub enum Expiry {
    /// Then.
    At(UnixTime),
    /// Seconds from now.
    After(i64),
}

impl Expiry {
    /// From a command line.
    pub fn parse(text: &str) -> Result<Self, String> {
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

    /// As a time.
    ///
    /// # Errors
    /// Class `usage`: it is over.
    pub fn counted_from(self, now: UnixTime) -> Result<UnixTime, CliError> {
        match self {
            Self::After(span) => Ok(UnixTime(now.0 + span)),
            Self::At(time) if time > now => Ok(time),
            Self::At(time) => {
                let message =
                    format!("invalid value {time} for --expires: it lies in the past, by this machine's clock");
                Err(CliError::new(Class::Usage, message).hint("a time like 2027-01-01T00:00:00Z, or 90d from now"))
            }
        }
    }
}

const LIFETIME: i64 = 90 * 86_400;

impl ManifestArgs {
    /// Signs and writes the manifest, if one is asked for.
    pub fn write(&self, measured: &Measured) -> Result<Option<Written>, CliError> {
        let (Some(out), Some(key)) = (&self.manifest, &self.sign) else { return Ok(None) };
        let key = SigningKey::read(key, KeyPurpose::Manifest)?;
        let now = UnixTime::from(std::time::SystemTime::now());
        let request = ManifestRequest {
            name: self.name.clone(),
            sequence: self.sequence,
            expires: self.expires.unwrap_or(Expiry::After(LIFETIME)).counted_from(now)?,
        };
        let signed = measured.manifest(&request, &key, now).map_err(error::of)?;
        // Public: whoever launches, audits or runs a broker may read it.
        write_over(out, format!("{}\n", signed.envelope.to_json()).as_bytes(), 0o644)?;
        Ok(Some(Written { file: out.clone(), manifest: signed.manifest, key: signed.key }))
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

    #[test]
    fn an_expiry_in_the_past_is_refused_by_its_flag() {
        let now = UnixTime(1_800_000_000);
        assert_eq!(Expiry::After(60).counted_from(now).unwrap(), UnixTime(1_800_000_060));
        assert_eq!(Expiry::At(UnixTime(now.0 + 1)).counted_from(now).unwrap(), UnixTime(now.0 + 1));
        for late in [now, UnixTime(10)] {
            let failure = Expiry::At(late).counted_from(now).unwrap_err();
            assert_eq!(failure.class, Class::Usage);
            assert!(failure.message.contains("--expires: it lies in the past"), "{}", failure.message);
        }
    }
}
