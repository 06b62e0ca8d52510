//! Evidence as it travels: the signed bytes verbatim, and what came beside them. Nobody believes it yet.
//!
//! In certificates (id-pe-cmw) and `.cmw` files it is a CMW record (RFC 9999, CBOR): the array
//! `[media type, value, indicator]`, whose value is a CBOR map with integer keys. One encoding only: definite and
//! minimal lengths, keys in order, so what is written is what is read.

use crate::cbor::{self, Reader};

/// One attester's evidence. The raw bytes travel and are checked; nothing is encoded again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// ATTESTATION_REPORT, 1184 bytes when well-formed.
    pub report: Vec<u8>,
    /// Certificate table of the extended report; host supplied, maybe empty.
    pub cert_table: Vec<u8>,
    /// Certificate revocation lists, DER.
    pub crls: Vec<Vec<u8>>,
    /// The workload spec document; its SHA-256 must be HOST_DATA.
    pub workload_spec: Vec<u8>,
}

/// Media type of the record's value.
pub const MEDIA_TYPE: &str = "application/vnd.coffer.snp-evidence+cbor";

/// CMW indicator bit 2: evidence.
const IND_EVIDENCE: u64 = 1 << 2;
const KEY_REPORT: u64 = 1;
const KEY_CERT_TABLE: u64 = 2;
const KEY_CRLS: u64 = 3;
const KEY_WORKLOAD_SPEC: u64 = 4;
/// A report, three certificates, a few lists and a spec stay far below.
const MAX_CMW: usize = 1024 * 1024;
const MAX_CRLS: u64 = 8;

/// Why bytes are not an evidence record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CmwError {
    /// Longer than any record.
    #[error("CMW record of {found} bytes is longer than {limit}")]
    TooLong {
        /// Bytes given.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// Not the CBOR expected at this place.
    #[error("CMW record: {what} is missing, of another type, or not in the one encoding allowed")]
    Malformed {
        /// Which part.
        what: &'static str,
    },
    /// Another media type.
    #[error("CMW record is not of media type {MEDIA_TYPE}")]
    MediaType,
    /// The indicator does not say evidence and nothing else.
    #[error("CMW indicator {found:#x} does not say evidence")]
    Indicator {
        /// As given.
        found: u64,
    },
}

impl Evidence {
    /// True if bytes look like a CMW record rather than a bare report: a CBOR array of two or three elements.
    pub fn is_cmw(bytes: &[u8]) -> bool {
        matches!(bytes.first(), Some(0x82 | 0x83))
    }

    /// The CMW record.
    pub fn to_cmw(&self) -> Vec<u8> {
        let mut value = Vec::new();
        cbor::write_head(&mut value, cbor::MAP, 4);
        cbor::write_head(&mut value, cbor::UNSIGNED, KEY_REPORT);
        cbor::write_bytes(&mut value, &self.report);
        cbor::write_head(&mut value, cbor::UNSIGNED, KEY_CERT_TABLE);
        cbor::write_bytes(&mut value, &self.cert_table);
        cbor::write_head(&mut value, cbor::UNSIGNED, KEY_CRLS);
        cbor::write_head(&mut value, cbor::ARRAY, self.crls.len() as u64);
        for crl in &self.crls {
            cbor::write_bytes(&mut value, crl);
        }
        cbor::write_head(&mut value, cbor::UNSIGNED, KEY_WORKLOAD_SPEC);
        cbor::write_bytes(&mut value, &self.workload_spec);

        let mut record = Vec::with_capacity(value.len() + 64);
        cbor::write_head(&mut record, cbor::ARRAY, 3);
        cbor::write_head(&mut record, cbor::TEXT, MEDIA_TYPE.len() as u64);
        record.extend_from_slice(MEDIA_TYPE.as_bytes());
        cbor::write_bytes(&mut record, &value);
        cbor::write_head(&mut record, cbor::UNSIGNED, IND_EVIDENCE);
        record
    }

