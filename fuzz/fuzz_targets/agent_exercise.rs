//! What the targets of the agent's messages do with their input; the stable replay of the corpora includes this file too.

use coffer_guest::agent::refusal_of;
use coffer_guest_proto::{ExecRequest, FailureCode, Speech, event::EventReader};
use coffer_spec::{AuthorityKey, OwnerAuthority, OwnerList, SignedOwnerList, Tee, sample::workload};
use coffer_verifier::P384PublicKey;
use prost::Message as _;

/// A message of a caller's, as the agent reads it: what is refused is refused in few words that repeat nothing of it.
pub fn request(data: &[u8]) {
    let Ok(request) = ExecRequest::decode(data) else { return };
    if let Some(said) = refusal_of(request, &workload(Tee::Simulated)) {
        assert!(said.len() < 128 && !said.contains("canary"), "{said}");
    }
}

/// What a guest tells its host: of a TEE guest nothing comes through but words of the list and numbers.
pub fn event(data: &[u8]) {
    let mut reader = EventReader::default();
    for piece in data.chunks(61) {
        reader.push(piece);
        while let Ok(Some(event)) = reader.next_event() {
            let told = event.told(Speech::FixedWords);
            let Some(failure) = told.failure else { continue };
            assert!(failure.detail.is_empty() && failure.errno < 4096);
            assert!(failure.code.is_none_or(|code| FailureCode::of_word(code.word()) == Some(code)));
        }
    }
}

/// A list of owners that somebody brings: what is read of it is within its bounds, and nothing counts without the authority's signature.
pub fn owner_list(data: &[u8]) {
    let Ok(signed) = SignedOwnerList::parse(data) else { return };
    assert!(data.len() <= SignedOwnerList::LONGEST);
    if let Ok(list) = signed.unverified() {
        assert!(list.owners.len() <= OwnerList::MOST && list.check().is_ok());
        assert!(SignedOwnerList::of(&list).unverified() == Ok(list));
    }
    let key = AuthorityKey(P384PublicKey::from_sec1(&hex::decode(GENERATOR).expect("hex")).expect("a point"));
    let authority = OwnerAuthority { key, name: "prod".parse().expect("a name"), sequence: 0, kept: None };
    assert!(signed.verify(&authority, 0).is_err());
}

/// P-384's base point (FIPS 186-4, D.1.2.4), whose private key signs nothing here.
const GENERATOR: &str = "04aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e3872760ab7\
    3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5f";
