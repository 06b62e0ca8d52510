//! The client's end: one TLS connection, one HTTP/2 connection on it, and no way to dial again behind the caller's back.

use std::{
    io,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use coffer_verifier::abi::{ReportData, SpkiDigest};
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use secrecy::SecretBox;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, BufReader},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::{
    appraisal::{self, Appraiser, Attested, Attester},
    connect_error::ConnectError,
    denial::Denial,
    facts::{Purpose, TlsFacts},
    first_word::{self, no_word},
    hpke::{self, HpkeError, HpkeSealed, Opener},
    identity::Identity,
    lapse::Keeping,
    off_loop::off_loop,
    proto::{AttestRequest, ChallengeRequest, attest_request, attest_response, attestation_client::AttestationClient},
    service::fresh_challenge,
    state::CHALLENGE_LIFETIME,
    tls::{ClientTls, PeerPin, PinMismatch},
    wire::{self, MAX_MESSAGE},
};

pub(crate) const HANDSHAKE: Duration = Duration::from_secs(15);
/// How a line that is dead is noticed.
#[derive(Clone, Copy)]
struct Pulse {
    /// How long nothing comes before the peer is asked whether it is there.
    ask: Duration,
    /// How long it has to say so.
    answer: Duration,
}

const PULSE: Pulse = Pulse { ask: Duration::from_secs(20), answer: Duration::from_secs(10) };
/// How soon evidence is shown again at the soonest, whatever the server says how long it counts.
const SOONEST: Duration = Duration::from_secs(10);

/// Client end of a connection whose server was admitted. Secrets for that server leave through [`Self::seal`] alone.
pub struct AttestedConnection<T> {
    channel: Channel,
    facts: TlsFacts,
    appraiser: Arc<dyn Appraiser<Admitted = T>>,
    current: RwLock<Arc<Attested<T>>>,
    lost: AtomicBool,
    keeping: Keeping,
    /// Shows this end's own evidence again when it is due; ends with the connection.
    showing: JoinSet<()>,
}

/// Client end of a connection whose server admitted us.
pub struct AttestingConnection {
    channel: Channel,
    facts: TlsFacts,
    attester: Arc<dyn Attester>,
    current: RwLock<Answered>,
}

struct Answered {
    opener: Arc<Opener>,
    until: Instant,
    told: Option<ToldTime>,
}

/// What a server said the time was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToldTime {
    /// Seconds since the epoch.
    pub unix_seconds: u64,
    /// When its word arrived here. Whoever holds lines up makes it older, by no more than [`CHALLENGE_LIFETIME`].
    pub at: Instant,
}

/// Opens `stream`, challenges the server, and has its evidence appraised.
///
/// # Errors
/// [`ConnectError`]; the stream is closed.
pub async fn connect_and_verify<IO, A>(
    stream: IO,
    identity: &Identity,
    purpose: Purpose,
    appraiser: Arc<A>,
) -> Result<AttestedConnection<A::Admitted>, ConnectError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Appraiser,
{
    let tls = ClientTls::new(identity, PeerPin::AttestedAfter, purpose)?;
    in_own_task(async move {
        let (stream, facts) = handshake(stream, &tls).await?;
        // Its port may be for listed clients alone, and then that is what it says first.
        let (stream, heard) = first_word::listen(stream);
        let challenged = async {
            let channel = one_channel(stream).await?;
            Ok((channel.clone(), verify(channel, facts.clone(), appraiser.clone()).await?))
        };
        let (channel, first) = tokio::select! {
            done = challenged => done.map_err(|error| heard.explain(error))?,
            () = heard.silence(HANDSHAKE) => return Err(ConnectError::Timeout(HANDSHAKE)),
        };
        Ok(AttestedConnection {
            channel,
            facts,
            appraiser,
            current: RwLock::new(Arc::new(first)),
            lost: AtomicBool::new(false),
            keeping: Keeping::default(),
            showing: JoinSet::new(),
        })
    })
    .await
}

