use p384::ecdsa::{Signature, SigningKey, signature::Signer as _};

use super::*;
use crate::OwnerMay;

fn pair(seed: u8) -> (SigningKey, P384PublicKey) {
    let key = SigningKey::from_slice(&[seed; 48]).unwrap();
    let public = P384PublicKey::from_sec1(key.verifying_key().to_sec1_point(false).as_bytes()).unwrap();
    (key, public)
}

fn list(sequence: u64) -> OwnerList {
    OwnerList {
        name: "prod".parse().unwrap(),
        sequence,
        expires: UnixTime::from_secs(2_000),
        owners: vec![Owner { key: SpkiDigest::new([9; 32]), may: OwnerMay::all() }],
    }
}

fn signed(list: &OwnerList, seed: u8) -> SignedOwnerList {
    let (key, public) = pair(seed);
    let envelope = SignedOwnerList::of(list);
    let signature: Signature = key.sign(&envelope.signing_input());
    let envelope = envelope.with_signature(&public, signature.to_bytes().into());
    SignedOwnerList::parse(envelope.to_json().as_bytes()).unwrap()
}

fn authority(seed: u8) -> OwnerAuthority {
    OwnerAuthority { key: AuthorityKey(pair(seed).1), name: "prod".parse().unwrap(), sequence: 3, kept: None }
}

#[test]
fn what_the_authority_signed_for_these_guests_is_taken() {
    assert_eq!(signed(&list(5), 1).verify(&authority(1), 5), Ok(list(5)));
    assert!(list(5).current(UnixTime::from_secs(1_999)).is_ok());
}

#[test]
fn every_other_list_is_refused_by_its_word() {
    let other = OwnerList { name: "test".parse().unwrap(), ..list(5) };
    let word = |signed: SignedOwnerList, floor| signed.verify(&authority(1), floor).unwrap_err().word();
    assert_eq!(word(signed(&list(5), 2), 0), "owner-list-not-signed");
    assert_eq!(word(signed(&other, 1), 0), "owner-list-of-others");
    // Below what the guest knows of, and below what the spec asks for.
    assert_eq!(word(signed(&list(5), 1), 6), "owner-list-older");
    assert_eq!(word(signed(&list(2), 1), 0), "owner-list-older");
    assert_eq!(list(5).current(UnixTime::from_secs(2_000)).unwrap_err().word(), "owner-list-expired");
    for bad in [&b"{}"[..], b"", b"\xff", &vec![b' '; SignedOwnerList::LONGEST + 1]] {
        assert_eq!(SignedOwnerList::parse(bad).unwrap_err().word(), "owner-list-malformed");
    }
}

#[test]
fn a_signed_list_that_says_nothing_or_two_things_is_none() {
    let twice = OwnerList { owners: [list(1).owners, list(1).owners].concat(), ..list(1) };
    let zero = Owner { key: SpkiDigest::new([0; 32]), may: OwnerMay::all() };
    let many = (0..65).map(|at| Owner { key: SpkiDigest::new([at + 1; 32]), may: OwnerMay::all() }).collect();
    let endless = OwnerList { expires: UnixTime::from_secs(i64::MAX), ..list(1) };
    assert!(matches!(endless.check(), Err(OwnerListError::Field { field: "expires", .. })));
    for bad in [
        list(0),
        list(1 << 53),
        twice,
        OwnerList { owners: vec![zero], ..list(1) },
        OwnerList { owners: many, ..list(1) },
    ] {
        let error = signed(&bad, 1).by(&pair(1).1).unwrap_err();
        assert!(matches!(error, OwnerListError::Field { .. }), "{error}");
    }
    // Nobody is an owner: a list may say so.
    assert!(signed(&OwnerList { owners: Vec::new(), ..list(1) }, 1).by(&pair(1).1).is_ok());
}

#[test]
fn the_longest_list_has_room() {
    let owners = (0..64).map(|at| Owner { key: SpkiDigest::new([at + 1; 32]), may: OwnerMay::all() }).collect();
    let longest = OwnerList { name: "n".repeat(64).parse().unwrap(), sequence: MAX_SEQUENCE, owners, ..list(1) };
    assert_eq!(signed(&longest, 1).by(&pair(1).1), Ok(longest));
}

#[test]
fn another_type_signed_with_the_same_key_is_no_list() {
    let (key, public) = pair(1);
    let bytes = list(5).to_bytes();
    let input = coffer_verifier::manifest::signing_input(&bytes);
    let signature: Signature = key.sign(&input);
    let envelope = SignedOwnerList(Envelope::of(bytes).with_signature(&public, signature.to_bytes().into()));
    assert_eq!(envelope.verify(&authority(1), 0).unwrap_err().word(), "owner-list-not-signed");
}
