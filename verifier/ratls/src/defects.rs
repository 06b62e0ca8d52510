//! Messages that the gRPC layer does not take: each gets a word, an id and a line in the log, as a refusal does.
//!
//! Never: says to the peer, or the log, what stood in the message.

use tonic::{Code, Status};
use tracing::warn;

use crate::denial::denied;

/// An answer as it goes out: one of the gRPC layer to a message that is too long, or is none, gets our word for it.
pub fn named<B>(mut response: http::Response<B>) -> http::Response<B> {
    if let Some((code, word, cause)) = Status::from_header_map(response.headers()).as_ref().and_then(defect) {
        let (status, id) = denied(code, word);
        warn!(id, code = word, cause, "a message was not taken");
        // A word and an id in hex are header values.
        let _ = status.add_header(response.headers_mut());
    }
    response
}

/// What the gRPC layer means by a status of its own. It has words for it, and no type.
fn defect(status: &Status) -> Option<(Code, &'static str, &str)> {
    let begins = |words: &[&str]| words.iter().any(|one| status.message().starts_with(one));
    match status.code() {
        Code::OutOfRange if begins(&["Error, decoded message length too large"]) => {
            Some((Code::ResourceExhausted, "message-too-large", status.message()))
        }
        // Which field, and why; never its content.
        Code::Internal
            if begins(&[
                "failed to decode Protobuf message",
                "Unexpected EOF decoding",
                "Missing request message",
                "protocol error: received message",
            ]) =>
        {
            Some((Code::InvalidArgument, "message-undecodable", status.message()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_ours_stays_as_it_is() {
        let ours = Status::new(Code::Internal, "internal").into_http::<String>();
        let before = ours.headers().clone();
        assert_eq!(named(ours).headers(), &before);
    }
}
