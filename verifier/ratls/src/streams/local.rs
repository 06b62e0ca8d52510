//! The local end of a stream: a body reads it, whoever leads the stream writes to it, and can take it away from both at any time.

use core::{
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
};
use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::BytesMut;
use hyper::body::{Bytes, Frame};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    sync::oneshot,
};
use tonic::body::Body;

/// What is read at a time: with the head of its frame four full records of TLS.
const PIECE: usize = 4 * (16 << 10) - 9;

/// An end that several hold, for as long as there is its [`Leader`].
pub(super) struct Local<IO>(Arc<Mutex<Held<IO>>>);

/// Who gives a stream its local end. With it the local end goes, whoever else holds it.
pub(super) struct Leader<IO>(Local<IO>);

struct Held<IO> {
    end: End<IO>,
    /// Who reads, and waits.
    reader: Option<Waker>,
}

enum End<IO> {
    /// It is not there yet.
    Awaited,
    Here(IO),
    /// It was taken away.
    Gone,
}

impl<IO> Clone for Local<IO> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<IO> Leader<IO> {
    /// Of an end that is not there yet: who reads it waits.
    pub fn new() -> Self {
        Self(Local(Arc::new(Mutex::new(Held { end: End::Awaited, reader: None }))))
    }

    /// The end, for others.
    pub fn local(&self) -> Local<IO> {
        self.0.clone()
    }

    /// Here it is.
    pub fn put(&self, io: IO) {
        self.0.change(End::Here(io));
    }

    /// Takes it away: whoever reads it or writes to it hears that it broke.
    pub fn take(&self) -> Option<IO> {
        match self.0.change(End::Gone) {
            End::Here(io) => Some(io),
            End::Awaited | End::Gone => None,
        }
    }
}

impl<IO> Drop for Leader<IO> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl<IO> Local<IO> {
    fn change(&self, to: End<IO>) -> End<IO> {
        let mut held = self.held();
        let was = core::mem::replace(&mut held.end, to);
        let reader = held.reader.take();
        drop(held);
        reader.into_iter().for_each(Waker::wake);
        was
    }

