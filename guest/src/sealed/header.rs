//! What a volume's two headers say, and which of them is believed. Pure.
//!
//! A header is a sealed file in a block of its own: nobody but this volume's guests makes one. That it is the newest only the
//! record at the key broker shows.

use coffer_kbs_client::{VolumeRecord, VolumeState};
use coffer_spec::Unclean;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// 32 bytes for HMAC-SHA-256, 64 for AES-256-XTS.
pub const KEY: usize = 32 + 64;

/// Keys of a volume, made once, and what its tags must begin with.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secrets {
    /// Of its blocks.
    pub key: [u8; KEY],
    /// Of the journal's sections.
    pub journal: [u8; 32],
    /// SHA-256 of dm-integrity's superblock, so that none is read that the host wrote.
    pub superblock: [u8; 32],
}

/// A header's plaintext.
pub struct Contents {
    /// Of which record it is.
    pub record: VolumeRecord,
    /// Bytes of the volume.
    pub bytes: u64,
    /// Its keys.
    pub secrets: Secrets,
    /// SHA-256 over all tags and the journal; zeros in one of an open volume.
    pub root: [u8; 32],
}

const MAGIC: &[u8; 8] = b"COFVOL\0\x01";

impl Contents {
    /// As it is sealed.
    pub fn encode(&self) -> zeroize::Zeroizing<Vec<u8>> {
        let Secrets { key, journal, superblock } = &self.secrets;
        let (record, bytes) = (self.record.counter().to_be_bytes(), self.bytes.to_be_bytes());
        let parts: [&[u8]; 7] = [MAGIC, &record, &bytes, key, journal, superblock, &self.root];
        let mut out = zeroize::Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.len()).sum()));
        for part in parts {
            out.extend_from_slice(part);
        }
        out
    }

    /// From what was sealed.
    pub fn decode(mut from: &[u8]) -> Option<Self> {
        let from = &mut from;
        if take::<8>(from)? != *MAGIC {
            return None;
        }
        let record = VolumeRecord::of_counter(u64::from_be_bytes(take(from)?))?;
        let bytes = u64::from_be_bytes(take(from)?);
        let secrets = Secrets { key: take(from)?, journal: take(from)?, superblock: take(from)? };
        let contents = Self { record, bytes, secrets, root: take(from)? };
        from.is_empty().then_some(contents)
    }
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*taken)
}

/// One of the two places for a header, as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Zeros.
    Empty,
    /// Something that does not open here.
    Closed,
    /// The header of this record.
    Of(VolumeRecord),
}

/// What is to be done with a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It is made.
    Make,
    /// It was closed: the header in this place says how.
    Closed(usize),
    /// It was not, and what is left of it is used: the header in this place has its keys.
    Recover(usize),
}

/// Why a volume is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Nothing on the disk opens here.
    Closed,
    /// What opens is not what the record is of.
    Older,
    /// It was not closed.
    Unclean,
}

/// What a volume without a record's keeper rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// The key broker, which says this; nothing if nobody began it.
    Broker(Option<VolumeRecord>),
    /// Nobody: the newest header there is counts.
    Nobody,
}

