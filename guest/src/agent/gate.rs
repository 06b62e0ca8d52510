//! What stands in front of each service: whether its caller may ask for a method at all, before a byte of the request is read; and how
//! much of a request is read, and for how long.
//!
//! gRPC alone reads a message whole, up to 4 MiB, as often as there are streams, and only then asks the service. Here whoever may not
//! ask costs nothing, and whoever may has no more room than [`super::room`] counts.
//! Trusts: nothing of a request. Never: lets a method pass that stands in no line of [`needs`].

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use coffer_ratls::{ConnectionState, MAX_MESSAGE};
use coffer_spec::{Act, Document, SignedOwnerList};
use http::{Request, Response};
use hyper::body::{Bytes, Frame, SizeHint};
use tokio::time::{Sleep, sleep, timeout};
use tonic::{Status, body::Body, server::NamedService};
use tower::Service;

use super::{
    Agent,
    authority::Door,
    request::LONGEST_VALUE,
    turns::{Turn, Turns},
};

/// Of all in a guest.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of a request that starts a program: the longest word that a kernel takes, and others beside it.
pub(super) const START: usize = 160 << 10;
/// And of what its caller sends after that: a piece of input.
pub(super) const SENT: usize = (16 << 10) + 64;
/// Requests that start a program and have not come whole, of one door.
pub(super) const STARTING: usize = 4;
/// Bytes of a request with a value, with what is beside it.
pub(super) const VALUE: usize = LONGEST_VALUE + (128 << 10);
/// Bytes of an owner's other requests: the longest is a list of owners.
pub(super) const ASKED: usize = SignedOwnerList::LONGEST + (1 << 10);
/// Bytes of what is answered: evidence, without the spec.
pub(super) const ANSWERED: usize = MAX_MESSAGE - Document::LIMIT;
/// How many of these there may be at one time, each of another owner.
pub(super) const ASKING: usize = 3;

/// A service behind its door.
#[derive(Clone)]
pub(super) struct Gate<S> {
    service: S,
    agent: Arc<Agent>,
    door: Door,
    reads: Reads,
    turns: Option<Turns>,
    /// Of what is short and may take long.
    asking: Option<Turns>,
    /// How long a request may take to come, and an answer that holds a turn to be taken.
    patience: Duration,
}

/// How a service's requests are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    /// One short message.
    Short,
    /// One message that starts something, in turn, then pieces for as long as it runs.
    Stream,
    /// One long message, in turn until its answer was taken.
    Long,
    /// One short message, in a turn of another kind until its answer was taken.
    Asks,
}

impl<S> Gate<S> {
    /// Of requests that are numbers and no more.
    pub(super) fn short(service: S, agent: Arc<Agent>, door: Door) -> Self {
        Self { service, agent, door, reads: Reads::Short, turns: None, asking: None, patience: PATIENCE }
    }

    /// Of programs.
    pub(super) fn stream(service: S, agent: Arc<Agent>, door: Door) -> Self {
        let turns = Some(Turns::new(STARTING));
        Self { service, agent, door, reads: Reads::Stream, turns, asking: None, patience: PATIENCE }
    }

    /// Of owners: with values, and without.
    pub(super) fn owners(service: S, agent: Arc<Agent>) -> Self {
        let (turns, asking) = (Some(Turns::new(1)), Some(Turns::new(ASKING)));
        Self { service, agent, door: Door::Owners, reads: Reads::Long, turns, asking, patience: PATIENCE }
    }

    #[cfg(test)]
    fn within(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }
}

/// Whether an owner's request has a value in it, or its answer has.
fn has_value(path: &str) -> bool {
    needs(path).is_some_and(|acts| acts.contains(&Act::Unseal)) || path.ends_with("/Inject")
}

/// What a caller must be let do at least one of.
pub(super) fn needs(path: &str) -> Option<&'static [Act]> {
    Some(match path.strip_prefix("/coffer.agent.v1.")? {
        // Whoever may do anything, and the host; of owners' calls whoever may do anything: whether a list of owners counts its
        // authority says, and not who brings it.
        "Control/State" | "Owner/PutOwners" | "Owner/Owners" | "Owner/Evidence" => &[],
        "Control/Stats" => &[Act::Stats],
        "Control/Stop" => &[Act::Stop],
        "Control/Logs" => &[Act::Logs],
        // The request says which.
        "Control/Signal" => &[Act::Stop, Act::Exec],
        "Exec/Run" => &[Act::Exec, Act::Cp, Act::Top, Act::Attach],
        "Owner/Inject" | "Owner/Refresh" => &[Act::Inject],
        "Owner/Seal" | "Owner/Unseal" | "Owner/Reseal" => &[Act::Unseal],
        _ => return None,
    })
}

