//! A report as Linux's configfs-tsm gives it, in the envelope that Veraison's tools send: `outblob` is the report, `auxblob` the host's
//! certificate table, `provider` the driver.
//!
//! Two spellings: JSON with base64 (`application/vnd.veraison.tsm-report+json`), and a CBOR map with the same keys in any order
//! (`…+cbor`), definite and minimal lengths alone. A `service` that says something is refused: that would be a report of a service
//! inside the guest, whose manifest is bound in a way that nobody here checks.
//! Source: Linux, Documentation/ABI/testing/configfs-tsm; Veraison, media types `vnd.veraison.tsm-report`.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde::Deserialize;

use crate::cbor::{self, Reader};

/// A parsed envelope. Nobody believes what is in it yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TsmReport {
    /// What the secure processor signed, 1184 bytes when well-formed.
    pub outblob: Vec<u8>,
    /// The certificate table of the extended report; maybe empty.
    pub auxblob: Vec<u8>,
}

/// Why bytes are not such an envelope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TsmError {
    /// Longer than any.
    #[error("TSM report of {found} bytes is longer than {limit}")]
    TooLong {
        /// Bytes given.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// Not the JSON expected.
    #[error("a JSON text that is no TSM report (line {line})")]
    Json {
        /// Where it stops being so.
        line: usize,
    },
    /// Not the CBOR expected, or not the base64, at this key.
    #[error("TSM report: {what} is missing, of another type, twice there, or not in the encoding expected")]
    Malformed {
        /// Which part.
        what: &'static str,
    },
    /// Of another secure processor.
    #[error("TSM report is of another provider than {PROVIDER}")]
    Provider,
}

/// The driver whose `outblob` is an SEV-SNP report.
pub const PROVIDER: &str = "sev_guest";

/// A report, a table of certificates, and both again by a third for base64, stay far below.
const MAX: usize = 1024 * 1024;

impl TsmReport {
    /// True if bytes begin as an envelope does: a JSON object, or a CBOR map of a few keys.
    pub fn is_tsm(bytes: &[u8]) -> bool {
        matches!(bytes.first(), Some(b'{' | 0xa2..=0xa4))
    }

    /// Reads either spelling.
    ///
    /// # Errors
    /// [`TsmError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, TsmError> {
        if bytes.len() > MAX {
            return Err(TsmError::TooLong { found: bytes.len(), limit: MAX });
        }
        if bytes.first() == Some(&b'{') { Self::from_json(bytes) } else { Self::from_cbor(bytes) }
    }

    fn from_json(bytes: &[u8]) -> Result<Self, TsmError> {
        let envelope: Envelope<'_> =
            serde_json::from_slice(bytes).map_err(|error| TsmError::Json { line: error.line() })?;
        if envelope.provider != PROVIDER {
            return Err(TsmError::Provider);
        }
        let Envelope { service: Nothing {}, .. } = envelope;
        let blob = |what, text: &str| {
            let read = STANDARD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text));
            read.map_err(|_| TsmError::Malformed { what })
        };
        Ok(Self {
            outblob: blob("outblob", envelope.outblob)?,
            auxblob: blob("auxblob", envelope.auxblob.unwrap_or_default())?,
        })
    }

    fn from_cbor(bytes: &[u8]) -> Result<Self, TsmError> {
        let bad = |what| TsmError::Malformed { what };
        let mut map = Reader::new(bytes);
        let count = map.head(cbor::MAP).filter(|count| (2..=4).contains(count)).ok_or(bad("map"))?;
        let (mut outblob, mut auxblob, mut provider, mut service) = (None, None, None, None);
        for _ in 0..count {
            let once = |first: bool, what| if first { Ok(()) } else { Err(bad(what)) };
            match map.string(cbor::TEXT).ok_or(bad("key"))? {
                b"outblob" => {
                    once(outblob.is_none(), "outblob")?;
                    outblob = Some(map.string(cbor::BYTES).ok_or(bad("outblob"))?);
                }
                b"auxblob" => {
                    once(auxblob.is_none(), "auxblob")?;
                    auxblob = Some(map.string(cbor::BYTES).ok_or(bad("auxblob"))?);
                }
                b"provider" => {
                    once(provider.is_none(), "provider")?;
                    provider = Some(map.string(cbor::TEXT).ok_or(bad("provider"))?);
                }
                b"service" => {
                    once(service.is_none(), "service")?;
                    service = Some(map.head(cbor::MAP).filter(|keys| *keys == 0).ok_or(bad("empty service"))?);
                }
                _ => return Err(bad("key")),
            }
        }
        if !map.is_empty() {
            return Err(bad("end"));
        }
        if provider.ok_or(bad("provider"))? != PROVIDER.as_bytes() {
            return Err(TsmError::Provider);
        }
        Ok(Self { outblob: outblob.ok_or(bad("outblob"))?.to_vec(), auxblob: auxblob.unwrap_or_default().to_vec() })
    }
}

