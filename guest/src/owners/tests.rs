use coffer_spec::{AuthorityKey, OwnerMay, Tee};
use coffer_verifier::{P384PublicKey, abi::SpkiDigest};
use p384::ecdsa::{Signature, SigningKey, signature::Signer as _};

use super::*;

const NOW: UnixTime = UnixTime::from_secs(1_000);

fn key() -> (SigningKey, P384PublicKey) {
    let key = SigningKey::from_slice(&[5; 48]).unwrap();
    let public = P384PublicKey::from_sec1(key.verifying_key().to_sec1_point(false).as_bytes()).unwrap();
    (key, public)
}

fn owner(name: &str, may: &str) -> Owner {
    Owner { key: SpkiDigest::of(name.as_bytes()), may: OwnerMay::parse(may).unwrap() }
}

/// Alice is of the spec.
fn owners(kept: bool) -> Owners {
    let authority = OwnerAuthority {
        key: AuthorityKey(key().1),
        name: "prod".parse().unwrap(),
        sequence: 0,
        kept: kept.then(|| "kbs:///default/owners/prod".parse().unwrap()),
    };
    Owners::of(&WorkloadSpec {
        owners: vec![owner("alice", "logs")],
        owner_authority: Some(authority),
        ..coffer_spec::sample::workload(Tee::Simulated)
    })
}

fn list(sequence: u64, expires: UnixTime, owners: Vec<Owner>) -> OwnerList {
    OwnerList { name: "prod".parse().unwrap(), sequence, expires, owners }
}

fn signed(list: &OwnerList) -> Vec<u8> {
    let (key, public) = key();
    let envelope = SignedOwnerList::of(list);
    let signature: Signature = key.sign(&envelope.signing_input());
    envelope.with_signature(&public, signature.to_bytes().into()).to_json().into_bytes()
}

fn far() -> UnixTime {
    UnixTime::from_secs(4_000_000_000)
}

#[test]
fn without_an_authority_they_are_the_specs() {
    let spec = WorkloadSpec { owners: vec![owner("alice", "exec")], ..coffer_spec::sample::workload(Tee::Simulated) };
    let owners = Owners::of(&spec);
    assert_eq!(owners.now(), spec.owners);
    assert_eq!(owners.brought(b"{}").unwrap_err().word(), "no-owner-authority");
}

#[test]
fn a_list_that_is_brought_adds_and_takes_nobody_away() {
    let owners = owners(false);
    let bob = list(3, far(), vec![owner("bob", "exec"), owner("alice", "top")]);
    assert_eq!(owners.brought(&signed(&bob)).unwrap(), 3);
    assert_eq!(owners.now(), [owner("alice", "logs"), owner("bob", "exec"), owner("alice", "top")]);
    // The next one takes its place, and an older one is not taken again.
    assert_eq!(owners.brought(&signed(&list(4, far(), Vec::new()))).unwrap(), 4);
    assert_eq!(owners.now(), [owner("alice", "logs")]);
    assert_eq!(owners.brought(&signed(&bob)).unwrap_err().word(), "owner-list-older");
    assert_eq!(owners.brought(&signed(&list(9, NOW, Vec::new()))).unwrap_err().word(), "owner-list-expired");
    assert_eq!(owners.now(), [owner("alice", "logs")]);
}

#[test]
fn a_list_whose_time_is_over_adds_nobody() {
    let owners = owners(false);
    let (_, known) = owners.known.as_ref().unwrap();
    *known.write().unwrap() = Known::List(list(1, UnixTime::from_secs(2_000), vec![owner("bob", "exec")]));
    assert_eq!(owners.at(Some(UnixTime::from_secs(1_999))).len(), 2);
    for later in [Some(UnixTime::from_secs(2_000)), None] {
        assert_eq!(owners.at(later), [owner("alice", "logs")]);
    }
}

#[test]
fn where_the_broker_keeps_the_list_nobody_is_an_owner_before_it_was_asked() {
    let owners = owners(true);
    assert!(owners.at(Some(NOW)).is_empty());
    assert_eq!(owners.brought(&signed(&list(1, far(), Vec::new()))).unwrap_err().word(), "owner-list-kept-at-broker");
    let (_, known) = owners.known.as_ref().unwrap();
    let bob = list(7, UnixTime::from_secs(2_000), vec![owner("bob", "exec")]);
    for (is, expected) in [
        (Known::NoList, vec![owner("alice", "logs")]),
        (Known::List(bob), vec![owner("bob", "exec")]),
        (Known::Lost(7), Vec::new()),
    ] {
        *known.write().unwrap() = is;
        assert_eq!(owners.at(Some(NOW)), expected);
    }
    // Nobody's clock says that it is over, and nobody's that it is not.
    let late = list(8, NOW, vec![owner("bob", "exec")]);
    *known.write().unwrap() = Known::List(late);
    for now in [Some(NOW), None] {
        assert!(owners.at(now).is_empty());
    }
}