    /// Reads a CMW record. The indicator may be left out, as RFC 9999 allows; all four fields must be there.
    ///
    /// # Errors
    /// [`CmwError`].
    pub fn from_cmw(bytes: &[u8]) -> Result<Self, CmwError> {
        if bytes.len() > MAX_CMW {
            return Err(CmwError::TooLong { found: bytes.len(), limit: MAX_CMW });
        }
        let bad = |what| CmwError::Malformed { what };
        let mut record = Reader::new(bytes);
        let length = record.head(cbor::ARRAY).ok_or(bad("array"))?;
        let media_type = record.string(cbor::TEXT).ok_or(bad("media type"))?;
        if media_type != MEDIA_TYPE.as_bytes() {
            return Err(CmwError::MediaType);
        }
        let mut value = Reader::new(record.string(cbor::BYTES).ok_or(bad("value"))?);
        match length {
            2 => {}
            3 => {
                let found = record.head(cbor::UNSIGNED).ok_or(bad("indicator"))?;
                if found != IND_EVIDENCE {
                    return Err(CmwError::Indicator { found });
                }
            }
            _ => return Err(bad("array")),
        }
        if !record.is_empty() {
            return Err(bad("end"));
        }

        let key = |reader: &mut Reader<'_>, key| (reader.head(cbor::UNSIGNED)? == key).then_some(());
        if value.head(cbor::MAP) != Some(4) {
            return Err(bad("map of four fields"));
        }
        key(&mut value, KEY_REPORT).ok_or(bad("report"))?;
        let report = value.string(cbor::BYTES).ok_or(bad("report"))?.to_vec();
        key(&mut value, KEY_CERT_TABLE).ok_or(bad("certificate table"))?;
        let cert_table = value.string(cbor::BYTES).ok_or(bad("certificate table"))?.to_vec();
        key(&mut value, KEY_CRLS).ok_or(bad("revocation lists"))?;
        let count = value.head(cbor::ARRAY).filter(|count| *count <= MAX_CRLS).ok_or(bad("revocation lists"))?;
        let mut crls = Vec::new();
        for _ in 0..count {
            crls.push(value.string(cbor::BYTES).ok_or(bad("revocation lists"))?.to_vec());
        }
        key(&mut value, KEY_WORKLOAD_SPEC).ok_or(bad("workload spec"))?;
        let workload_spec = value.string(cbor::BYTES).ok_or(bad("workload spec"))?.to_vec();
        if !value.is_empty() {
            return Err(bad("end of value"));
        }
        Ok(Self { report, cert_table, crls, workload_spec })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Evidence {
        Evidence {
            report: vec![7; 1184],
            cert_table: vec![1; 30],
            crls: vec![vec![2; 300], vec![]],
            workload_spec: b"version = \"0.1.0\"".to_vec(),
        }
    }

    #[test]
    fn reads_what_it_writes() {
        for evidence in [sample(), Evidence::default()] {
            let record = evidence.to_cmw();
            assert!(Evidence::is_cmw(&record));
            assert_eq!(Evidence::from_cmw(&record), Ok(evidence));
        }
    }

    #[test]
    fn refuses_every_truncation_and_every_trailing_byte() {
        let record = sample().to_cmw();
        for length in 0..record.len() {
            assert!(Evidence::from_cmw(&record[..length]).is_err(), "{length}");
        }
        assert!(Evidence::from_cmw(&[record.as_slice(), &[0]].concat()).is_err());
    }

    #[test]
    fn refuses_other_types_indicators_and_encodings() {
        let record = sample().to_cmw();
        let patched = |at: usize, byte: u8| {
            let mut bytes = record.clone();
            bytes[at] = byte;
            Evidence::from_cmw(&bytes).unwrap_err()
        };
        assert_eq!(patched(3, b'b'), CmwError::MediaType);
        assert_eq!(patched(record.len() - 1, 8), CmwError::Indicator { found: 8 });
        assert_eq!(patched(0, 0x84), CmwError::Malformed { what: "array" });
        assert_eq!(patched(0, 0x9f), CmwError::Malformed { what: "array" });
        assert_eq!(
            Evidence::from_cmw(&vec![0; MAX_CMW + 1]),
            Err(CmwError::TooLong { found: MAX_CMW + 1, limit: MAX_CMW })
        );
        // A one-byte length where the length fits the head.
        let mut long = vec![0x83, 0x78, MEDIA_TYPE.len() as u8];
        long.extend_from_slice(MEDIA_TYPE.as_bytes());
        assert_eq!(Evidence::from_cmw(&long), Err(CmwError::Malformed { what: "value" }), "40 needs one length byte");
        assert_eq!(
            Evidence::from_cmw(&[0x98, 0x03]),
            Err(CmwError::Malformed { what: "array" }),
            "lengths are minimal"
        );
    }
    /// A record around this value.
    fn record(value: &[u8]) -> Vec<u8> {
        let mut record = Vec::new();
        cbor::write_head(&mut record, cbor::ARRAY, 2);
        cbor::write_head(&mut record, cbor::TEXT, MEDIA_TYPE.len() as u64);
        record.extend_from_slice(MEDIA_TYPE.as_bytes());
        cbor::write_bytes(&mut record, value);
        record
    }

    #[test]
    fn refuses_values_with_other_keys_counts_and_ends() {
        // {1: h'', 2: h'', 3: [], 4: h''}
        let good = [0xa4, 1, 0x40, 2, 0x40, 3, 0x80, 4, 0x40];
        assert_eq!(Evidence::from_cmw(&record(&good)), Ok(Evidence::default()));
        let what = |value: &[u8]| match Evidence::from_cmw(&record(value)) {
            Err(CmwError::Malformed { what }) => what,
            other => panic!("{other:?}"),
        };
        for (at, expected) in [(1, "report"), (3, "certificate table"), (5, "revocation lists"), (7, "workload spec")] {
            let mut value = good;
            value[at] = 9;
            assert_eq!(what(&value), expected, "another key");
            let mut value = good;
            value[at] |= 0x20;
            assert_eq!(what(&value), expected, "a negative key");
            for (other, name) in [(0xf6, "null"), (0x60, "an empty text")] {
                let mut value = good;
                value[at + 1] = other;
                assert_eq!(what(&value), expected, "{name}");
            }
        }
        for fields in [0xa3, 0xa5] {
            let mut value = good;
            value[0] = fields;
            assert_eq!(what(&value), "map of four fields");
        }
        assert_eq!(what(&[&good[..], &[0]].concat()), "end of value");
        let lists = |count: u8| [&good[..6], &[0x80 | count], &vec![0x40; count.into()], &good[7..]].concat();
        assert_eq!(Evidence::from_cmw(&record(&lists(8))).unwrap().crls.len(), 8);
        assert_eq!(what(&lists(9)), "revocation lists");
    }
}
