//! Answers that wait for a caller to take them: each keeps its place until the last of it is taken, and a connection on which nothing
//! is taken for too long is known.
//!
//! Never: gives more of an answer than a piece at a time, so that what is not taken lies here, where it is counted.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

/// What is given at a time.
const PIECE: usize = 16 << 10;

/// Answers of one connection.
#[derive(Clone, Debug, Default)]
pub struct Waiting(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    answers: AtomicUsize,
    /// When something was taken, or was there to be taken where nothing waited before.
    last: AtomicU64,
}

impl Waiting {
    /// An answer that keeps `place` until it is taken, or nobody wants it any more.
    pub fn answer(&self, body: Body, place: impl Send + 'static) -> Body {
        // Before it is counted: a connection that rested for long is not stuck by its next answer.
        if self.0.answers.load(Ordering::SeqCst) == 0 {
            self.taken();
        }
        self.0.answers.fetch_add(1, Ordering::SeqCst);
        Body::new(Answer { body, rest: Bytes::new(), waits: Waits(self.clone()), _place: Box::new(place) })
    }

    /// Something waits, and nothing was taken for so long.
    pub fn is_stuck_for(&self, time: Duration) -> bool {
        let waits = self.0.answers.load(Ordering::SeqCst) > 0;
        let since = now().saturating_sub(self.0.last.load(Ordering::SeqCst));
        waits && u128::from(since) >= time.as_millis()
    }

    fn taken(&self) {
        self.0.last.store(now(), Ordering::SeqCst);
    }
}

/// Milliseconds since this was asked first.
fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}

struct Waits(Waiting);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.0.answers.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Answer {
    body: Body,
    rest: Bytes,
    waits: Waits,
    /// Free again when this is gone.
    _place: Box<dyn Send>,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                other => return Poll::Ready(other),
            }
        }
        self.waits.0.taken();
        let piece = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use hyper::body::Body as _;

    use super::*;

    #[tokio::test]
    async fn an_answer_goes_in_pieces_and_keeps_its_place_until_the_last() {
        let (waiting, place) = (Waiting::default(), Arc::new(()));
        let whole: Vec<u8> = (0..PIECE * 2 + 5).map(|at| (at % 251) as u8).collect();
        let mut body = waiting.answer(Body::from(whole.clone()), Arc::clone(&place));
        assert_eq!(body.size_hint().exact(), Some(whole.len() as u64), "so that its length is said");
        assert!(waiting.is_stuck_for(Duration::ZERO) && !waiting.is_stuck_for(Duration::from_mins(1)));
        let mut got = Vec::new();
        while got.len() < whole.len() {
            assert_eq!(Arc::strong_count(&place), 2, "it is not taken yet");
            let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(!piece.is_empty() && piece.len() <= PIECE);
            got.extend_from_slice(&piece);
        }
        assert!(got == whole && body.is_end_stream() && body.frame().await.is_none());
        drop(body);
        assert_eq!(Arc::strong_count(&place), 1);
        assert!(!waiting.is_stuck_for(Duration::ZERO), "where nothing waits, nothing is stuck");
    }
}
