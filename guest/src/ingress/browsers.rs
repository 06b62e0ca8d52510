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
use tokio::{
    io::copy_bidirectional_with_sizes,
    sync::{Mutex, Semaphore},
};
use tokio_stream::StreamExt as _;

use super::loopback::connect;
use crate::{
    failure::{Code, Failure, OrFail},
    host::Incoming,
};

/// What is copied at a time.
const PIECE: usize = 16 << 10;
/// After a certificate that was not given.
const AGAIN: Duration = Duration::from_mins(1);
/// The soonest that a certificate is asked for again.
const SOONEST: Duration = Duration::from_secs(10);

/// A port with a certificate.
pub struct Certified {
    port: u16,
    profile: Name,
    tls: PlainTls,
    /// When the next certificate is asked for.
    due: Mutex<SystemTime>,
}

impl Certified {
    /// Without a certificate yet.
    ///
    /// # Errors
    /// `internal`.
    pub fn new(port: u16, profile: &Name) -> Result<Self, Failure> {
        let tls = PlainTls::new().or_fail(Code::Internal, "configure TLS")?;
        Ok(Self { port, profile: profile.clone(), tls, due: Mutex::new(SystemTime::UNIX_EPOCH) })
    }

    /// Takes clients, as many at once as `limits` say, and no more than `room` has.
    pub async fn serve(self: Arc<Self>, mut incoming: Incoming, limits: ServeLimits, room: Arc<Semaphore>) {
        let places = Arc::new(Semaphore::new(limits.connections));
        while let Some(next) = incoming.next().await {
            let Ok(stream) = next else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            // Whoever finds none comes again.
            let Ok(place) = places.clone().try_acquire_owned() else { continue };
            let (own, room) = (self.clone(), room.clone());
            tokio::spawn(async move {
                if let Ok(client) = own.tls.accept(stream, limits.handshake).await
                    && let Ok(_stream) = room.try_acquire_owned()
                    && let Ok(workload) = connect(own.port).await
                {
                    lead(client, workload).await;
                }
                drop(place);
            });
        }
    }

    /// Asks for a certificate of a new key, and shows it from then on.
    ///
    /// # Errors
    /// The broker's, or that what it gave is none.
    async fn renew(&self, broker: &BrokerClient) -> Result<(), ClientError> {
        let own = |error: coffer_ratls::PlainError| ClientError::Own { cause: error.to_string() };
        let key = PlainKey::generate().map_err(own)?;
        let chain = broker.certificate(self.profile.as_str(), key.request()).await?;
        let now = SystemTime::now();
        let until =
            self.tls.show(&key, chain, now).map_err(|error| ClientError::Protocol { cause: error.to_string() })?;
        let left = until.duration_since(now).unwrap_or_default();
        *self.due.lock().await = now + (left * 2 / 3).max(SOONEST);
        Ok(())
    }
}

/// A break on one side is a reset on the other: a workload takes no half of a request for a whole one.
async fn lead(
    mut client: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    mut workload: tokio::net::TcpStream,
) {
    if copy_bidirectional_with_sizes(&mut client, &mut workload, PIECE, PIECE).await.is_err() {
        let _ = workload.set_zero_linger();
    }
}

/// The first certificates, before the workload starts.
///
/// # Errors
/// The broker's refusal of a profile, which is named.
pub async fn first(all: &[Arc<Certified>], broker: &BrokerClient) -> Result<(), (String, ClientError)> {
    for port in all {
        port.renew(broker).await.map_err(|error| (format!("certificate {}", port.profile), error))?;
    }
    Ok(())
}

/// The next ones, each when two thirds of the last one's time are over. `connect` gives a broker that has admitted this guest.
pub async fn keep<C, F>(all: Vec<Arc<Certified>>, connect: C)
where
    C: Fn() -> F,
    F: Future<Output = Result<BrokerClient, ClientError>>,
{
    loop {
        let mut next = None::<SystemTime>;
        for port in &all {
            let due = *port.due.lock().await;
            next = Some(next.map_or(due, |next| next.min(due)));
        }
        let Some(next) = next else { return };
        tokio::time::sleep(next.duration_since(SystemTime::now()).unwrap_or_default()).await;
        let broker = connect().await;
        for port in &all {
            if SystemTime::now() < *port.due.lock().await {
                continue;
            }
            let renewed = match &broker {
                Ok(broker) => port.renew(broker).await.is_ok(),
                Err(_) => false,
            };
            if !renewed {
                *port.due.lock().await = SystemTime::now() + AGAIN;
            }
        }
    }
}
