//! What the targets of the agent's messages do with their input; the stable replay of the corpora includes this file too.

use coffer_guest::agent::refusal_of;
use coffer_guest_proto::{ExecRequest, FailureCode, Speech, event::EventReader};
use coffer_spec::{Tee, sample::workload};
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
