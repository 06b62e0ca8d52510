use coffer_verifier::abi::DerivedKey;
use proptest::prelude::*;
use secrecy::SecretBox;

use super::*;
use crate::{BrokerKey, MinimumSvn, Scope, SealPolicy, Secrets, Source};

fn key(byte: u8) -> Keys {
    Secrets::Processor(DerivedKey::new([byte; 32])).of(Scope::Agent)
}

/// Those of a source, from a secret of the processor's and one of the broker's.
fn keys(source: Source, processor: u8, broker: u8) -> Keys {
    let processor = DerivedKey::new([processor; 32]);
    let broker = BrokerKey::new(SecretBox::new(Box::new([broker; 32])));
    let secrets = match source {
        Source::Processor => Secrets::Processor(processor),
        Source::Both => Secrets::Both(processor, broker),
        Source::Broker => Secrets::Broker(broker),
    };
    secrets.of(Scope::Agent)
}

fn sealed(plaintext: &[u8]) -> Vec<u8> {
    let header = Header::new(SealPolicy::MeasurementAndChip, true, 5, b"db", [9; 32]);
    seal(&key(1), &header, b"db", plaintext).unwrap()
}

#[test]
fn every_length_around_a_chunk_comes_back() {
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 7] {
        let plaintext: Vec<u8> = (0..length).map(|index| index as u8).collect();
        let file = sealed(&plaintext);
        assert_eq!(*unseal(&key(1), b"db", None, &file).unwrap(), plaintext, "{length}");
        assert_eq!(Header::peek(&file).unwrap().tcb, 5);
    }
}

#[test]
fn every_policy_opens_with_its_own_secrets_alone() {
    for policy in SealPolicy::ALL {
        let header = Header::new(policy, true, 5, b"db", [9; 32]);
        let file = seal(&keys(policy.source(), 1, 2), &header, b"db", b"secret").unwrap();
        for source in [Source::Processor, Source::Both, Source::Broker] {
            let opened = unseal(&keys(source, 1, 2), b"db", None, &file);
            if source == policy.source() {
                assert_eq!(*opened.unwrap(), b"secret");
            } else {
                assert_eq!(opened.unwrap_err(), SealError::Keys { policy, needs: policy.source().name() });
            }
        }
        let with = |processor, broker| unseal(&keys(policy.source(), processor, broker), b"db", None, &file).is_ok();
        assert_eq!(with(9, 2), policy.source() == Source::Broker, "{policy}: another processor");
        assert_eq!(with(1, 9), policy.source() == Source::Processor, "{policy}: another broker");
        for other in SealPolicy::ALL.into_iter().filter(|other| *other != policy) {
            let mut swapped = file.clone();
            swapped[..HEADER].copy_from_slice(&Header { policy: other, ..header }.encode());
            let refused = unseal(&keys(other.source(), 1, 2), b"db", None, &swapped).unwrap_err();
            assert_eq!(refused, SealError::Closed, "{policy} as {other}");
        }
    }
}

#[test]
fn a_file_with_a_counter_opens_at_its_generation_alone() {
    let keys = keys(Source::Broker, 1, 2);
    let plain = Header::new(SealPolicy::Workload, true, 5, b"db", [9; 32]);
    let header = Header { counter: [1; 16], generation: 3, ..plain };
    let file = seal(&keys, &header, b"db", b"x").unwrap();
    assert!(unseal(&keys, b"db", Some(3), &file).is_ok());
    assert_eq!(unseal(&keys, b"db", None, &file).unwrap_err(), SealError::Counter);
    for current in [0, 2, 4] {
        assert_eq!(unseal(&keys, b"db", Some(current), &file).unwrap_err(), SealError::Older { found: 3, current });
    }
    // Whoever stores it writes another generation, or none, into the header.
    for (forged, current) in [(Header { generation: 4, ..header }, Some(4)), (plain, None)] {
        let mut file = file.clone();
        file[..HEADER].copy_from_slice(&forged.encode());
        assert_eq!(unseal(&keys, b"db", current, &file).unwrap_err(), SealError::Closed);
    }
    let of_the_processor = Header { policy: SealPolicy::MeasurementAndChip, ..header };
    assert!(matches!(seal(&key(1), &of_the_processor, b"db", b"x"), Err(SealError::Format { .. })));
}

#[test]
fn the_minimum_svn_is_part_of_the_key() {
    let keys = keys(Source::Broker, 1, 2);
    let at = |svn| Header {
        minimum_svn: MinimumSvn::new(svn).unwrap(),
        ..Header::new(SealPolicy::Signer, true, 5, b"db", [9; 32])
    };
    let mut file = seal(&keys, &at(7), b"db", b"x").unwrap();
    assert!(unseal(&keys, b"db", None, &file).is_ok());
    file[..HEADER].copy_from_slice(&at(6).encode());
    assert_eq!(unseal(&keys, b"db", None, &file).unwrap_err(), SealError::Closed);
}

#[test]
fn a_header_of_another_context_is_not_sealed_under() {
    let header = Header::new(SealPolicy::MeasurementAndChip, true, 5, b"other", [9; 32]);
    assert!(matches!(seal(&key(1), &header, b"db", b"x"), Err(SealError::Format { .. })));
}

#[test]
fn more_than_the_limit_is_refused() {
    let header = Header::new(SealPolicy::MeasurementAndChip, true, 5, b"", [9; 32]);
    let mut sealer = Sealer::new(&key(1), &header, b"").unwrap();
    sealer.0.next = LIMIT / CHUNK as u64 - 1;
    assert!(sealer.chunk(&mut vec![0; CHUNK], false).is_ok(), "its last chunk");
    assert_eq!(sealer.chunk(&mut [0], true), Err(SealError::TooLong));
}