/// Opens `stream` to a server that holds one of `pins`, and attests to it.
///
/// # Errors
/// [`ConnectError`]; the stream is closed.
pub async fn connect_and_attest<IO>(
    stream: IO,
    identity: &Identity,
    purpose: Purpose,
    pins: Vec<SpkiDigest>,
    attester: Arc<dyn Attester>,
) -> Result<AttestingConnection, ConnectError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let tls = ClientTls::new(identity, PeerPin::Spki(pins), purpose)?;
    in_own_task(async move {
        let (channel, facts) = connect_pinned(stream, &tls).await?;
        let first = attest(channel.clone(), facts.clone(), attester.clone()).await?;
        Ok(AttestingConnection { channel, facts, attester, current: RwLock::new(first) })
    })
    .await
}

/// Does it in a task of the event loop, which ends with whoever waits for it. It goes on where HTTP/2's own tasks are, and no thread
/// waits for another between two steps.
async fn in_own_task<R: Send + 'static>(
    work: impl Future<Output = Result<R, ConnectError>> + Send + 'static,
) -> Result<R, ConnectError> {
    let mut task = JoinSet::new();
    task.spawn(work);
    match task.join_next().await {
        Some(Ok(done)) => done,
        Some(Err(error)) => Err(ConnectError::Internal(error.to_string())),
        None => Err(ConnectError::Internal("a task is gone".to_owned())),
    }
}

/// The handshake and the one HTTP/2 connection on it, without attestation. The channel never dials again.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect_pinned<IO>(stream: IO, tls: &ClientTls) -> Result<(Channel, TlsFacts), ConnectError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (stream, facts) = handshake(stream, tls).await?;
    Ok((one_channel(stream).await?, facts))
}

/// As [`connect_pinned`], for a peer that lists keys: waits for its first word, and so knows that ours is listed before anything is
/// asked. In TLS 1.3 a client is done before the peer has looked at its key.
///
/// # Errors
/// [`ConnectError::KeyNotTaken`], [`ConnectError::NoPlace`] or [`ConnectError::HungUp`] where that word never comes; the others as [`connect_pinned`].
pub async fn connect_listed<IO>(stream: IO, tls: &ClientTls) -> Result<(Channel, TlsFacts), ConnectError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (stream, facts) = handshake(stream, tls).await?;
    let mut stream = BufReader::new(stream);
    let word = timeout(HANDSHAKE, stream.fill_buf()).await.map_err(|_| ConnectError::Timeout(HANDSHAKE))?;
    match word {
        Ok([]) => Err(no_word(Ok(()))),
        Ok(_) => Ok((one_channel(stream).await?, facts)),
        Err(error) => Err(no_word(Err(error))),
    }
}

/// Bytes that are read from a line at once. rustls alone asks for 4 KiB each time.
const READ: usize = 64 << 10;

async fn handshake<IO>(stream: IO, tls: &ClientTls) -> Result<(TlsStream<BufReader<IO>>, TlsFacts), ConnectError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    // Never sent (no SNI) and never compared: the key decides.
    let name = ServerName::try_from("peer.invalid").map_err(|error| ConnectError::Internal(error.to_string()))?;
    let stream = BufReader::with_capacity(READ, stream);
    let stream = timeout(HANDSHAKE, TlsConnector::from(tls.config.clone()).connect(name, stream))
        .await
        .map_err(|_| ConnectError::Timeout(HANDSHAKE))?
        .map_err(handshake_error)?;
    let facts = TlsFacts::of_client(stream.get_ref().1, tls.own_spki, &tls.alpn)?;
    Ok((stream, facts))
}

