//! Opens the listener, serves, reads the configuration again, ends in order.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use coffer_kds::OpenError;
use coffer_rim::private_socket::{self, SocketFile};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::service::Routes;

use crate::challenge::Challenges;
use crate::config::{Config, PATIENCE};
use crate::routes::Open;
use crate::service::{Live, Service, now, random};
use crate::traces::Traces;
use crate::{grpc, guard, http, listener};

/// A service that listens.
pub struct Server {
    listener: TcpListener,
    local: Option<(UnixListener, SocketFile)>,
    service: Arc<Service>,
    started: Vec<(&'static str, String)>,
}

/// Puts another configuration in place while it serves.
pub struct Reload {
    service: Arc<Service>,
    started: Vec<(&'static str, String)>,
}

/// It cannot serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address.
    #[error("cannot listen on {address}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The socket.
    #[error("cannot listen on {}", path.display())]
    Local {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No randomness.
    #[error("no randomness from the system")]
    Random,
    /// The client of a key distribution service.
    #[error(transparent)]
    Kds(#[from] OpenError),
    /// The client of the collector of traces.
    #[error("sending traces")]
    Traces(#[from] opentelemetry_otlp::ExporterBuildError),
}

impl ServerError {
    /// What the operator can do.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Bind { .. } => "see what else listens there, or give another address with --listen",
            Self::Local { .. } => "see what lies there, and that the state folder can be written",
            Self::Random => "see what keeps the system's random source from this program",
            Self::Kds(_) => "see that the state folder can be written",
            Self::Traces(_) => {
                "see whether variables OTEL_… of the environment say something else, or leave traces out"
            }
        }
    }
}

/// Longest that an end waits for what is under way.
const LAST: Duration = Duration::from_secs(20);

impl Server {
    /// Listens. What it fetches it keeps in `state`.
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn bind(config: Config, state: &Path) -> Result<Self, ServerError> {
        let Config { listen: address, local_socket, challenge_key, appraiser, access, tls, .. } = config;
        let Config { kds, traces, limits, of_the_start, .. } = config;
        // What is not fetched in half the time of a request is not waited for: it is judged without, and answered.
        let clients = kds.open(&state.join("collateral"), PATIENCE.min(limits.request_time / 2))?;
        let listener = TcpListener::bind(address).await.map_err(|source| ServerError::Bind { address, source })?;
        let local = if local_socket { Some(local(state)?) } else { None };
        let traces = traces.map(Traces::to).transpose()?;
        let live = Live { appraiser, access, tls };
        let challenges = Challenges::new(&challenge_key, random().map_err(|_| ServerError::Random)?, now());
        let service = Service::new(live, challenges, clients, traces, limits);
        Ok(Self { listener, local, service: Arc::new(service), started: of_the_start })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system's.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// For whoever changes the configuration while it serves.
    pub fn reload(&self) -> Reload {
        Reload { service: Arc::clone(&self.service), started: self.started.clone() }
    }

    /// Serves until told to stop, and then until what was begun has come to its end.
    pub async fn run(self, told_to_stop: impl Future<Output = ()>) {
        let Self { listener, local, service, .. } = self;
        let (local, _file) = local.unzip();
        let (stop, stopped) = watch::channel(false);
        let serving = listener::serve(listener, local, Arc::clone(&service), router(&service), stopped);
        tokio::pin!(serving);
        tokio::select! {
            () = serving.as_mut() => {}
            () = told_to_stop => {
                service.stop();
                stop.send_replace(true);
                if timeout(LAST, serving).await.is_err() {
                    tracing::warn!("some requests did not end in time");
                }
            }
        }
        service.settle(Duration::from_secs(2)).await;
        if service.traces.is_some() {
            let ended = tokio::task::spawn_blocking(move || service.traces.iter().for_each(Traces::end)).await;
            if let Err(error) = ended {
                tracing::warn!(%error, "the last traces were not sent");
            }
        }
    }
}

impl Reload {
    /// Policies, endorsements, keys that may ask, keys that sign and the server's certificate, all of them at once. Gives the keys of
    /// what else differs from the start: it counts at the next one.
    pub fn apply(&self, config: Config) -> Vec<&'static str> {
        let differs = |(was, is): (&(_, String), &(&'static str, String))| (was.1 != is.1).then_some(is.0);
        let waiting = self.started.iter().zip(&config.of_the_start).filter_map(differs).collect();
        let Config { appraiser, access, tls, .. } = config;
        // Whether there is TLS at all counts with the address.
        let before = self.service.live().tls.clone();
        let tls = if tls.is_some() == before.is_some() { tls } else { before };
        self.service.replace(Live { appraiser, access, tls });
        waiting
    }
}

/// The socket of a state folder.
fn local(state: &Path) -> Result<(UnixListener, SocketFile), ServerError> {
    let (folder, name) = ("local", "verifier.sock");
    let bound = private_socket::bind(&state.join(folder), name);
    let bound = bound.and_then(|(listener, file)| Ok((UnixListener::from_std(listener)?, file)));
    bound.map_err(|source| ServerError::Local { path: state.join(folder).join(name), source })
}

/// What answers: all that is for callers behind the guard, HTTP and gRPC alike.
pub(crate) fn router(service: &Arc<Service>) -> Router {
    let calls = Routes::new(grpc::server(service)).into_axum_router().reset_fallback();
    let calls = calls.layer(axum::middleware::from_fn_with_state(Arc::clone(service), grpc::calls));
    let guard = axum::middleware::from_fn_with_state(Arc::clone(service), guard::callers);
    let callers = http::routes(Open::ToCallers).with_state(Arc::clone(service)).merge(calls).layer(guard);
    http::routes(Open::ToAll)
        .with_state(Arc::clone(service))
        .merge(callers)
        .fallback(http::not_found)
        .method_not_allowed_fallback(http::other_method)
}
