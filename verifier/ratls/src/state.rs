//! What a server knows about one connection. It lives and dies with the TLS connection object; no map holds it.

use std::{
    any::Any,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use coffer_verifier::abi::SpkiDigest;
use secrecy::SecretBox;
use tokio::sync::Notify;
use tonic::{Code, Request, Status};

use crate::{
    appraisal::{Attested, RESULT_LIFETIME},
    denial::denied,
    facts::TlsFacts,
    hpke::{HpkeError, HpkeSealed, Opener},
    places::{Eviction, Place, Source},
};

/// How long a challenge may wait for its answer (docs/design/protocol.md §4.3).
pub const CHALLENGE_LIFETIME: Duration = Duration::from_mins(1);

/// State of one server-side connection; handlers find it with [`connection`].
pub struct ConnectionState {
    facts: TlsFacts,
    source: Source,
    opened: Instant,
    unattested_lifetime: Duration,
    inner: Mutex<Inner>,
    /// Requests that are under way: each holds this once more.
    requests: Arc<()>,
    /// Attestation calls of one connection take turns ([`crate::one_by_one`]), so that an older answer never replaces a newer one.
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
    /// The end of the connection has come nearer.
    pub(crate) nearer: Arc<Notify>,
}

/// A request that is under way, until it is dropped.
pub(crate) struct UnderWay {
    _one: Arc<()>,
}

#[derive(Default)]
struct Inner {
    challenge: Option<([u8; 32], Instant)>,
    peer: Option<Arc<dyn Any + Send + Sync>>,
    /// When that peer's evidence was admitted.
    at: Option<Instant>,
    opener: Option<Arc<Opener>>,
    life: Life,
    place: Option<Place>,
    /// Being answered makes nobody known.
    by_key: bool,
    /// It is hung up on.
    over: bool,
}

/// How long the connection may stay.
#[derive(Clone, Copy, Default)]
enum Life {
    /// Nothing has been shown yet.
    #[default]
    Unsettled,
    /// The peer was admitted; silence past this closes.
    Until(Instant),
    /// This end attested, or the handshake alone admitted its client: there is nothing to renew.
    Open,
}

impl ConnectionState {
    /// `came`: when its stream did, before the handshake.
    pub(crate) fn new(
        facts: TlsFacts,
        (source, came): (Source, Instant),
        unattested_lifetime: Duration,
        place: Place,
    ) -> Self {
        Self {
            facts,
            source,
            opened: came,
            unattested_lifetime,
            requests: Arc::default(),
            inner: Mutex::new(Inner { place: Some(place), ..Inner::default() }),
            turn: Arc::default(),
            nearer: Arc::default(),
        }
    }

    /// Counts a request from its head until its answer was taken.
    pub(crate) fn begin(self: &Arc<Self>) -> UnderWay {
        UnderWay { _one: self.requests.clone() }
    }

    /// Nothing that it asked for is under way.
    pub(crate) fn is_idle(&self) -> bool {
        Arc::strong_count(&self.requests) == 1
    }

    /// Where it comes from; 0 where the server does not tell sources apart.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Facts of the TLS connection.
    pub fn facts(&self) -> &TlsFacts {
        &self.facts
    }

    /// The key the client proved to hold: an owner's, or an ephemeral one.
    pub fn peer_spki(&self) -> &SpkiDigest {
        self.facts.peer_spki()
    }

    /// Decrypts what the client sealed to this end's latest report on this connection.
    ///
    /// # Errors
    /// [`HpkeError::NoKey`] before the first report; [`HpkeError::Open`] for anything sealed elsewhere or otherwise.
    pub fn open(&self, method: &str, aad: &[u8], sealed: &HpkeSealed) -> Result<SecretBox<Vec<u8>>, HpkeError> {
        let opener = self.inner().opener.clone().ok_or(HpkeError::NoKey)?;
        opener.open(method, aad, sealed)
    }

    /// True once the client has been given evidence of this end on this connection.
    pub fn has_answered(&self) -> bool {
        self.inner().opener.is_some()
    }

    /// The client's admitted evidence; see [`attested`].
    ///
    /// # Errors
    /// `attestation-required` or `attestation-stale`.
    #[allow(clippy::result_large_err)] // tonic's own error type
    pub fn attested<T: Send + Sync + 'static>(&self) -> Result<Arc<Attested<T>>, Status> {
        self.attested_at(Instant::now())
    }

    #[allow(clippy::result_large_err)]
    fn attested_at<T: Send + Sync + 'static>(&self, now: Instant) -> Result<Arc<Attested<T>>, Status> {
        let found = self.inner().peer.clone();
        let found = found.ok_or_else(|| denied(Code::Unauthenticated, "attestation-required").0)?;
        let attested = found.downcast::<Attested<T>>().map_err(|_| Status::internal("attested type differs"))?;
        if attested.is_stale(now) {
            return Err(denied(Code::Unauthenticated, "attestation-stale").0);
        }
        Ok(attested)
    }

    /// Issues a challenge; an earlier one is void.
    pub(crate) fn issue(&self, challenge: [u8; 32], now: Instant) {
        self.inner().challenge = Some((challenge, now));
    }

    /// Spends the challenge, whatever comes of it.
    pub(crate) fn spend(&self, now: Instant) -> Result<[u8; 32], &'static str> {
        let (challenge, issued) = self.inner().challenge.take().ok_or("challenge-missing")?;
        if now.saturating_duration_since(issued) > CHALLENGE_LIFETIME {
            return Err("challenge-expired");
        }
        Ok(challenge)
    }

    /// Installs an admitted peer in place of the last one. Until it is [welcome](Self::welcome) it has a stranger's time.
    pub(crate) fn admit(&self, at: Instant, attested: Arc<dyn Any + Send + Sync>) {
        {
            let mut inner = self.inner();
            (inner.peer, inner.at) = (Some(attested), Some(at));
            if let Life::Until(_) = inner.life {
                inner.end_by(at + self.unattested_lifetime, self.stranger_end());
            }
        }
        self.nearer.notify_one();
    }

    /// Makes the attested peer one of the known: it gives its place among strangers back, and may stay as long as its evidence
    /// counts.
    pub fn welcome(&self) {
        let mut inner = self.inner();
        if let (Some(_), Some(at)) = (&inner.peer, inner.at) {
            inner.settle(Life::Until(at + RESULT_LIFETIME + CHALLENGE_LIFETIME));
        }
    }

    /// Hangs up on it, whatever is under way.
    pub fn hang_up(&self) {
        self.inner().over = true;
        self.nearer.notify_one();
    }

    /// Makes it a stranger again: it may stay no longer than one from now on.
    pub fn estrange(&self) {
        self.inner().end_by(Instant::now() + self.unattested_lifetime, self.stranger_end());
        self.nearer.notify_one();
    }

    /// Takes the attestation away, and closes the connection unless its peer attests and is welcome again within this time.
    pub fn recall(&self, within: Duration) {
        {
            let mut inner = self.inner();
            inner.peer = None;
            inner.end_by(Instant::now() + within, self.stranger_end());
        }
        self.nearer.notify_one();
    }

    /// Ends once what the client showed of itself is as old as it may be and nothing newer was admitted; never for one that showed
    /// nothing, because it need not.
    pub(crate) async fn outdated(&self) {
        loop {
            let Some(at) = self.inner().at else { return core::future::pending().await };
            tokio::time::sleep_until((at + RESULT_LIFETIME).into()).await;
            if self.inner().at == Some(at) {
                return;
            }
        }
    }

    fn stranger_end(&self) -> Instant {
        self.opened + self.unattested_lifetime
    }

    /// Takes the attestation away: a peer that fails a challenge has none.
    pub(crate) fn withdraw(&self) {
        self.inner().peer = None;
    }

    /// Installs the key of this end's new report; the old one opens nothing any more.
    pub(crate) fn answered(&self, opener: Opener) {
        let mut inner = self.inner();
        inner.opener = Some(Arc::new(opener));
        if !inner.by_key {
            inner.settle(Life::Open);
        }
    }

    /// The same, where the client has to attest too: it stays as much a stranger as it was.
    pub(crate) fn shown(&self, opener: Opener) {
        self.inner().opener = Some(Arc::new(opener));
    }

    /// Whether its client is known its key says, and nothing that comes later.
    pub(crate) fn judge_by_key(&self) {
        self.inner().by_key = true;
    }

    /// The handshake alone proved what this server asks for.
    pub(crate) fn settle(&self) {
        self.inner().settle(Life::Open);
    }

    /// What tells that somebody else has got this stranger's place; nothing for whoever is known.
    pub(crate) fn eviction(&self) -> Option<Arc<Eviction>> {
        self.inner().place.as_ref().map(Place::eviction)
    }

    /// When this connection is to be closed unless something happens before.
    pub(crate) fn lives_until(&self) -> Option<Instant> {
        let inner = self.inner();
        match inner.life {
            _ if inner.over => Some(self.opened),
            Life::Unsettled => Some(self.opened + self.unattested_lifetime),
            Life::Until(end) => Some(end),
            Life::Open => None,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every critical section above leaves the fields whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Whatever was meant before, it ends by then; a stranger when its time is up anyway.
    fn end_by(&mut self, end: Instant, stranger: Instant) {
        self.life = Life::Until(match self.life {
            Life::Until(before) => before.min(end),
            Life::Unsettled => stranger.min(end),
            Life::Open => end,
        });
    }

    fn settle(&mut self, life: Life) {
        self.life = life;
        self.place = None;
    }
}

/// The connection a request came on.
///
/// # Errors
/// `internal` if the service is not run by [`crate::serve`].
#[allow(clippy::result_large_err)]
pub fn connection<R>(request: &Request<R>) -> Result<Arc<ConnectionState>, Status> {
    request
        .extensions()
        .get::<Arc<ConnectionState>>()
        .cloned()
        .ok_or_else(|| Status::internal("request did not come over RA-TLS"))
}

/// The admitted evidence of the client that sent this request, on this very connection.
///
/// # Errors
/// UNAUTHENTICATED `attestation-required` or, after 15 minutes, `attestation-stale`: the client asks for a new challenge.
#[allow(clippy::result_large_err)]
pub fn attested<T: Send + Sync + 'static, R>(request: &Request<R>) -> Result<Arc<Attested<T>>, Status> {
    connection(request)?.attested()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hpke;
    use crate::places::Places;

    const SECOND: Duration = Duration::from_secs(1);
    const SHORT: Duration = Duration::from_secs(5);

    fn state() -> (ConnectionState, Places) {
        let places = Places::new(1);
        let place = places.take(0, Instant::now()).unwrap();
        (ConnectionState::new(TlsFacts::for_tests(), (0, Instant::now()), SHORT, place), places)
    }

    fn admitted(word: &'static str, at: Instant) -> Arc<Attested<&'static str>> {
        Arc::new(Attested::for_tests(word, hpke::key_pair().unwrap().0, at))
    }

    fn why<T>(result: Result<T, Status>) -> (Code, String) {
        let status = result.err().unwrap();
        (status.code(), status.message().to_owned())
    }

    #[test]
    fn a_challenge_is_live_for_a_minute_and_for_one_answer() {
        let (state, _) = state();
        let now = Instant::now();
        assert_eq!(state.spend(now), Err("challenge-missing"));
        state.issue([1; 32], now);
        assert_eq!(state.spend(now + CHALLENGE_LIFETIME), Ok([1; 32]));
        assert_eq!(state.spend(now), Err("challenge-missing"));
        state.issue([2; 32], now);
        assert_eq!(state.spend(now + CHALLENGE_LIFETIME + SECOND), Err("challenge-expired"));
        assert_eq!(state.spend(now), Err("challenge-missing"), "spent by expiry too");
    }

    #[test]
    fn who_was_shown_evidence_where_it_has_to_attest_stays_a_stranger_until_it_does() {
        let (state, _) = state();
        let report_data = coffer_verifier::abi::ReportData::new([0; 64]);
        state.shown(Opener::new(hpke::key_pair().unwrap().1, report_data));
        assert!(state.has_answered());
        assert_eq!(state.lives_until(), Some(state.opened + SHORT));
        assert!(state.eviction().is_some(), "it holds its place");
        let now = Instant::now();
        state.admit(now, admitted("peer", now));
        state.welcome();
        assert_eq!(state.lives_until(), Some(now + RESULT_LIFETIME + CHALLENGE_LIFETIME));
    }

    #[test]
    fn whoever_has_a_request_under_way_is_not_idle() {
        let state = Arc::new(state().0);
        assert!(state.is_idle());
        let (one, other) = (state.begin(), state.begin());
        drop(one);
        assert!(!state.is_idle());
        drop(other);
        assert!(state.is_idle());
    }

    #[test]
    fn where_the_key_says_who_is_known_an_answer_makes_nobody_so() {
        let report_data = coffer_verifier::abi::ReportData::new([0; 64]);
        for known in [true, false] {
            let (state, places) = state();
            state.judge_by_key();
            if known {
                state.settle();
            }
            state.answered(Opener::new(hpke::key_pair().unwrap().1, report_data));
            assert!(state.has_answered());
            assert_eq!((state.lives_until().is_none(), places.taken()), (known, usize::from(!known)));
        }
    }

    #[test]
    fn handlers_get_nothing_before_attestation_and_nothing_after_fifteen_minutes() {
        let (state, _) = state();
        let now = Instant::now();
        let required = (Code::Unauthenticated, "attestation-required".to_owned());
        assert_eq!(why(state.attested_at::<&str>(now)), required);
        state.admit(now, admitted("first", now));
        assert_eq!(*state.attested_at::<&str>(now + RESULT_LIFETIME).unwrap().admitted(), "first");
        let stale = why(state.attested_at::<&str>(now + RESULT_LIFETIME + SECOND));
        assert_eq!(stale, (Code::Unauthenticated, "attestation-stale".to_owned()));
        assert_eq!(why(state.attested_at::<u8>(now)).0, Code::Internal);
    }

    #[tokio::test]
    async fn a_stream_ends_with_the_result_that_it_was_opened_on_unless_there_is_a_newer() {
        let (state, _) = state();
        let never = tokio::time::timeout(SHORT / 100, state.outdated()).await;
        assert!(never.is_err(), "who has nothing to show has nothing that grows old");
        // A clock that has not run for so long has no such moment.
        let Some(long_ago) = Instant::now().checked_sub(RESULT_LIFETIME) else { return };
        state.admit(long_ago, admitted("first", long_ago));
        state.outdated().await;
        // The loop has seen the old one when a newer comes: that one counts.
        let soon = long_ago + SHORT / 10;
        state.admit(soon, admitted("second", soon));
        let state = Arc::new(state);
        let waits = tokio::spawn({
            let state = Arc::clone(&state);
            async move { state.outdated().await }
        });
        tokio::task::yield_now().await;
        let now = Instant::now();
        state.admit(now, admitted("third", now));
        assert!(tokio::time::timeout(SHORT / 5, waits).await.is_err(), "a newer result holds it open");
    }

    #[test]
    fn a_new_admission_replaces_the_old_and_a_failure_takes_it_away() {
        let (state, _) = state();
        let now = Instant::now();
        state.admit(now, admitted("first", now));
        let held = state.attested_at::<&str>(now).unwrap();
        state.admit(now, admitted("second", now));
        assert_eq!(*state.attested_at::<&str>(now).unwrap().admitted(), "second");
        assert_eq!(*held.admitted(), "first", "a call in flight keeps what it began with");
        state.withdraw();
        assert_eq!(why(state.attested_at::<&str>(now)).1, "attestation-required");
    }

    #[test]
    fn a_new_report_of_ours_opens_nothing_sealed_to_the_old() {
        let (state, _) = state();
        let report = |byte| coffer_verifier::abi::ReportData::new([byte; 64]);
        let sealed = |byte| {
            let (key, private) = hpke::key_pair().unwrap();
            (hpke::seal(&key, &report(byte), "m", b"a", b"v").unwrap(), Opener::new(private, report(byte)))
        };
        let ((one, opener_one), (two, opener_two)) = (sealed(1), sealed(2));
        assert_eq!(state.open("m", b"a", &one).err(), Some(HpkeError::NoKey));
        state.answered(opener_one);
        assert!(state.open("m", b"a", &one).is_ok());
        state.answered(opener_two);
        assert_eq!(state.open("m", b"a", &one).err(), Some(HpkeError::Open));
        assert!(state.open("m", b"a", &two).is_ok());
    }

    #[test]
    fn strangers_have_a_place_and_an_end_the_known_have_neither_place_nor_silence() {
        let (state, places) = state();
        let now = Instant::now();
        assert!(state.lives_until().unwrap() <= now + SHORT);
        assert_eq!(places.taken(), 1);
        state.welcome();
        state.admit(now, admitted("peer", now));
        assert_eq!(
            places.taken(),
            1,
            "nobody is welcome who showed nothing, and whoever attested is so when somebody says so"
        );
        assert!(state.lives_until().unwrap() <= now + SHORT);
        state.welcome();
        assert_eq!(places.taken(), 0);
        assert_eq!(state.lives_until(), Some(now + RESULT_LIFETIME + CHALLENGE_LIFETIME));
        state.withdraw();
        assert!(state.lives_until().is_some(), "a peer whose attestation was withdrawn does not live for ever");
    }

    #[test]
    fn whoever_is_recalled_has_nothing_and_a_moment_and_comes_back_by_attesting() {
        let (state, _) = state();
        let now = Instant::now();
        state.admit(now, admitted("peer", now));
        state.welcome();
        state.estrange();
        assert!(state.lives_until().unwrap() <= Instant::now() + SHORT);
        state.recall(SECOND);
        let end = state.lives_until().unwrap();
        assert!(end <= Instant::now() + SECOND);
        assert_eq!(why(state.attested_at::<&str>(now)).1, "attestation-required");
        // An answer alone buys no time.
        state.admit(now, admitted("again", now));
        assert_eq!(state.lives_until(), Some(end));
        state.welcome();
        assert_eq!(state.lives_until(), Some(now + RESULT_LIFETIME + CHALLENGE_LIFETIME));
        // Nor does a renewal that nobody welcomes.
        state.admit(now, admitted("later", now));
        assert_eq!(state.lives_until(), Some(now + SHORT));
    }
}
