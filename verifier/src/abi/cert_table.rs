//! Certificate table of the extended guest request: what the host says the report's certificates are.
//!
//! Host supplied, so untrusted input: overlap, overflow and duplicates are refused. GUIDs occur in text order
//! (big endian, as Linux and GCP write them) and in Microsoft's mixed order; both are read, text order is written.
//! Source: GHCB 56421, SNP Extended Guest Request; SNP ABI, Appendix "Certificate table".

/// What one entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CertKind {
    /// Versioned chip endorsement key.
    Vcek,
    /// Versioned loaded endorsement key.
    Vlek,
    /// ASK or ASVK.
    Ask,
    /// AMD's root key.
    Ark,
    /// Revocation list.
    Crl,
    /// An entry we have no use for; its GUID in text order.
    Other([u8; 16]),
}

impl CertKind {
    const KNOWN: [(Self, u128); 5] = [
        (Self::Vcek, 0x63da758d_e664_4564_adc5_f4b93be8accd),
        (Self::Vlek, 0xa8074bc2_a25a_483e_aae6_39c045a0b8a1),
        (Self::Ask, 0x4ab7b379_bbac_4fe4_a02f_05aef327c782),
        (Self::Ark, 0xc0b406a4_a803_4952_9743_3fb6014cd0ae),
        (Self::Crl, 0x92f81bc3_5811_4d3d_97ff_d19f88dc67ea),
    ];

    /// Its GUID in text order.
    pub fn guid(self) -> [u8; 16] {
        match self {
            Self::Other(guid) => guid,
            known => Self::KNOWN
                .iter()
                .find_map(|(kind, guid)| (*kind == known).then(|| guid.to_be_bytes()))
                .unwrap_or_default(),
        }
    }

    fn from_guid(bytes: [u8; 16]) -> Self {
        let mut mixed = bytes;
        mixed[0..4].reverse();
        mixed[4..6].reverse();
        mixed[6..8].reverse();
        Self::KNOWN
            .iter()
            .find_map(|(kind, guid)| {
                let guid = guid.to_be_bytes();
                (guid == bytes || guid == mixed).then_some(*kind)
            })
            .unwrap_or(Self::Other(bytes))
    }
}

/// Parsed certificate table. Contents are DER or PEM, as the host had them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertTable<'a> {
    entries: Vec<(CertKind, &'a [u8])>,
}

/// Why bytes are not a certificate table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertTableError {
    /// The terminating zero entry is missing.
    #[error("certificate table of {found} bytes has no terminating entry")]
    Unterminated {
        /// Bytes given.
        found: usize,
    },
    /// More entries than any table has.
    #[error("certificate table has more than {limit} entries")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// An entry points outside the table, or into its header.
    #[error("certificate table entry {index} spans {offset}+{length}, outside {start}..{end}")]
    Range {
        /// Which entry, from 0.
        index: usize,
        /// Its offset.
        offset: u32,
        /// Its length.
        length: u32,
        /// First byte after the header.
        start: usize,
        /// Bytes of the table.
        end: usize,
    },
    /// Two entries share bytes.
    #[error("certificate table entries {first} and {second} overlap")]
    Overlap {
        /// The one that stands first.
        first: usize,
        /// The other.
        second: usize,
    },
    /// Two entries of one kind.
    #[error("certificate table has two entries of kind {kind:?}")]
    Duplicate {
        /// The kind.
        kind: CertKind,
    },
}

const ENTRY: usize = 24;
/// Far above what any host sends.
const MAX_ENTRIES: usize = 32;

impl<'a> CertTable<'a> {
    /// Parses a table; no bytes at all is an empty table.
    ///
    /// # Errors
    /// [`CertTableError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, CertTableError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let mut headers = Vec::new();
        let mut rest = bytes;
        loop {
            let (entry, tail) =
                rest.split_first_chunk::<ENTRY>().ok_or(CertTableError::Unterminated { found: bytes.len() })?;
            if entry.iter().all(|byte| *byte == 0) {
                break;
            }
            if headers.len() == MAX_ENTRIES {
                return Err(CertTableError::TooMany { limit: MAX_ENTRIES });
            }
            let mut guid = [0; 16];
            guid.copy_from_slice(&entry[..16]);
            let word = |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
            headers.push((CertKind::from_guid(guid), word(16), word(20)));
            rest = tail;
        }
        let start = (headers.len() + 1) * ENTRY;
        let mut entries: Vec<(CertKind, &'a [u8])> = Vec::with_capacity(headers.len());
        let mut spans: Vec<core::ops::Range<usize>> = Vec::with_capacity(headers.len());
        for (index, (kind, offset, length)) in headers.into_iter().enumerate() {
            let from = offset as usize;
            let content = from
                .checked_add(length as usize)
                .filter(|_| from >= start)
                .and_then(|to| bytes.get(from..to))
                .ok_or(CertTableError::Range { index, offset, length, start, end: bytes.len() })?;
            let span = from..from + content.len();
            if let Some(first) = spans.iter().position(|other| span.start < other.end && other.start < span.end) {
                return Err(CertTableError::Overlap { first, second: index });
            }
            if entries.iter().any(|(other, _)| *other == kind) {
                return Err(CertTableError::Duplicate { kind });
            }
            spans.push(span);
            entries.push((kind, content));
        }
        Ok(Self { entries })
    }

