//! Fixed-size words of the report, each its own type: 48 bytes of MEASUREMENT never pass for an ID key digest.
//!
//! All are public values: compared with `==`, printed as lower-case hex, and never key material by themselves.
//! Source: SNP ABI, ATTESTATION_REPORT.

use core::{fmt, str::FromStr};

use sha2::{Digest, Sha256};

/// Why text or bytes are not the word they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WordError {
    /// Wrong number of bytes.
    #[error("{word} is {expected} bytes, found {found}")]
    Length {
        /// Name of the word.
        word: &'static str,
        /// Bytes it has.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// Not hexadecimal.
    #[error("{word} is not hexadecimal, expected {} digits", 2 * expected)]
    Hex {
        /// Name of the word.
        word: &'static str,
        /// Bytes it has.
        expected: usize,
    },
}

/// Lower-case hex, in the room it takes.
fn digits<'a>(bytes: &[u8], room: &'a mut [u8]) -> Option<&'a str> {
    hex::encode_to_slice(bytes, room).ok()?;
    core::str::from_utf8(room).ok()
}

macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $len:literal, $field:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// From its bytes.
            pub const fn new(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// True if every byte is zero; a zero word never matches a rule.
            pub fn is_zero(&self) -> bool {
                self.0.iter().all(|byte| *byte == 0)
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = WordError;
            fn try_from(bytes: &[u8]) -> Result<Self, WordError> {
                bytes
                    .try_into()
                    .map(Self)
                    .map_err(|_| WordError::Length { word: $field, expected: $len, found: bytes.len() })
            }
        }

        impl FromStr for $name {
            type Err = WordError;
            fn from_str(text: &str) -> Result<Self, WordError> {
                let bytes = hex::decode(text).map_err(|_| WordError::Hex { word: $field, expected: $len })?;
                Self::try_from(bytes.as_slice())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(digits(&self.0, &mut [0; 2 * $len]).ok_or(fmt::Error)?)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), hex::encode(self.0))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                let mut room = [0; 2 * $len];
                let digits = digits(&self.0, &mut room);
                s.serialize_str(digits.ok_or_else(|| serde::ser::Error::custom("no room for the digits"))?)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

word!(
    /// SHA-384 launch digest of guest memory (`MEASUREMENT`).
    Measurement, 48, "MEASUREMENT");
word!(
    /// What the host set at launch finish (`HOST_DATA`): signed, but chosen by the host.
    HostData, 32, "HOST_DATA");
word!(
    /// What the guest asked to be signed (`REPORT_DATA`).
    ReportData, 64, "REPORT_DATA");
word!(
    /// The chip (`CHIP_ID`); zero when masked, 8 bytes then zeros on Turin.
    ChipId, 64, "CHIP_ID");
impl ChipId {
    /// CHIP_ID of the processor whose certificate has this hwID: zeros behind it. Nothing for one that is longer.
    pub fn of_hwid(hwid: &[u8]) -> Option<Self> {
        let mut chip = [0; Self::LEN];
        chip.get_mut(..hwid.len())?.copy_from_slice(hwid);
        Some(Self(chip))
    }

    /// From CHIP_ID in hex, or from the 8 bytes of hwID that a Turin certificate has and the report fills up with zeros.
    ///
    /// # Errors
    /// [`WordError`] for anything else.
    pub fn of_text(text: &str) -> Result<Self, WordError> {
        let short = 2 * super::ProductLine::Turin.hwid_len();
        match hex::decode(text) {
            Ok(hwid) if text.len() == short => {
                Self::of_hwid(&hwid).ok_or(WordError::Hex { word: "CHIP_ID", expected: Self::LEN })
            }
            _ => text.parse(),
        }
    }
}

word!(
    /// This guest instance (`REPORT_ID`).
    ReportId, 32, "REPORT_ID");
word!(
    /// SHA-384 of an ID or author key structure (`ID_KEY_DIGEST`, `AUTHOR_KEY_DIGEST`).
    KeyDigest, 48, "KEY_DIGEST");
word!(
    /// Family of guests that an author names in an ID block (`FAMILY_ID`).
    FamilyId, 16, "FAMILY_ID");
word!(
    /// Image that an author names in an ID block (`IMAGE_ID`).
    ImageId, 16, "IMAGE_ID");
word!(
    /// SHA-256 over the bytes of a workload spec; stands in HOST_DATA and on the measured command line.
    WorkloadDigest, 32, "workload digest");
word!(
    /// SHA-256 of a DER SubjectPublicKeyInfo: how keys are pinned and owners named.
    SpkiDigest, 32, "SPKI digest");

impl WorkloadDigest {
    /// Digest of a workload spec document, over its raw bytes.
    pub fn of(document: &[u8]) -> Self {
        Self(Sha256::digest(document).into())
    }

    /// The digest that this HOST_DATA states. Whether there is such a document is another question.
    pub const fn stated(host_data: HostData) -> Self {
        Self(host_data.0)
    }

    /// The HOST_DATA that states this digest.
    pub const fn host_data(&self) -> HostData {
        HostData(self.0)
    }
}

impl SpkiDigest {
    /// Digest of a DER SubjectPublicKeyInfo.
    pub fn of(spki_der: &[u8]) -> Self {
        Self(Sha256::digest(spki_der).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_its_own_hex_and_refuses_other_lengths() {
        let word = HostData::new([0xab; 32]);
        assert_eq!(word.to_string().parse::<HostData>().unwrap(), word);
        assert_eq!("abcd".parse::<HostData>(), Err(WordError::Length { word: "HOST_DATA", expected: 32, found: 2 }));
        assert_eq!("zz".parse::<HostData>(), Err(WordError::Hex { word: "HOST_DATA", expected: 32 }));
    }
}
