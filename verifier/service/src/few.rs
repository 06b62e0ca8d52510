//! The message of a batch, which holds no more requests than a batch may have.
//!
//! An empty request takes two bytes on the wire and some hundred in memory: what is beyond the limit is read over and only noted, so that
//! a message takes no more than a few times its own length.

use prost::DecodeError;
use prost::Message;
use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, message, skip_field};

use crate::request::MAX_BATCH;
use crate::wire::AppraiseRequest;

/// Several requests, each for itself: `AppraiseBatchRequest` of `proto/verifier.proto`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AppraiseBatchRequest {
    /// In their order; at most as many as a batch may have.
    pub requests: Vec<AppraiseRequest>,
    /// There were more.
    pub too_many: bool,
}

/// Of `requests`.
const TAG: u32 = 1;

impl Message for AppraiseBatchRequest {
    fn encode_raw(&self, out: &mut impl BufMut) {
        message::encode_repeated(TAG, &self.requests, out);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        from: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag == TAG && self.requests.len() < MAX_BATCH {
            return message::merge_repeated(wire_type, &mut self.requests, from, context);
        }
        self.too_many |= tag == TAG;
        skip_field(wire_type, tag, from, context)
    }

    fn encoded_len(&self) -> usize {
        message::encoded_len_repeated(TAG, &self.requests)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_a_batch_is_read_over_and_noted() {
        let request = AppraiseRequest { evidence: vec![7; 3], policy: "lab".into(), ..AppraiseRequest::default() };
        let of = |count| AppraiseBatchRequest { requests: vec![request.clone(); count], too_many: false };
        for count in [0, 1, MAX_BATCH] {
            let read = AppraiseBatchRequest::decode(&of(count).encode_to_vec()[..]).unwrap();
            assert_eq!(read, of(count));
        }
        let read = AppraiseBatchRequest::decode(&of(MAX_BATCH + 1).encode_to_vec()[..]).unwrap();
        assert_eq!(read, AppraiseBatchRequest { too_many: true, ..of(MAX_BATCH) });
        // A million empty ones.
        let read = AppraiseBatchRequest::decode(&[10, 0].repeat(1 << 20)[..]).unwrap();
        assert!(read.too_many && read.requests.len() == MAX_BATCH && read.requests.capacity() <= 2 * MAX_BATCH);
        let mut whole = of(2).encode_to_vec();
        whole.pop();
        assert!(AppraiseBatchRequest::decode(&whole[..]).is_err());
    }
}