impl<S: NamedService> NamedService for Gate<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The one that was asked whether it is ready is the one that is called.
        let next = self.service.clone();
        let mut service = std::mem::replace(&mut self.service, next);
        let admitted = self.admit(&request);
        let (reads, turns) = match &self.asking {
            Some(asking) if !has_value(request.uri().path()) => (Reads::Asks, Some(asking.clone())),
            _ => (self.reads, self.turns.clone()),
        };
        let patience = self.patience;
        // A start holds its turn until it has come, and no longer.
        let state = if reads == Reads::Stream { None } else { request.extensions().get::<Arc<ConnectionState>>() };
        let caller = state.map(|state| *state.peer_spki());
        Box::pin(async move {
            if let Err(status) = admitted {
                return Ok(status.into_http());
            }
            let mut turn = match turns {
                None => None,
                Some(turns) => match timeout(patience, turns.take(caller)).await {
                    Ok(Some(turn)) => Some(turn),
                    _ => return Ok(Status::resource_exhausted("busy").into_http()),
                },
            };
            let for_body = if reads == Reads::Stream { turn.take() } else { None };
            let request = request.map(|body| Body::new(Bounded::new(body, (reads, patience), for_body)));
            let response = service.call(request).await?;
            Ok(match turn {
                None => response,
                Some(turn) => {
                    response.map(|body| Body::new(InTurn { body, until: Box::pin(sleep(patience)), _turn: turn }))
                }
            })
        })
    }
}

impl<S> Gate<S> {
    #[allow(clippy::result_large_err)] // tonic's own error type
    fn admit(&self, request: &Request<Body>) -> Result<(), Status> {
        let acts = needs(request.uri().path()).ok_or_else(|| Status::unimplemented("no-such-method"))?;
        let state = request.extensions().get();
        self.door.admit_one_of(state, &self.agent, acts)
    }
}

/// A request of which no more is read than it may have, and for no longer.
struct Bounded {
    body: Body,
    lengths: Lengths,
    reads: Reads,
    until: Pin<Box<Sleep>>,
    turn: Option<Turn>,
}

impl Bounded {
    fn new(body: Body, (reads, patience): (Reads, Duration), turn: Option<Turn>) -> Self {
        let (first, later) = match reads {
            Reads::Short => (1 << 10, 0),
            Reads::Stream => (START, SENT),
            Reads::Long => (VALUE, 0),
            Reads::Asks => (ASKED, 0),
        };
        let lengths = Lengths { first, later, ..Lengths::default() };
        Self { body, lengths, reads, until: Box::pin(sleep(patience)), turn }
    }
}

impl hyper::body::Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let come = self.reads == Reads::Stream && self.lengths.whole > 0;
        if !come && self.until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(Status::deadline_exceeded("request-late"))));
        }
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)?) else { return Poll::Ready(None) };
        if let Some(bytes) = frame.data_ref() {
            self.lengths.take(bytes).map_err(|TooLong| Status::out_of_range("request-too-long"))?;
            if self.lengths.whole > 0 {
                self.turn = None;
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// An answer that holds its turn until it was taken, or its reader is too slow.
struct InTurn {
    body: Body,
    until: Pin<Box<Sleep>>,
    _turn: Turn,
}

impl hyper::body::Body for InTurn {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(Status::deadline_exceeded("answer-not-taken"))));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The lengths of a request's messages, as their prefixes say them: a byte, and four of a length (gRPC over HTTP/2, Length-Prefixed-Message).
#[derive(Debug, Default)]
struct Lengths {
    /// Of the first message at most.
    first: usize,
    /// Of each that follows.
    later: usize,
    prefix: Vec<u8>,
    /// Bytes of the message at hand that have not come.
    left: usize,
    /// Messages that have come whole.
    whole: usize,
}

#[derive(Debug, PartialEq, Eq)]
struct TooLong;

impl Lengths {
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), TooLong> {
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.left > 0 {
                let some = self.left.min(bytes.len());
                bytes = &bytes[some..];
                self.left -= some;
                self.whole += usize::from(self.left == 0);
                continue;
            }
            bytes = rest;
            self.prefix.push(byte);
            if let [_, length @ ..] = self.prefix.as_slice()
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                self.left = u32::from_be_bytes(length) as usize;
                self.prefix.clear();
                let most = if self.whole == 0 { self.first } else { self.later };
                if self.left > most {
                    return Err(TooLong);
                }
                self.whole += usize::from(self.left == 0);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod hostile;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(length).unwrap().to_be_bytes());
        bytes.resize(5 + length, b'x');
        bytes
    }

    #[test]
    fn messages_are_counted_however_they_were_cut() {
        let all = [message(9), message(0), message(4), message(1)].concat();
        for piece in 1..=all.len() {
            let mut lengths = Lengths { first: 9, later: 4, ..Lengths::default() };
            assert_eq!(all.chunks(piece).try_for_each(|bytes| lengths.take(bytes)), Ok(()), "{piece}");
            assert_eq!((lengths.whole, lengths.left), (4, 0), "{piece}");
        }
    }

    #[test]
    fn one_that_is_too_long_is_refused_at_its_prefix() {
        let refused = |bytes: &[u8]| Lengths { first: 9, later: 4, ..Lengths::default() }.take(bytes);
        assert_eq!(refused(&message(10)[..5]), Err(TooLong));
        assert_eq!(refused(&message(9)[..5]), Ok(()));
        assert_eq!(refused(&[message(9), message(5)[..5].to_vec()].concat()), Err(TooLong));
        assert_eq!(refused(&[0, 255, 255, 255, 255]), Err(TooLong));
    }
}