/// As JSON. Text is borrowed, so that what is read costs no more than what was sent: an escape in base64 is none of ours.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    outblob: &'a str,
    #[serde(default)]
    auxblob: Option<&'a str>,
    provider: &'a str,
    /// Go writes it, empty, where there is none.
    #[serde(default)]
    service: Nothing,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Result<TsmReport, TsmError> {
        TsmReport::parse(text.as_bytes())
    }

    /// A map of these keys, each with a head and what follows it.
    fn map(entries: &[(&str, u8, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        cbor::write_head(&mut out, cbor::MAP, entries.len() as u64);
        for (key, major, value) in entries {
            cbor::write_head(&mut out, cbor::TEXT, key.len() as u64);
            out.extend_from_slice(key.as_bytes());
            cbor::write_head(&mut out, *major, value.len() as u64);
            out.extend_from_slice(value);
        }
        out
    }

    const OUT: (&str, u8, &[u8]) = ("outblob", cbor::BYTES, &[7; 40]);
    const AUX: (&str, u8, &[u8]) = ("auxblob", cbor::BYTES, &[8; 3]);
    const BY: (&str, u8, &[u8]) = ("provider", cbor::TEXT, b"sev_guest");
    const SERVICE: (&str, u8, &[u8]) = ("service", cbor::MAP, &[]);

    #[test]
    fn both_spellings_say_the_same() {
        let read = TsmReport { outblob: vec![7; 40], auxblob: vec![8; 3] };
        let out = STANDARD.encode([7; 40]);
        for text in [
            format!(r#"{{"auxblob":"CAgI","outblob":"{out}","provider":"sev_guest","service":{{}}}}"#),
            format!(r#"{{"provider":"sev_guest","outblob":"{}","auxblob":"CAgI"}}"#, out.trim_end_matches('=')),
        ] {
            assert_eq!(json(&text), Ok(read.clone()), "{text}");
        }
        for entries in [&[AUX, OUT, BY, SERVICE][..], &[BY, OUT, AUX]] {
            let bytes = map(entries);
            assert!(TsmReport::is_tsm(&bytes));
            assert_eq!(TsmReport::parse(&bytes), Ok(read.clone()));
            for length in 0..bytes.len() {
                assert!(TsmReport::parse(&bytes[..length]).is_err(), "{length}");
            }
            assert!(TsmReport::parse(&[bytes.as_slice(), &[0]].concat()).is_err());
        }
        let bare = TsmReport { outblob: vec![7; 40], auxblob: Vec::new() };
        assert_eq!(TsmReport::parse(&map(&[OUT, BY])), Ok(bare.clone()));
        assert_eq!(json(&format!(r#"{{"outblob":"{out}","provider":"sev_guest"}}"#)), Ok(bare));
    }

    #[test]
    fn what_is_missing_twice_there_or_of_somebody_else_is_refused_by_name() {
        let what = |entries: &[(&str, u8, &[u8])]| TsmReport::parse(&map(entries)).unwrap_err();
        let malformed = |what| TsmError::Malformed { what };
        assert_eq!(what(&[AUX, BY]), malformed("outblob"));
        assert_eq!(what(&[AUX, OUT]), malformed("provider"));
        assert_eq!(what(&[OUT, OUT, BY]), malformed("outblob"));
        assert_eq!(what(&[AUX, OUT, AUX, BY]), malformed("auxblob"));
        assert_eq!(what(&[BY, OUT, BY]), malformed("provider"));
        assert_eq!(what(&[OUT, BY, SERVICE, SERVICE]), malformed("service"));
        assert_eq!(what(&[OUT, BY, ("service", cbor::MAP, &[0x60])]), malformed("empty service"));
        assert_eq!(what(&[OUT, BY, ("manifest", cbor::BYTES, &[])]), malformed("key"));
        assert_eq!(what(&[("outblob", cbor::TEXT, b"7"), BY]), malformed("outblob"));
        assert_eq!(what(&[OUT, ("provider", cbor::TEXT, b"tdx_guest")]), TsmError::Provider);
        assert_eq!(what(&[BY]), malformed("map"));
        for (text, error) in [
            (r#"{"outblob":"AA==","provider":"tdx_guest"}"#, TsmError::Provider),
            (r#"{"outblob":"A","provider":"sev_guest"}"#, malformed("outblob")),
            (r#"{"outblob":"","auxblob":"?","provider":"sev_guest"}"#, malformed("auxblob")),
            (r#"{"outblob":"","outblob":"","provider":"sev_guest"}"#, TsmError::Json { line: 1 }),
            (r#"{"outblob":"","provider":"sev_guest","service":{"manifestblob":""}}"#, TsmError::Json { line: 1 }),
            (r#"{"outblob":"","provider":"sev_guest","more":1}"#, TsmError::Json { line: 1 }),
        ] {
            assert_eq!(json(text), Err(error), "{text}");
        }
        let long = vec![b'{'; MAX + 1];
        assert_eq!(TsmReport::parse(&long), Err(TsmError::TooLong { found: MAX + 1, limit: MAX }));
    }
}