#[test]
fn nothing_comes_behind_the_last_chunk() {
    let header = Header::new(SealPolicy::MeasurementAndChip, true, 5, b"", [9; 32]);
    let mut sealer = Sealer::new(&key(1), &header, b"").unwrap();
    sealer.chunk(&mut [1], true).unwrap();
    assert_eq!(sealer.chunk(&mut [1], true), Err(SealError::Closed));
    let mut sealer = Sealer::new(&key(1), &header, b"").unwrap();
    for (length, last) in [(CHUNK - 1, false), (CHUNK + 1, false), (CHUNK + 1, true), (0, false)] {
        assert!(matches!(sealer.chunk(&mut vec![0; length], last), Err(SealError::Format { .. })), "{length} {last}");
    }
}

/// Gives bytes in pieces of odd sizes, as pipes do.
struct Trickle<'a>(&'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(10_007);
        self.0.read(&mut buffer[..length])
    }
}

#[test]
fn a_stream_is_the_same_file() {
    let header = Header::new(SealPolicy::MeasurementAndChip, true, 5, b"db", [9; 32]);
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 7] {
        let plaintext: Vec<u8> = (0..length).map(|index| index as u8).collect();
        let (mut file, mut opened) = (Vec::new(), Vec::new());
        seal_stream(&key(1), &header, b"db", &mut Trickle(&plaintext), &mut file).unwrap();
        assert!(file == sealed(&plaintext), "{length}");
        unseal_stream(|found| Ok((key(found.tcb as u8 - 4), None)), b"db", &mut Trickle(&file), &mut opened).unwrap();
        assert!(opened == plaintext, "{length}");
        for cut in
            [HEADER - 1, HEADER, file.len() - 1, HEADER + CHUNK + TAG].into_iter().filter(|cut| *cut < file.len())
        {
            let refused = unseal_stream(|_| Ok((key(1), None)), b"db", &mut Trickle(&file[..cut]), &mut Vec::new());
            assert!(matches!(refused, Err(StreamError::Seal(_))), "{length} cut to {cut}");
        }
    }
}

#[test]
fn every_bit_of_the_header_is_authenticated() {
    let file = sealed(b"secret");
    for bit in 0..HEADER * 8 {
        let mut changed = file.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(unseal(&key(1), b"db", None, &changed).is_err(), "bit {bit}");
    }
}

#[test]
fn a_file_has_one_encoding_only() {
    // The key's owner seals a full chunk as if more followed, then an empty last one.
    let header = Header::new(SealPolicy::MeasurementAndChip, true, 5, b"db", [9; 32]);
    let mut sealer = Sealer::new(&key(1), &header, b"db").unwrap();
    let mut file = sealer.header().to_vec();
    let mut chunk = vec![7; CHUNK];
    let tag = sealer.chunk(&mut chunk, false).unwrap();
    file.extend(chunk.into_iter().chain(tag));
    let (nonce, aad) = (sealer.0.nonce(true).unwrap(), Aad::from(&sealer.0.encoded));
    file.extend_from_slice(sealer.0.key.seal_in_place_separate_tag(nonce, aad, &mut []).unwrap().as_ref());
    assert_eq!(unseal(&key(1), b"db", None, &file).unwrap_err(), SealError::Closed);
}

#[test]
fn another_key_or_context_does_not_open() {
    let file = sealed(b"secret");
    assert_eq!(unseal(&key(2), b"db", None, &file).unwrap_err(), SealError::Closed);
    assert_eq!(unseal(&key(1), b"other", None, &file).unwrap_err(), SealError::Closed);
}

#[test]
fn chunks_cannot_be_dropped_moved_repeated_or_appended() {
    let plaintext = vec![7; 3 * CHUNK];
    let file = sealed(&plaintext);
    let chunk = |index: usize| &file[HEADER + index * (CHUNK + TAG)..HEADER + (index + 1) * (CHUNK + TAG)];
    let with = |order: &[usize]| {
        let mut out = file[..HEADER].to_vec();
        for index in order {
            out.extend_from_slice(chunk(*index));
        }
        out
    };
    assert!(unseal(&key(1), b"db", None, &with(&[0, 1, 2])).is_ok());
    for order in [&[][..], &[0], &[0, 1], &[1, 0, 2], &[0, 0, 1, 2], &[0, 1, 2, 2], &[0, 2], &[2]] {
        assert!(unseal(&key(1), b"db", None, &with(order)).is_err(), "{order:?}");
    }
    let mut longer = file.clone();
    longer.push(0);
    assert!(unseal(&key(1), b"db", None, &longer).is_err());
}

proptest! {
    #[test]
    fn any_flipped_bit_is_refused(plaintext in proptest::collection::vec(any::<u8>(), 0..200), at: prop::sample::Index, bit in 0..8u8) {
        let mut file = sealed(&plaintext);
        let at = at.index(file.len());
        file[at] ^= 1 << bit;
        prop_assert!(unseal(&key(1), b"db", None, &file).is_err());
    }

    #[test]
    fn any_cut_is_refused(plaintext in proptest::collection::vec(any::<u8>(), 0..200), at: prop::sample::Index) {
        let file = sealed(&plaintext);
        prop_assert!(unseal(&key(1), b"db", None, &file[..at.index(file.len())]).is_err());
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Header::peek(&bytes);
        prop_assert!(unseal(&key(1), b"", None, &bytes).is_err());
    }
}
