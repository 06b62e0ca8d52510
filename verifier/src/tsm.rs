//! A report as Linux's configfs-tsm gives it, in the envelope that Veraison's tools send: `outblob` is the report, `auxblob` the host's
//! certificate table, `provider` the driver.
//!
//! Two spellings: JSON with base64 or base64url, padded or not (`application/vnd.veraison.tsm-report+json`), and a CBOR map with the same keys in any order
//! (`…+cbor`), definite and minimal lengths alone. A `service` that says something is refused: that would be a report of a service
//! inside the guest, whose manifest is bound in a way that nobody here checks.
//! Source: Linux, Documentation/ABI/testing/configfs-tsm; Veraison, media types `vnd.veraison.tsm-report`.

use std::borrow::Cow;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
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
    /// A part is not there, or not as it should be.
    #[error("TSM report: {what} {defect}")]
    Malformed {
        /// Which part.
        what: &'static str,
        /// What is wrong with it.
        defect: &'static str,
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
        let Envelope { service: Nothing {}, .. } = envelope;
        let provider = envelope.provider.ok_or(TsmError::Malformed { what: "provider", defect: MISSING })?;
        of_sev(provider.0.as_bytes())?;
        let blob = |what, text: &Text<'_>| {
            let text = text.0.trim_ascii_end();
            let read = EITHER.iter().find_map(|spelling| spelling.decode(text).ok());
            read.ok_or(TsmError::Malformed { what, defect: "is not in base64" })
        };
        let outblob = envelope.outblob.ok_or(TsmError::Malformed { what: "outblob", defect: MISSING })?;
        let auxblob = envelope.auxblob.map(|text| blob("auxblob", &text)).transpose()?;
        Ok(Self { outblob: blob("outblob", &outblob)?, auxblob: auxblob.unwrap_or_default() })
    }

    fn from_cbor(bytes: &[u8]) -> Result<Self, TsmError> {
        let bad = |what, defect| TsmError::Malformed { what, defect };
        let mut map = Reader::new(bytes);
        let count = map.head(cbor::MAP).filter(|count| (2..=4).contains(count));
        let count = count.ok_or(bad("the map", "has not the two to four keys that there are"))?;
        let (mut outblob, mut auxblob, mut provider, mut service) = (None, None, None, None);
        for _ in 0..count {
            let once = |first: bool, what| if first { Ok(()) } else { Err(bad(what, "is there twice")) };
            match map.string(cbor::TEXT).ok_or(bad("a key", "is no text, or breaks off"))? {
                b"outblob" => {
                    once(outblob.is_none(), "outblob")?;
                    outblob = Some(map.string(cbor::BYTES).ok_or(bad("outblob", NO_BYTES))?);
                }
                b"auxblob" => {
                    once(auxblob.is_none(), "auxblob")?;
                    auxblob = Some(map.string(cbor::BYTES).ok_or(bad("auxblob", NO_BYTES))?);
                }
                b"provider" => {
                    once(provider.is_none(), "provider")?;
                    provider = Some(map.string(cbor::TEXT).ok_or(bad("provider", "is no text, or breaks off"))?);
                }
                b"service" => {
                    once(service.is_none(), "service")?;
                    let empty = map.head(cbor::MAP).filter(|keys| *keys == 0);
                    service = Some(empty.ok_or(bad("service", "is there, and not empty"))?);
                }
                _ => return Err(bad("a key", "is none of provider, outblob, auxblob and service")),
            }
        }
        if !map.is_empty() {
            return Err(bad("the map", "has more bytes behind it"));
        }
        of_sev(provider.ok_or(bad("provider", MISSING))?)?;
        let outblob = outblob.ok_or(bad("outblob", MISSING))?;
        Ok(Self { outblob: outblob.to_vec(), auxblob: auxblob.unwrap_or_default().to_vec() })
    }
}

const MISSING: &str = "is missing";
const NO_BYTES: &str = "is no byte string, or breaks off";

/// As the file of configfs has it, with the line end or without.
fn of_sev(provider: &[u8]) -> Result<(), TsmError> {
    if provider.trim_ascii_end() == PROVIDER.as_bytes() { Ok(()) } else { Err(TsmError::Provider) }
}

/// Base64 as tools write it: of either alphabet, with padding or without. One text is never two byte strings.
const EITHER: [GeneralPurpose; 2] = {
    let any = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [GeneralPurpose::new(&alphabet::STANDARD, any), GeneralPurpose::new(&alphabet::URL_SAFE, any)]
};

/// As JSON. Text without escapes is borrowed: what is read costs no more than what was sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    outblob: Option<Text<'a>>,
    #[serde(borrow, default)]
    auxblob: Option<Text<'a>>,
    #[serde(borrow, default)]
    provider: Option<Text<'a>>,
    /// Go writes it, empty, where there is none.
    #[serde(default)]
    service: Nothing,
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

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
        let out = EITHER[0].encode([7; 40]);
        // Bytes that differ in the two alphabets, and a line end as the file of configfs has it.
        for text in ["-__-_w==", "-__-_w", "+//+/w==", "+//+/w", "+\\/\\/+\\/w"] {
            let read = json(&format!(r#"{{"outblob":"{text}","provider":"sev_guest\n"}}"#)).unwrap();
            assert_eq!(read.outblob, [0xfb, 0xff, 0xfe, 0xff], "{text}");
        }
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
        let twice = "is there twice";
        for (entries, part, defect) in [
            (&[AUX, BY][..], "outblob", MISSING),
            (&[AUX, OUT], "provider", MISSING),
            (&[OUT, OUT, BY], "outblob", twice),
            (&[AUX, OUT, AUX, BY], "auxblob", twice),
            (&[BY, OUT, BY], "provider", twice),
            (&[OUT, BY, SERVICE, SERVICE], "service", twice),
            (&[OUT, BY, ("service", cbor::MAP, &[0x60])], "service", "is there, and not empty"),
            (&[OUT, BY, ("manifest", cbor::BYTES, &[])], "a key", "is none of provider, outblob, auxblob and service"),
            (&[("outblob", cbor::TEXT, b"7"), BY], "outblob", NO_BYTES),
            (&[BY], "the map", "has not the two to four keys that there are"),
        ] {
            assert_eq!(what(entries), TsmError::Malformed { what: part, defect });
        }
        assert_eq!(what(&[OUT, ("provider", cbor::TEXT, b"tdx_guest")]), TsmError::Provider);
        let no_base64 = |what| TsmError::Malformed { what, defect: "is not in base64" };
        for (text, error) in [
            (r#"{"outblob":"AA==","provider":"tdx_guest"}"#, TsmError::Provider),
            (r#"{"outblob":"AA=="}"#, TsmError::Malformed { what: "provider", defect: MISSING }),
            (r#"{"provider":"sev_guest"}"#, TsmError::Malformed { what: "outblob", defect: MISSING }),
            (r#"{"outblob":"A","provider":"sev_guest"}"#, no_base64("outblob")),
            (r#"{"outblob":"+_==","provider":"sev_guest"}"#, no_base64("outblob")),
            (r#"{"outblob":"","auxblob":"?","provider":"sev_guest"}"#, no_base64("auxblob")),
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
