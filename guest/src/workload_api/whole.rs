//! An answer that is handed over in pieces as its reader takes them, and wiped when it was taken.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use zeroize::Zeroizing;

/// What is handed over at a time.
const PIECE: usize = 16 * 1024;

/// All of an answer, and the turn of its call.
pub struct Whole {
    bytes: Zeroizing<Vec<u8>>,
    taken: usize,
    _turn: Option<OwnedSemaphorePermit>,
}

impl Whole {
    pub fn new(bytes: Vec<u8>, turn: Option<OwnedSemaphorePermit>) -> Self {
        Self { bytes: Zeroizing::new(bytes), taken: 0, _turn: turn }
    }
}

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let left = &self.bytes[self.taken..];
        if left.is_empty() {
            return Poll::Ready(None);
        }
        let piece = Bytes::copy_from_slice(&left[..left.len().min(PIECE)]);
        self.taken += piece.len();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.taken == self.bytes.len()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact((self.bytes.len() - self.taken) as u64)
    }
}
