//! Plain TLS in front of a port of the workload, for clients that know nothing of evidence, where the spec names it.
//!
//! The certificate is the key broker's, which gave it to this guest because it proved itself; its key never leaves the guest.
//! Trusts: the broker behind the pinned key, for names and lifetime. Never: shows a certificate of another's, opens the port before
//! there is one, lets a client of it pass for one that asked for evidence.
//! Source: docs/design/protocol.md §4; docs/ingress.md.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use coffer_kbs_client::{BrokerClient, ClientError};
use coffer_ratls::{PlainKey, PlainTls, ServeLimits};
use coffer_spec::Name;
use tokio::{io::copy_bidirectional_with_sizes, sync::Semaphore, time::timeout};
use tokio_stream::StreamExt as _;

use super::{loopback::connect, room::Room};
use crate::{
    broker::questions::again,
    ending::{Ending, WorkloadStream},
    failure::{Code, Failure, OrFail},
    host::Incoming,
};

/// What is copied at a time.
const PIECE: usize = 16 << 10;
/// When certificates are asked for.
#[derive(Clone, Copy)]
pub struct Pace {
    /// After one that was not given.
    again: Duration,
    /// The soonest after one that was.
    soonest: Duration,
    /// How long the broker may take, for all that are due together.
    patience: Duration,
}

/// As it is in a guest.
pub const PACE: Pace =
    Pace { again: Duration::from_mins(1), soonest: Duration::from_secs(10), patience: Duration::from_secs(30) };

/// Who issues certificates.
pub trait Issuer {
    /// The chain for a request, by a profile.
    fn issue(&self, profile: &str, request: &[u8]) -> impl Future<Output = Result<Vec<Vec<u8>>, ClientError>> + Send;
}

impl Issuer for BrokerClient {
    fn issue(&self, profile: &str, request: &[u8]) -> impl Future<Output = Result<Vec<Vec<u8>>, ClientError>> + Send {
        self.certificate(profile, request)
    }
}

/// A port with a certificate.
pub struct Certified {
    port: u16,
    profile: Name,
    tls: PlainTls,
}

impl Certified {
    /// Without a certificate yet. Of clients whose handshake is not done there may be so many.
    ///
    /// # Errors
    /// `internal`.
    pub fn new(port: u16, profile: &Name, strangers: usize) -> Result<Self, Failure> {
        let tls = PlainTls::new(strangers).or_fail(Code::Internal, "configure TLS")?;
        Ok(Self { port, profile: profile.clone(), tls })
    }

    /// Takes clients, as many at once as `limits` say, and no more than `room` has.
    pub async fn serve(self: Arc<Self>, mut incoming: Incoming, limits: ServeLimits, room: Arc<Room>, ending: Ending) {
        let places = Arc::new(Semaphore::new(limits.connections));
        while let Some(next) = incoming.next().await {
            let Ok(stream) = next else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let (own, room, places, ending) = (self.clone(), room.clone(), places.clone(), ending.clone());
            tokio::spawn(async move {
                if let Ok(client) = own.tls.accept(stream, limits.handshake).await
                    // Whoever finds none comes again.
                    && let Ok(_place) = places.try_acquire()
                    && let Some(_stream) = room.take()
                    && let Ok(workload) = connect(own.port, &ending).await
                {
                    lead(client, workload).await;
                }
            });
        }
    }

    /// Asks for a certificate of a new key, and shows it from then on. Gives when the next one is due.
    ///
    /// # Errors
    /// The broker's, or that what it gave is none.
    async fn renew(&self, broker: &impl Issuer, pace: Pace) -> Result<SystemTime, ClientError> {
        let own = |error: coffer_ratls::PlainError| ClientError::Own { cause: error.to_string() };
        let key = PlainKey::generate().map_err(own)?;
        let chain = again(|| broker.issue(self.profile.as_str(), key.request())).await?;
        let now = SystemTime::now();
        let until =
            self.tls.show(&key, chain, now).map_err(|error| ClientError::Protocol { cause: error.to_string() })?;
        Ok(now + (until.duration_since(now).unwrap_or_default() * 2 / 3).max(pace.soonest))
    }
}

/// A break on one side is a reset on the other: a workload takes no half of a request for a whole one.
async fn lead(mut client: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, mut workload: WorkloadStream) {
    if copy_bidirectional_with_sizes(&mut client, &mut workload, PIECE, PIECE).await.is_err() {
        workload.break_off();
    }
}

/// A port, and when its next certificate is due.
pub type Due = (Arc<Certified>, SystemTime);

/// The first certificates, before the workload starts.
///
/// # Errors
/// What was asked for, and why there is none.
pub async fn first<I: Issuer>(
    all: Vec<Arc<Certified>>,
    pace: Pace,
    connect: impl Future<Output = Result<I, ClientError>>,
) -> Result<Vec<Due>, (String, ClientError)> {
    let asked = async {
        let broker = connect.await.map_err(|error| ("certificates".to_owned(), error))?;
        let mut kept = Vec::new();
        for port in all {
            match port.renew(&broker, pace).await {
                Ok(due) => kept.push((port, due)),
                Err(error) => return Err((format!("certificate {}", port.profile), error)),
            }
        }
        Ok(kept)
    };
    let late = || ClientError::Unreachable { cause: format!("no answer within {} s", pace.patience.as_secs()) };
    timeout(pace.patience, asked).await.unwrap_or_else(|_| Err(("certificates".to_owned(), late())))
}

/// The next ones, each when two thirds of the last one's time are over. `connect` gives a broker that has admitted this guest.
pub async fn keep<I, C, F>(mut all: Vec<Due>, pace: Pace, connect: C)
where
    I: Issuer,
    C: Fn() -> F,
    F: Future<Output = Result<I, ClientError>>,
{
    while let Some(next) = all.iter().map(|(_, due)| *due).min() {
        tokio::time::sleep(next.duration_since(SystemTime::now()).unwrap_or_default()).await;
        let asked = async {
            let broker = connect().await?;
            // A profile that is gone is no other port's.
            for (port, due) in all.iter_mut().filter(|(_, due)| *due <= SystemTime::now()) {
                let renewed = port.renew(&broker, pace).await;
                *due = renewed.unwrap_or_else(|_| SystemTime::now() + pace.again);
            }
            Ok::<_, ClientError>(())
        };
        // What is shown meanwhile has its own end.
        let _ = timeout(pace.patience, asked).await;
        let now = SystemTime::now();
        for (_, due) in all.iter_mut().filter(|(_, due)| *due <= now) {
            *due = now + pace.again;
        }
    }
}

#[cfg(test)]
mod issuer;
#[cfg(test)]
mod tests;
