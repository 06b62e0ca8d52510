//! What a refused peer learns: a stable word and an id. The cause goes to the log, joined by the id.

use tonic::{Code, Status, metadata::MetadataValue};

const ID_KEY: &str = "coffer-denial-id";

/// A refusal as the refused end sees it. Both fields come from the peer and are cut to harmless words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("refused: {code} (id {id})")]
pub struct Denial {
    /// Stable word, such as `not-released` or `attestation-required`.
    pub code: String,
    /// Joins this refusal with the other end's log; `none` if it gave none.
    pub id: String,
}

impl Denial {
    /// Reads a status that carries a verdict; other failures (transport, bad request, bug) are `None`.
    pub fn of(status: &Status) -> Option<Self> {
        let id = status.metadata().get(ID_KEY).and_then(|value| value.to_str().ok());
        let verdict = match status.code() {
            Code::PermissionDenied | Code::Unauthenticated | Code::FailedPrecondition | Code::ResourceExhausted => true,
            // A field that is wrong is no verdict; a message that could not be read is one.
            Code::InvalidArgument => id.is_some(),
            _ => false,
        };
        if !verdict {
            return None;
        }
        Some(Self { code: word(status.message(), "refused"), id: word(id.unwrap_or_default(), "none") })
    }

    /// Reads a status with which the other end says, under an id, that it could not decide; what a transport says has no id.
    pub fn of_failure(status: &Status) -> Option<Self> {
        let id = status.metadata().get(ID_KEY).filter(|_| status.code() == Code::Unavailable)?;
        Some(Self { code: word(status.message(), "failed"), id: word(id.to_str().ok()?, "none") })
    }
}

/// A refusal for a peer: stable `code` as the message, a fresh id beside it. Returns the id for the log line.
pub fn denied(grpc: Code, code: &'static str) -> (Status, String) {
    let id = fresh_id();
    let mut status = Status::new(grpc, code);
    if let Ok(value) = MetadataValue::try_from(id.as_str()) {
        status.metadata_mut().insert(ID_KEY, value);
    }
    (status, id)
}

fn fresh_id() -> String {
    let mut bytes = [0; 8];
    // The id only joins log lines: without randomness a constant one is worse for the reader, and for nobody else.
    if getrandom::fill(&mut bytes).is_err() {
        bytes = [0; 8];
    }
    hex::encode(bytes)
}

fn word(text: &str, otherwise: &str) -> String {
    let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !text.is_empty() && text.len() <= 64 && text.bytes().all(fine) { text.to_owned() } else { otherwise.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_crosses_the_wire_with_its_id() {
        let (status, id) = denied(Code::PermissionDenied, "not-released");
        assert_eq!(Denial::of(&status), Some(Denial { code: "not-released".to_owned(), id }));
    }

    #[test]
    fn a_peers_words_are_cut_to_harmless_ones() {
        let status = Status::new(Code::PermissionDenied, "\u{1b}[31mrun this\n");
        assert_eq!(Denial::of(&status), Some(Denial { code: "refused".to_owned(), id: "none".to_owned() }));
        assert_eq!(Denial::of(&Status::new(Code::Unavailable, "not-released")), None);
    }
}