    fn held(&self) -> MutexGuard<'_, Held<IO>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Once it was taken away.
    fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut held = self.held();
        if matches!(held.end, End::Gone) {
            return Poll::Ready(());
        }
        held.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn written<R>(&self, write: impl FnOnce(&mut IO) -> Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        match &mut self.held().end {
            End::Here(io) => write(io),
            End::Awaited | End::Gone => Poll::Ready(Err(broken())),
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Local<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut held = self.held();
        let polled = match &mut held.end {
            End::Here(io) => Pin::new(io).poll_read(cx, buf),
            End::Awaited => Poll::Pending,
            End::Gone => return Poll::Ready(Err(broken())),
        };
        if polled.is_pending() && !held.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
            held.reader = Some(cx.waker().clone());
        }
        polled
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Local<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.written(|io| Pin::new(io).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.written(|io| Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.written(|io| Pin::new(io).poll_shutdown(cx))
    }
}

/// What broke off has bytes missing.
pub(super) fn broken() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// Buffers of one direction, which go round: there are no more than these, so that what is sent was read a moment ago and is still in
/// the processor's cache, and so much waits for a reader that is slow.
#[derive(Clone)]
struct Buffers(Arc<Mutex<Shelf>>);

/// Of one direction at once.
pub(super) const BUFFERS: usize = 4;

#[derive(Default)]
struct Shelf {
    /// One is kept for the next; a stream that rests has no more.
    free: Option<BytesMut>,
    /// In use, or kept.
    made: usize,
    /// Who waits for one.
    waits: Option<Waker>,
}

impl Buffers {
    fn new() -> Self {
        Self(Arc::default())
    }

    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<BytesMut> {
        let mut shelf = self.shelf();
        if let Some(buffer) = shelf.free.take() {
            return Poll::Ready(buffer);
        }
        if shelf.made < BUFFERS {
            shelf.made += 1;
            return Poll::Ready(BytesMut::with_capacity(PIECE));
        }
        shelf.waits = Some(cx.waker().clone());
        Poll::Pending
    }

    fn give_back(&self, mut buffer: BytesMut) {
        let mut shelf = self.shelf();
        if shelf.free.is_none() {
            buffer.clear();
            shelf.free = Some(buffer);
        } else {
            shelf.made -= 1;
        }
        let waits = shelf.waits.take();
        drop(shelf);
        waits.into_iter().for_each(Waker::wake);
    }

    /// Once none is in use.
    fn poll_home(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut shelf = self.shelf();
        if shelf.made == usize::from(shelf.free.is_some()) {
            return Poll::Ready(());
        }
        shelf.waits = Some(cx.waker().clone());
        Poll::Pending
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was read into a buffer, which goes back when nobody has it any more.
struct Piece {
    buffer: BytesMut,
    home: Buffers,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.home.give_back(core::mem::take(&mut self.buffer));
    }
}

/// A body of what a local end says. Its end ends the body; where it is taken away, the body breaks off, and where it breaks, behind what was
/// said before: HTTP/2 drops of a stream that breaks off what was not sent.
pub(super) struct Said<IO> {
    from: Local<IO>,
    buffers: Buffers,
    /// Empty, to be filled next.
    next: Option<BytesMut>,
    /// How it broke.
    broke: Option<io::Error>,
    /// Told when it ended as it should; nobody tells it of one that broke off.
    whole: Option<oneshot::Sender<()>>,
}

/// The body, and what tells that it was whole: an error where it was not, or nobody took all of it.
pub(super) fn said<IO>(from: Local<IO>) -> (Body, oneshot::Receiver<()>)
where
    IO: AsyncRead + Send + Unpin + 'static,
{
    let (whole, ended) = oneshot::channel();
    (Body::new(Said { from, buffers: Buffers::new(), next: None, broke: None, whole: Some(whole) }), ended)
}

impl<IO: AsyncRead + Unpin> hyper::body::Body for Said<IO> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Self { from, buffers, next, broke, whole } = &mut *self;
        if whole.is_none() {
            return Poll::Ready(None);
        }
        if broke.is_some() {
            if from.poll_gone(cx).is_pending() {
                ready!(buffers.poll_home(cx));
            }
            *whole = None;
            return Poll::Ready(broke.take().map(Err));
        }
        let mut buffer = match next.take() {
            Some(buffer) => buffer,
            None => ready!(buffers.poll_take(cx)),
        };
        let read = pin!(from.read_buf(&mut buffer)).poll(cx);
        let Poll::Ready(read) = read else {
            *next = Some(buffer);
            return Poll::Pending;
        };
        match read {
            Ok(0) => {
                let _ = whole.take().map(|whole| whole.send(()));
                Poll::Ready(None)
            }
            Ok(_) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(Piece { buffer, home: buffers.clone() }))))),
            Err(error) => {
                buffers.give_back(buffer);
                *broke = Some(error);
                self.poll_frame(cx)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::{io::AsyncWriteExt as _, time::timeout};

    use super::*;

    const SHORT: std::time::Duration = std::time::Duration::from_millis(50);

    /// Says what comes through a pipe, and breaks where that ends.
    struct Breaks(tokio::io::DuplexStream);

    impl AsyncRead for Breaks {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let before = buf.remaining();
            ready!(Pin::new(&mut self.0).poll_read(cx, buf))?;
            Poll::Ready(if buf.remaining() == before { Err(broken()) } else { Ok(()) })
        }
    }

    async fn half_said() -> (Leader<Breaks>, Body, oneshot::Receiver<()>, Bytes) {
        let (mut far, near) = tokio::io::duplex(1 << 10);
        let leader = Leader::new();
        leader.put(Breaks(near));
        let (mut body, whole) = said(leader.local());
        far.write_all(b"half").await.unwrap();
        drop(far);
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        (leader, body, whole, first)
    }

    #[tokio::test]
    async fn what_was_said_before_it_broke_is_taken_first() {
        let (_leader, mut body, mut whole, first) = half_said().await;
        assert!(timeout(SHORT, body.frame()).await.is_err(), "it breaks off before its first half was taken");
        assert!(whole.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
        assert_eq!(&first[..], b"half");
        drop(first);
        timeout(SHORT * 100, body.frame()).await.expect("a break").unwrap().unwrap_err();
        whole.await.unwrap_err();
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn one_that_is_taken_away_breaks_off_at_once() {
        let (leader, mut body, whole, first) = half_said().await;
        let waits = tokio::spawn(async move { body.frame().await.unwrap().map(drop) });
        tokio::task::yield_now().await;
        drop(leader.take());
        timeout(SHORT * 100, waits).await.expect("a break").unwrap().unwrap_err();
        whole.await.unwrap_err();
        drop(first);
    }
}
