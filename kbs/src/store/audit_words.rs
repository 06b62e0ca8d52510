//! Every word that stands for an event or an outcome in a line of the trail.

/// What a line can be for.
pub const EVENTS: &[&str] = &[
    "admin.add",
    "admin.call",
    "admin.connect",
    "admin.remove",
    "audit.archive",
    "audit.lost",
    "certificate-profile.put",
    "certificate-profile.remove",
    "certificate.issue",
    "crl.put",
    "crl.remove",
    "generation.read",
    "generation.set",
    "guest.attest",
    "manifest-key.add",
    "manifest-key.remove",
    "manifest.add",
    "manifest.revoke",
    "policy.put",
    "policy.remove",
    "reference.add",
    "reference.remove",
    "revocation.add",
    "revocation.remove",
    "root.rotate",
    "sealing-key.release",
    "sealing.put",
    "sealing.remove",
    "secret.delete",
    "secret.destroy",
    "secret.put",
    "secret.release",
    "secret.undelete",
    "secret.update",
    "signer.add",
    "signer.remove",
    "state.confirm",
    "state.repair",
    "state.restore",
    "store.upgrade",
    "tenant.add",
    "tenant.adopt",
    "token.issue",
    "volume.confirm",
    "volume.forget",
];

/// How what it is for can end.
pub const OUTCOMES: &[&str] =
    &["accepted-rollback", "conflict", "done", "nothing-there", "refused", "released", "replaced", "there-already"];

/// True of an event, and of what stands before the point in one.
pub fn is_event_word(word: &str) -> bool {
    EVENTS.iter().any(|event| *event == word || event.split_once('.').is_some_and(|(of, _)| of == word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_or_all_of_a_word_and_nothing_else() {
        for good in ["secret", "secret.release", "sealing", "sealing-key", "root.rotate"] {
            assert!(is_event_word(good), "{good}");
        }
        for bad in ["", "secrets", "secret.", "secret.rel", "release", "SECRET"] {
            assert!(!is_event_word(bad), "{bad}");
        }
    }
}
