//! What a guest says of who its owners are, for programs and for people.

use coffer_runtime::engine::OwnersTold;
use serde_json::{Value, json};

/// For programs.
pub fn described(told: &OwnersTold) -> Value {
    let OwnersTold { are, sequence, expires, digest, refused } = told;
    let refused = refused.as_ref().map(|(word, why)| json!({ "word": word, "why": why }));
    json!({ "are": are, "sequence": sequence, "expires": expires, "digest": digest, "refused": refused })
}

/// For people, a line or two.
pub fn lines(told: &OwnersTold) -> String {
    let OwnersTold { are, sequence, expires, digest, refused } = told;
    let list = match (sequence, expires, digest) {
        (Some(sequence), Some(expires), Some(digest)) => format!(" {sequence} until {expires}, sha256 {digest}"),
        (Some(sequence), ..) => format!("; the newest list was {sequence}"),
        _ => String::new(),
    };
    let refused = refused.as_ref().map(|(word, why)| format!("\nno other list was taken: {word}: {why}"));
    format!("owners: {are}{list}{}", refused.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use coffer_verifier::UnixTime;

    use super::*;

    #[test]
    fn a_list_is_said_with_its_end_and_its_digest_and_what_was_refused_behind_it() {
        let spec = OwnersTold { are: "spec", sequence: None, expires: None, digest: None, refused: None };
        assert_eq!(lines(&spec), "owners: spec");
        let lost = OwnersTold { are: "nobody", sequence: Some(9), ..spec.clone() };
        assert_eq!(lines(&lost), "owners: nobody; the newest list was 9");
        let list = OwnersTold {
            are: "list",
            sequence: Some(2),
            expires: Some(UnixTime::from_secs(0)),
            digest: Some("ab".into()),
            refused: Some(("owner-list-older".into(), "it is older".into())),
        };
        let said = "owners: list 2 until 1970-01-01T00:00:00Z, sha256 ab\nno other list was taken: owner-list-older: it is older";
        assert_eq!(lines(&list), said);
        assert_eq!(described(&list)["refused"]["word"], "owner-list-older");
        assert_eq!(described(&spec)["digest"], Value::Null);
    }
}