impl<T: Send + Sync + 'static> AttestedConnection<T> {
    /// gRPC channel on exactly this connection.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The server's admitted evidence.
    pub fn attested(&self) -> Arc<Attested<T>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Facts of the TLS connection.
    pub fn facts(&self) -> &TlsFacts {
        &self.facts
    }

    pub(crate) fn keeping(&self) -> &Keeping {
        &self.keeping
    }

    /// Encrypts to the key of the server's latest report; see [`Attested::seal`].
    ///
    /// # Errors
    /// [`HpkeError::Stale`] after 15 minutes: [`Self::renew`] first. [`HpkeError::Lost`] after evidence was refused.
    pub fn seal(&self, method: &str, aad: &[u8], plaintext: &[u8]) -> Result<HpkeSealed, HpkeError> {
        if self.lost.load(Ordering::SeqCst) {
            return Err(HpkeError::Lost);
        }
        self.attested().seal(method, aad, plaintext)
    }

    /// Shows this end's evidence too, to a server that was admitted, and shows it again whenever that is due, for as long as the
    /// connection is there. A server that asks its clients for none is shown none.
    ///
    /// # Errors
    /// [`ConnectError`]; [`ConnectError::Refused`] where the server does not take it.
    pub async fn attesting(mut self, attester: Arc<dyn Attester>) -> Result<Self, ConnectError> {
        let showing = attest(self.channel.clone(), self.facts.clone(), attester.clone());
        let first = match in_own_task(showing).await {
            Ok(first) => first,
            Err(ConnectError::Call(status)) if status.code() == Code::Unimplemented => return Ok(self),
            Err(error) => return Err(error),
        };
        let (channel, facts) = (self.channel.clone(), self.facts.clone());
        self.showing.spawn(async move {
            let mut until = first.until;
            loop {
                let due = until.checked_sub(CHALLENGE_LIFETIME).unwrap_or(until).max(Instant::now() + SOONEST);
                tokio::time::sleep_until(due.into()).await;
                match attest(channel.clone(), facts.clone(), attester.clone()).await {
                    Ok(next) => until = next.until,
                    // What was shown before still counts.
                    Err(error) if Instant::now() < until && !matches!(error, ConnectError::Refused(_)) => {}
                    // The server ends the connection.
                    Err(_) => return,
                }
            }
        });
        Ok(self)
    }

    /// A new challenge on the same connection; the new result replaces the old in one step.
    ///
    /// # Errors
    /// [`ConnectError`]. After [`ConnectError::Rejected`] nothing is sealed any more; after the others the old result
    /// stands until it is too old.
    pub async fn renew(&self) -> Result<(), ConnectError> {
        match in_own_task(verify(self.channel.clone(), self.facts.clone(), self.appraiser.clone())).await {
            Ok(next) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
                self.lost.store(false, Ordering::SeqCst);
                Ok(())
            }
            Err(error) => {
                if let ConnectError::Rejected(_) = error {
                    self.lost.store(true, Ordering::SeqCst);
                }
                Err(error)
            }
        }
    }
}

impl AttestingConnection {
    /// gRPC channel on exactly this connection.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Facts of the TLS connection.
    pub fn facts(&self) -> &TlsFacts {
        &self.facts
    }

    /// Decrypts what the server sealed to our latest report.
    ///
    /// # Errors
    /// [`HpkeError::Open`].
    pub fn open(&self, method: &str, aad: &[u8], sealed: &HpkeSealed) -> Result<SecretBox<Vec<u8>>, HpkeError> {
        let opener = self.current.read().unwrap_or_else(PoisonError::into_inner).opener.clone();
        opener.open(method, aad, sealed)
    }

    /// REPORT_DATA of our latest report.
    pub fn report_data(&self) -> ReportData {
        *self.current.read().unwrap_or_else(PoisonError::into_inner).opener.report_data()
    }

    /// When the server wants a new report.
    pub fn due(&self) -> Instant {
        self.current.read().unwrap_or_else(PoisonError::into_inner).until
    }

    /// What time the server said it is, with its latest verdict; nothing if it does not say.
    pub fn told_time(&self) -> Option<ToldTime> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).told
    }

    /// A new report on the same connection; its key replaces the old one.
    ///
    /// # Errors
    /// [`ConnectError`]; the server then holds us for not attested.
    pub async fn renew(&self) -> Result<(), ConnectError> {
        let next = in_own_task(attest(self.channel.clone(), self.facts.clone(), self.attester.clone())).await?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }
}

