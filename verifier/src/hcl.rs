//! Azure's HCL attestation blob: a report, and runtime data whose hash stands in REPORT_DATA.
//!
//! The paravisor asks for the report, so the guest's own data comes through the vTPM: its attestation key (HCLAkPub)
//! stands in the runtime data. Reading the blob says nothing about the report being authentic; [`crate::verify()`] does,
//! with [`HclBlob::expected_report_data`].
//! Source: Azure "HCL report" as served by the vTPM's NV index 0x01400001; layout checked on genuine blobs.

use core::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use sha2::{Digest, Sha256, Sha384, Sha512};

use crate::{
    abi::{REPORT_LEN, ReportData},
    look::HCL_MAGIC,
    verify::ExpectedReportData,
};

/// A parsed blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HclBlob<'a> {
    report: &'a [u8],
    runtime: &'a [u8],
    report_data: ReportData,
    ak: Option<TpmKey>,
}

/// The vTPM's RSA attestation key, as the runtime data states it (JWK).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmKey {
    /// Modulus, big-endian.
    pub modulus: Vec<u8>,
    /// Exponent, big-endian.
    pub exponent: Vec<u8>,
}

/// Why bytes are not an HCL blob.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HclError {
    /// Shorter than header, report and runtime header.
    #[error("HCL blob of {found} bytes is shorter than {least}")]
    Short {
        /// Bytes given.
        found: usize,
        /// Least length.
        least: usize,
    },
    /// Longer than any blob.
    #[error("HCL blob of {found} bytes is longer than {limit}")]
    TooLong {
        /// Bytes given.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// A header field has a value we do not know.
    #[error("HCL {field} is {found}, expected {expected}")]
    Header {
        /// Its name.
        field: &'static str,
        /// Its value.
        found: u32,
        /// What it may be.
        expected: &'static str,
    },
    /// The runtime data does not fit where it should stand.
    #[error("HCL runtime data of {length} bytes does not fit a blob of {blob}")]
    RuntimeLength {
        /// As stated.
        length: u32,
        /// Bytes of the blob.
        blob: usize,
    },
    /// Bytes after the runtime data are not zero.
    #[error("HCL blob has data after its runtime data")]
    Trailing,
    /// The runtime data is not the JSON expected.
    #[error("HCL runtime data is not the JSON expected")]
    Json,
}

const HEADER: usize = 0x20;
const RUNTIME: usize = HEADER + REPORT_LEN;
const JSON: usize = RUNTIME + 20;
const MAX_BLOB: usize = 64 * 1024;

impl<'a> HclBlob<'a> {
    /// True if bytes begin as a blob does.
    pub fn is_hcl(bytes: &[u8]) -> bool {
        bytes.starts_with(HCL_MAGIC)
    }

    /// Parses a blob.
    ///
    /// # Errors
    /// [`HclError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, HclError> {
        use HclError as E;
        if bytes.len() < JSON {
            return Err(E::Short { found: bytes.len(), least: JSON });
        }
        if bytes.len() > MAX_BLOB {
            return Err(E::TooLong { found: bytes.len(), limit: MAX_BLOB });
        }
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let known = |field, at, allowed: &[u32], expected| {
            let found = word(at);
            if allowed.contains(&found) { Ok(()) } else { Err(E::Header { field, found, expected }) }
        };
        known("signature", 0, &[u32::from_le_bytes(*b"HCLA")], "HCLA")?;
        known("version", 4, &[1, 2], "1 or 2")?;
        known("request type", 0xc, &[2], "2 (SNP)")?;
        known("status", 0x10, &[0], "0")?;
        for at in [0x14, 0x18, 0x1c] {
            known("reserved word", at, &[0], "0")?;
        }
        known("runtime version", RUNTIME + 4, &[1], "1")?;
        known("report type", RUNTIME + 8, &[2], "2 (SNP)")?;
        let length = word(RUNTIME + 16);
        let out_of_place = E::RuntimeLength { length, blob: bytes.len() };
        let end = JSON.checked_add(length as usize).ok_or(out_of_place.clone())?;
        let runtime = bytes.get(JSON..end).ok_or(out_of_place)?;
        // Three lengths say the same: of the blob, of the runtime part with its header, of the JSON.
        for (field, at, right) in [("length", 8, end), ("runtime length", RUNTIME, end - RUNTIME)] {
            if usize::try_from(word(at)) != Ok(right) {
                return Err(E::Header { field, found: word(at), expected: "the length of what follows it" });
            }
        }
        if bytes[end..].iter().any(|byte| *byte != 0) {
            return Err(E::Trailing);
        }
        let mut report_data = [0; 64];
        match word(RUNTIME + 12) {
            1 => report_data[..32].copy_from_slice(&Sha256::digest(runtime)),
            2 => report_data[..48].copy_from_slice(&Sha384::digest(runtime)),
            3 => report_data.copy_from_slice(&Sha512::digest(runtime)),
            found => return Err(E::Header { field: "hash type", found, expected: "1 to 3 (SHA-256, -384, -512)" }),
        }
        let data: RuntimeData = serde_json::from_slice(runtime).map_err(|_| E::Json)?;
        Ok(Self {
            report: &bytes[HEADER..RUNTIME],
            runtime,
            report_data: ReportData::new(report_data),
            ak: data.keys.0,
        })
    }

    /// The 1184 bytes of the report.
    pub const fn report(&self) -> &'a [u8] {
        self.report
    }

    /// The runtime data, JSON, verbatim.
    pub const fn runtime_data(&self) -> &'a [u8] {
        self.runtime
    }

    /// What REPORT_DATA must hold for the runtime data to be the report's. It shows that the two belong together, and nothing
    /// about when the report was made or for whom: freshness is a matter of the vTPM's quote.
    pub const fn expected_report_data(&self) -> ExpectedReportData {
        ExpectedReportData::Attachment(self.report_data)
    }

    /// HCLAkPub, which signs the vTPM's quotes; to be believed once the report is verified with the binding above.
    pub const fn attestation_key(&self) -> Option<&TpmKey> {
        self.ak.as_ref()
    }
}

#[derive(Deserialize)]
struct RuntimeData {
    keys: AttestationKey,
}

/// The key named HCLAkPub out of the JWK list; the others are read and dropped, so that memory stays with the input.
struct AttestationKey(Option<TpmKey>);

#[derive(Deserialize)]
struct Jwk<'a> {
    #[serde(borrow)]
    kid: Option<&'a str>,
    #[serde(borrow)]
    kty: Option<&'a str>,
    #[serde(borrow)]
    n: Option<&'a str>,
    #[serde(borrow)]
    e: Option<&'a str>,
}

impl<'de> Deserialize<'de> for AttestationKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = AttestationKey;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of keys with at most one HCLAkPub")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
                let mut found = None;
                while let Some(key) = list.next_element::<Jwk<'de>>()? {
                    if key.kid != Some("HCLAkPub") {
                        continue;
                    }
                    let number = |text: Option<&str>| text.and_then(|text| BASE64URL.decode(text).ok());
                    let (Some("RSA"), Some(modulus), Some(exponent), None) =
                        (key.kty, number(key.n), number(key.e), &found)
                    else {
                        return Err(serde::de::Error::custom("HCLAkPub is no RSA key, or there are two"));
                    };
                    found = Some(TpmKey { modulus, exponent });
                }
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(AttestationKey(found))
            }
        }
        deserializer.deserialize_seq(Keys)
    }
}
