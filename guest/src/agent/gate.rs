//! What stands in front of each service: whether its caller may ask for a method at all, before a byte of the request is read; and how
//! much of a request is read, and for how long.
//!
//! gRPC alone reads a message whole, up to 4 MiB, as often as there are streams, and only then asks the service. Here whoever may not
//! ask costs nothing, and whoever may has no more room than [`super::room`] counts. Whoever may not any more when the message has come
//! is refused then: a list of owners counts at once.
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
use tokio::{
    task::JoinSet,
    time::{Sleep, sleep, timeout},
};
use tonic::{Status, body::Body, server::NamedService};
use tower::Service;

use super::{
    Agent,
    authority::Door,
    request::LONGEST_VALUE,
    turns::{Turn, Turns},
};

/// How long a call waits.
#[derive(Clone, Copy)]
struct Patience {
    /// For a turn: longer than one who is slow on purpose can hold it. Whoever comes more seldom than they is next.
    turn: Duration,
    /// For its message.
    message: Duration,
    /// For its answer to be taken.
    answer: Duration,
}

impl Patience {
    const SHORT: Self = Self::of(30, 10, 10);
    /// Of megabytes.
    const LONG: Self = Self::of(75, 30, 30);

    const fn of(turn: u64, message: u64, answer: u64) -> Self {
        let [turn, message, answer] =
            [Duration::from_secs(turn), Duration::from_secs(message), Duration::from_secs(answer)];
        Self { turn, message, answer }
    }
}

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
    /// In place of what its kind has.
    patience: Option<Patience>,
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

impl Reads {
    const fn patience(self) -> Patience {
        match self {
            Self::Short | Self::Stream | Self::Asks => Patience::SHORT,
            Self::Long => Patience::LONG,
        }
    }
}

impl<S> Gate<S> {
    /// Of requests that are numbers and no more.
    pub(super) fn short(service: S, agent: Arc<Agent>, door: Door) -> Self {
        Self { service, agent, door, reads: Reads::Short, turns: None, asking: None, patience: None }
    }

    /// Of programs.
    pub(super) fn stream(service: S, agent: Arc<Agent>, door: Door) -> Self {
        let turns = Some(Turns::new(STARTING));
        Self { service, agent, door, reads: Reads::Stream, turns, asking: None, patience: None }
    }

    /// Of owners: with values, and without.
    pub(super) fn owners(service: S, agent: Arc<Agent>) -> Self {
        let (turns, asking) = (Some(Turns::new(1)), Some(Turns::new(ASKING)));
        Self { service, agent, door: Door::Owners, reads: Reads::Long, turns, asking, patience: None }
    }

    #[cfg(test)]
    fn within(self, patience: Duration) -> Self {
        let patience = Patience { turn: patience, message: patience, answer: patience };
        Self { patience: Some(patience), ..self }
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
        let admitted = self.admission().admit(request.uri().path(), request.extensions().get());
        let (reads, turns) = match &self.asking {
            Some(asking) if !has_value(request.uri().path()) => (Reads::Asks, Some(asking.clone())),
            _ => (self.reads, self.turns.clone()),
        };
        let patience = self.patience.unwrap_or(reads.patience());
        let (path, state) =
            (request.uri().path().to_owned(), request.extensions().get::<Arc<ConnectionState>>().cloned());
        let caller = state.as_ref().map(|state| *state.peer_spki());
        let (gate, of_caller) = (self.admission(), state.clone());
        let again = Box::new(move || gate.admit(&path, of_caller.as_ref()));
        Box::pin(async move {
            if let Err(status) = admitted {
                return Ok(status.into_http());
            }
            let mut turn = match turns {
                None => None,
                Some(turns) => match timeout(patience.turn, turns.take(caller)).await {
                    Ok(turn) => Some(turn),
                    Err(_) => return Ok(Status::resource_exhausted("busy").into_http()),
                },
            };
            // A start holds its turn until it has come, and no longer.
            let for_body = if reads == Reads::Stream { turn.take() } else { None };
            let request = request.map(|body| Body::new(Bounded::new(body, (reads, patience.message), for_body, again)));
            let response = service.call(request).await?;
            Ok(match turn {
                None => response,
                Some(turn) => response.map(|body| Body::new(InTurn::new(body, turn, state, patience.answer))),
            })
        })
    }
}

impl<S> Gate<S> {
    fn admission(&self) -> Admission {
        Admission { agent: self.agent.clone(), door: self.door }
    }
}

/// Who may call what.
struct Admission {
    agent: Arc<Agent>,
    door: Door,
}

impl Admission {
    #[allow(clippy::result_large_err)] // tonic's own error type
    fn admit(&self, path: &str, state: Option<&Arc<ConnectionState>>) -> Result<(), Status> {
        let acts = needs(path).ok_or_else(|| Status::unimplemented("no-such-method"))?;
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
    /// Whether its caller still may, once the first message has come.
    again: Again,
}

type Again = Box<dyn Fn() -> Result<(), Status> + Send>;

impl Bounded {
    fn new(body: Body, (reads, patience): (Reads, Duration), turn: Option<Turn>, again: Again) -> Self {
        let (first, later) = match reads {
            Reads::Short => (1 << 10, 0),
            Reads::Stream => (START, SENT),
            Reads::Long => (VALUE, 0),
            Reads::Asks => (ASKED, 0),
        };
        let lengths = Lengths { first, later, ..Lengths::default() };
        Self { body, lengths, reads, until: Box::pin(sleep(patience)), turn, again }
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
            let begun = self.lengths.whole > 0;
            self.lengths.take(bytes).map_err(|TooLong| Status::out_of_range("request-too-long"))?;
            if self.lengths.whole > 0 && !begun {
                self.turn = None;
                (self.again)()?;
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// An answer that holds its turn until it was taken. A reader who is too slow is hung up on: what he was answered takes memory wherever
/// it waits for him, and HTTP/2 asks for no more of a body while it holds some.
struct InTurn {
    body: Body,
    _turn: Turn,
    /// Ends with this.
    _watch: JoinSet<()>,
}

impl InTurn {
    fn new(body: Body, turn: Turn, state: Option<Arc<ConnectionState>>, patience: Duration) -> Self {
        let mut watch = JoinSet::new();
        watch.spawn(async move {
            sleep(patience).await;
            if let Some(state) = state {
                state.hang_up();
            }
        });
        Self { body, _turn: turn, _watch: watch }
    }
}

impl hyper::body::Body for InTurn {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
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