async fn verify<A: Appraiser + ?Sized>(
    channel: Channel,
    facts: TlsFacts,
    appraiser: Arc<A>,
) -> Result<Attested<A::Admitted>, ConnectError> {
    let challenge = fresh_challenge().map_err(|error| ConnectError::Internal(error.to_string()))?;
    let request = AttestRequest { side: Some(attest_request::Side::Challenge(challenge.to_vec())) };
    let response = in_time(client(channel).attest(request)).await?;
    let Some(attest_response::Side::Answer(answer)) = response.side else {
        return Err(ConnectError::Malformed("no evidence in answer to the challenge"));
    };
    let verdict = off_loop(move || appraisal::check(&*appraiser, &facts, &challenge, answer));
    Ok(verdict.await.map_err(|error| ConnectError::Internal(error.to_string()))??)
}

async fn attest(channel: Channel, facts: TlsFacts, attester: Arc<dyn Attester>) -> Result<Answered, ConnectError> {
    let mut client = client(channel);
    let challenge = in_time(client.challenge(ChallengeRequest {})).await?.challenge;
    let challenge = wire::challenge_from_wire(&challenge).map_err(|_| ConnectError::Malformed("challenge length"))?;
    let start = Instant::now();
    let work = off_loop(move || appraisal::answer(&*attester, &facts, &challenge, hpke::key_pair()?));
    let (opener, answer) = work.await.map_err(|error| ConnectError::Internal(error.to_string()))??;
    let request = AttestRequest { side: Some(attest_request::Side::Answer(answer)) };
    let response = in_time(client.attest(request)).await?;
    let Some(attest_response::Side::Admission(admission)) = response.side else {
        return Err(ConnectError::Malformed("no verdict on our evidence"));
    };
    let told =
        (admission.unix_seconds != 0).then(|| ToldTime { unix_seconds: admission.unix_seconds, at: Instant::now() });
    Ok(Answered { opener: Arc::new(opener), until: start + appraisal::valid(&admission), told })
}

fn client(channel: Channel) -> AttestationClient<Channel> {
    AttestationClient::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
}

async fn in_time<R>(call: impl Future<Output = Result<tonic::Response<R>, Status>>) -> Result<R, ConnectError> {
    match timeout(CHALLENGE_LIFETIME, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => match Denial::of(&status) {
            Some(denial) => Err(ConnectError::Refused(denial)),
            None => Err(ConnectError::Call(Box::new(status))),
        },
        Err(_) => Err(ConnectError::Timeout(CHALLENGE_LIFETIME)),
    }
}

/// The longest frame taken. With HTTP/2's own 16 KiB each frame is a little longer than a TLS record, and makes two.
const FRAME: u32 = 64 << 10;

/// The one HTTP/2 connection on a stream. The channel never dials again. A line that is dead is noticed within 30 seconds, and
/// everything on it breaks off then.
///
/// # Errors
/// As HTTP/2 does not start.
pub async fn one_channel<IO>(stream: IO) -> Result<Channel, tonic::transport::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    with_pulse(stream, PULSE).await
}

async fn with_pulse<IO>(stream: IO, pulse: Pulse) -> Result<Channel, tonic::transport::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut once = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = once.take();
        async move {
            stream
                .ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "attested connection is gone; start again"))
        }
    });
    Endpoint::from_static("http://peer.invalid")
        .http2_keep_alive_interval(pulse.ask)
        .keep_alive_timeout(pulse.answer)
        .keep_alive_while_idle(true)
        .max_frame_size(FRAME)
        .connect_with_connector(connector)
        .await
}

fn handshake_error(error: io::Error) -> ConnectError {
    match PinMismatch::of(&error) {
        Some(PinMismatch { found, expected }) => {
            ConnectError::PinMismatch { found: *found, expected: expected.clone() }
        }
        None => ConnectError::Handshake(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_on_a_line_that_is_dead_breaks_off() {
        assert!(PULSE.ask + PULSE.answer <= Duration::from_secs(30));
        let (ours, _dead) = tokio::io::duplex(1 << 16);
        let soon = Duration::from_millis(20);
        let channel = with_pulse(ours, Pulse { ask: soon, answer: soon }).await.unwrap();
        let mut client = client(channel);
        let call = in_time(client.challenge(ChallengeRequest {}));
        let broken = timeout(Duration::from_secs(20), call).await.expect("nobody noticed");
        assert!(matches!(broken, Err(ConnectError::Call(_))));
    }
}