    /// True if bytes begin as a table does, or are one, with an entry of a kind that is known.
    pub fn is_one(bytes: &'a [u8]) -> bool {
        let known = |kind: CertKind| !matches!(kind, CertKind::Other(_));
        bytes.first_chunk().is_some_and(|guid| known(CertKind::from_guid(*guid)))
            || Self::parse(bytes).is_ok_and(|table| table.entries.iter().any(|(kind, _)| known(*kind)))
    }

    /// A table with these entries, in this order.
    pub fn write(entries: &[(CertKind, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut offset = (entries.len() + 1) * ENTRY;
        for (kind, content) in entries {
            out.extend_from_slice(&kind.guid());
            out.extend_from_slice(&(offset as u32).to_le_bytes());
            out.extend_from_slice(&(content.len() as u32).to_le_bytes());
            offset += content.len();
        }
        out.extend_from_slice(&[0; ENTRY]);
        for (_, content) in entries {
            out.extend_from_slice(content);
        }
        out
    }

    /// Entries in table order.
    pub fn entries(&self) -> &[(CertKind, &'a [u8])] {
        &self.entries
    }

    /// Content of one kind.
    pub fn find(&self, kind: CertKind) -> Option<&'a [u8]> {
        self.entries.iter().find_map(|(found, content)| (*found == kind).then_some(*content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        CertTable::write(&[(CertKind::Ark, b"root"), (CertKind::Ask, b"middle"), (CertKind::Vcek, b"leaf")])
    }

    #[test]
    fn reads_what_it_writes() {
        let bytes = sample();
        let table = CertTable::parse(&bytes).unwrap();
        assert_eq!(table.find(CertKind::Ask), Some(b"middle".as_slice()));
        assert_eq!(CertTable::write(table.entries()), bytes);
        assert_eq!(CertTable::parse(&[]).unwrap().entries(), &[]);
        assert_eq!(CertTable::parse(&[0; 4096]).unwrap().entries(), &[]);
        assert!(CertTable::is_one(&bytes) && CertTable::is_one(&bytes[..80]), "one that breaks off was one");
        let behind = CertTable::write(&[(CertKind::Other([7; 16]), b"x"), (CertKind::Ark, b"root")]);
        assert!(CertTable::is_one(&behind));
        for none in [&[0; 48][..], b"", &CertTable::write(&[(CertKind::Other([7; 16]), b"x")])] {
            assert!(!CertTable::is_one(none));
        }
    }

    #[test]
    fn reads_mixed_order_guids() {
        let mut bytes = sample();
        bytes[0..4].reverse();
        bytes[4..6].reverse();
        bytes[6..8].reverse();
        assert_eq!(CertTable::parse(&bytes).unwrap().find(CertKind::Ark), Some(b"root".as_slice()));
    }

    #[test]
    fn refuses_overlap_overflow_duplicates_and_missing_end() {
        let patched = |at: usize, value: u32| {
            let mut bytes = sample();
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            CertTable::parse(&bytes).map(|_| ()).unwrap_err()
        };
        assert_eq!(patched(ENTRY + 16, 97), CertTableError::Overlap { first: 0, second: 1 });
        assert!(matches!(patched(16, 95), CertTableError::Range { index: 0, .. }), "points into the header");
        assert!(matches!(patched(16, u32::MAX), CertTableError::Range { index: 0, .. }));
        assert!(matches!(patched(20, u32::MAX), CertTableError::Range { index: 0, .. }));
        let twice = CertTable::write(&[(CertKind::Ark, b"a"), (CertKind::Ark, b"b")]);
        assert_eq!(CertTable::parse(&twice), Err(CertTableError::Duplicate { kind: CertKind::Ark }));
        assert!(matches!(CertTable::parse(&sample()[..48]), Err(CertTableError::Unterminated { .. })));
        let many = vec![1_u8; ENTRY * 40];
        assert!(matches!(CertTable::parse(&many), Err(CertTableError::TooMany { .. })));
    }
}