/// Decides.
pub fn decide(keeper: Keeper, slots: [Slot; 2], unclean: Unclean) -> Result<Way, Refused> {
    let empty = slots == [Slot::Empty; 2];
    let opens = |slot: &Slot| matches!(slot, Slot::Of(_));
    // A disk that has something of somebody else's is never written over, whoever says that it may begin.
    let foreign = if empty || slots.iter().any(opens) { Refused::Older } else { Refused::Closed };
    let at = |record: VolumeRecord| slots.iter().position(|slot| *slot == Slot::Of(record)).ok_or(foreign);
    let left_open = |place| match unclean {
        Unclean::Refuse => Err(Refused::Unclean),
        Unclean::Recover => Ok(Way::Recover(place)),
    };
    let record = match keeper {
        Keeper::Broker(None) | Keeper::Nobody if empty => return Ok(Way::Make),
        Keeper::Broker(None) => return Err(foreign),
        Keeper::Broker(Some(record)) => record,
        Keeper::Nobody => {
            let found = slots.iter().filter_map(|slot| match slot {
                Slot::Of(record) => Some(*record),
                Slot::Empty | Slot::Closed => None,
            });
            found.max_by_key(|record| record.counter()).ok_or(Refused::Closed)?
        }
    };
    match record.state {
        VolumeState::Closed => at(record).map(Way::Closed),
        VolumeState::Open => at(record).and_then(left_open),
        VolumeState::Confirmed => at(VolumeRecord { state: VolumeState::Open, ..record }).map(Way::Recover),
        VolumeState::Forgotten if empty => Ok(Way::Make),
        VolumeState::Forgotten => Err(foreign),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: VolumeRecord = VolumeRecord::FIRST;

    fn contents(record: VolumeRecord) -> Contents {
        let secrets = Secrets { key: [1; KEY], journal: [2; 32], superblock: [3; 32] };
        Contents { record, bytes: 16 << 20, secrets, root: [4; 32] }
    }

    #[test]
    fn contents_are_read_back_and_no_others_are() {
        let encoded = contents(FIRST.closed()).encode();
        let decoded = Contents::decode(&encoded).unwrap();
        assert_eq!((decoded.record, decoded.bytes, decoded.root), (FIRST.closed(), 16 << 20, [4; 32]));
        assert!(decoded.secrets.key == [1; KEY] && decoded.secrets.journal == [2; 32]);
        assert_eq!(decoded.secrets.superblock, [3; 32]);
        for end in 0..encoded.len() {
            assert!(Contents::decode(&encoded[..end]).is_none(), "{end}");
        }
        let mut other = encoded.clone();
        other.push(0);
        assert!(Contents::decode(&other).is_none());
        other[7] = 2;
        assert!(Contents::decode(&other[..encoded.len()]).is_none(), "another version");
    }

    #[test]
    fn a_life_of_openings_and_closings_goes_on_from_where_it_was() {
        let (closed, again) = (FIRST.closed(), FIRST.closed().opened());
        let broker = |record| Keeper::Broker(Some(record));
        let decided = |keeper, slots| decide(keeper, slots, Unclean::Refuse);
        assert_eq!(decided(Keeper::Broker(None), [Slot::Empty; 2]), Ok(Way::Make));
        assert_eq!(decided(broker(closed), [Slot::Of(FIRST), Slot::Of(closed)]), Ok(Way::Closed(1)));
        // The header of the next opening was written, and the record was not moved.
        assert_eq!(decided(broker(closed), [Slot::Of(again), Slot::Of(closed)]), Ok(Way::Closed(1)));
        assert_eq!(decided(Keeper::Nobody, [Slot::Of(FIRST), Slot::Of(closed)]), Ok(Way::Closed(1)));
        assert_eq!(decided(Keeper::Nobody, [Slot::Empty; 2]), Ok(Way::Make));
    }

    #[test]
    fn one_that_was_not_closed_is_used_where_the_spec_or_an_owner_says_so() {
        let (closed, again) = (FIRST.closed(), FIRST.closed().opened());
        let slots = [Slot::Of(again), Slot::Of(closed)];
        for keeper in [Keeper::Broker(Some(again)), Keeper::Nobody] {
            assert_eq!(decide(keeper, slots, Unclean::Refuse), Err(Refused::Unclean));
            assert_eq!(decide(keeper, slots, Unclean::Recover), Ok(Way::Recover(0)));
        }
        let confirmed = Keeper::Broker(again.confirmed());
        assert_eq!(decide(confirmed, slots, Unclean::Refuse), Ok(Way::Recover(0)));
        // Its last header was written, and the record was not moved.
        let half = [Slot::Of(again), Slot::Of(again.closed())];
        assert_eq!(decide(confirmed, half, Unclean::Refuse), Ok(Way::Recover(0)));
    }

    #[test]
    fn an_older_disk_an_empty_one_and_somebody_elses_are_refused_by_name() {
        let record = FIRST.closed().opened().closed();
        let older = [Slot::Of(FIRST), Slot::Of(FIRST.closed())];
        for unclean in [Unclean::Refuse, Unclean::Recover] {
            for keeper in [record, record.opened(), record.opened().confirmed().unwrap()] {
                let keeper = Keeper::Broker(Some(keeper));
                assert_eq!(decide(keeper, older, unclean), Err(Refused::Older), "{keeper:?}");
                assert_eq!(decide(keeper, [Slot::Empty; 2], unclean), Err(Refused::Older), "{keeper:?}");
                assert_eq!(decide(keeper, [Slot::Closed; 2], unclean), Err(Refused::Closed), "{keeper:?}");
                assert_eq!(decide(keeper, [Slot::Closed, Slot::Empty], unclean), Err(Refused::Closed));
            }
            // Of a subject that never had one, and of one that may begin anew.
            for keeper in [Keeper::Broker(None), Keeper::Broker(Some(record.forgotten()))] {
                assert_eq!(decide(keeper, older, unclean), Err(Refused::Older));
                assert_eq!(decide(keeper, [Slot::Closed, Slot::Empty], unclean), Err(Refused::Closed));
                assert_eq!(decide(keeper, [Slot::Empty; 2], unclean), Ok(Way::Make));
            }
            assert_eq!(decide(Keeper::Nobody, [Slot::Closed, Slot::Empty], unclean), Err(Refused::Closed));
        }
    }
}
