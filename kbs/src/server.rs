//! Two listeners, two identities: guests over RA-TLS, operators over mutual TLS with listed keys.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use coffer_kbs_client::{
    ALPN_ADMIN, ANSWER_LIMIT,
    kbs::{admin::v1::admin_server::AdminServer, v1::broker_server::BrokerServer},
};
use coffer_kds::OpenError;
use coffer_ratls::{
    AttestationService, ClientRule, Completer, ConnectionState, KeyShares, Load, OneByOne, Purpose, ServeError,
    ServeLimits, ServerTls, TlsConfigError, serve_pinned_shared, serve_shared,
};
use coffer_verifier::{Cost, abi::SpkiDigest};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{body::Body, codegen::http::Request, service::Routes};

use crate::{
    admin::{AdminService, VALUE_LIMIT, fresh_id},
    admin_socket::{AdminSocket, admin_socket_path},
    aside::Aside,
    audit_log::AuditLog,
    broker::BrokerService,
    clock::Clock,
    config::Config,
    crl_floor::CrlFloor,
    decide::Decider,
    door::Door,
    endorser::Endorser,
    guest::{GuestVerifier, Rules},
    guests::Guests,
    leaving::UntilGone,
    limits::{Buckets, Rate},
    look::keep_looking,
    mend::UNCONFIRMED,
    metrics::{self, Counted, Metrics},
    operators::{Operators, doubled},
    policies::ReleasePolicies,
    refusals::{Refusals, Which, Whom},
    release::Releaser,
    reload::{Reload, named_and_gone},
    roles::Grant,
    rotation::Rotation,
    sources::{SourceLimits, Sources},
    state::{State, StateError},
    store::{AuditEntry, Restored, Store},
    tenant::Tenant,
    tenants::{self, Known, NoTenant},
    turns::Turns,
};

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// A listener cannot be had.
    #[error("cannot listen on {address} for {whom}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// `guests` or `operators`.
        whom: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The local socket cannot be had.
    #[error("cannot open the local admin socket {path}")]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// TLS configuration.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsConfigError),
    /// A tenant that is not there.
    #[error(transparent)]
    Tenant(#[from] NoTenant),
    /// State folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// A client of a key distribution service.
    #[error("[kds] cannot be served")]
    Kds(#[from] OpenError),
    /// A listener broke.
    #[error("listener for {whom} failed")]
    Serve {
        /// `guests` or `operators`.
        whom: &'static str,
        /// Why.
        #[source]
        source: ServeError,
    },
}

impl ServerError {
    /// What the operator can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                "another program has that port: stop it, or choose one with --listen and --admin-listen (port 0: any)"
            }
            Self::Bind { .. } => "choose an address of this machine with --listen and --admin-listen",
            Self::Socket { .. } => {
                "its path may have 107 bytes, its folder must be the broker's; or take [admin_socket] out of the configuration"
            }
            Self::Tenant(error) => error.hint(),
            Self::State(error) => error.hint(),
            Self::Kds(_) => "the folder kds in the state folder is the broker's alone: what it keeps can be got again",
            Self::Tls(_) | Self::Serve { .. } => "see the log lines before this one",
        }
    }
}

/// A bound server.
pub struct Server {
    guests: TcpListener,
    operators: TcpListener,
    figures: Option<TcpListener>,
    local: Option<AdminSocket>,
    metrics: Metrics,
    addresses: Addresses,
    state: State,
    fixed: Fixed,
    policies: Arc<ReleasePolicies>,
    verifier: Arc<GuestVerifier>,
    started: Vec<(&'static str, String)>,
    log: AuditLog,
    clock: Clock,
}

/// What stays as it is until the next start.
struct Fixed {
    local: Option<Grant>,
    admins: BTreeMap<SpkiDigest, String>,
    serve: ServeLimits,
    source: SourceLimits,
    guest_rate: Rate,
    tenants: BTreeSet<Tenant>,
    completer: Option<Arc<dyn Completer>>,
}

/// Where a server can be reached, and what guests pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Addresses {
    /// Guest listener.
    pub listen: SocketAddr,
    /// Admin listener.
    pub admin_listen: SocketAddr,
    /// Figures for Prometheus, where the configuration asks for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_listen: Option<SocketAddr>,
    /// SHA-256 of the server's SubjectPublicKeyInfo.
    pub pin: SpkiDigest,
}

/// What was got for guests, in the state folder. It may go at any time.
const KEPT: &str = "kds";
/// How long open connections may take to end once asked.
const DRAIN: Duration = Duration::from_secs(3);
/// How long the last lines may take to be printed.
const LAST_LINES: Duration = Duration::from_secs(1);
/// Requests of guests carry a path, and nothing else.
const GUEST_MESSAGE: usize = 16 * 1024;

impl Server {
    /// Binds both listeners.
    ///
    /// # Errors
    /// [`ServerError::Bind`] names the address, [`ServerError::Tenant`] a tenant that is not there; [`ServerError::State`] if the
    /// first operator's profile cannot be brought up to date.
    pub async fn bind(state: State, config: Config, log: AuditLog, clock: Clock) -> Result<Self, ServerError> {
        if let Some(missing) = tenants::missing(&mut state.store.read().await.map_err(StateError::from)?, &config) {
            return Err(missing.into());
        }
        let guests = bind(config.listen, "guests").await?;
        let operators = bind(config.admin_listen, "operators").await?;
        let figures = match config.metrics_listen {
            Some(wanted) => Some(bind(wanted, "figures").await?),
            None => None,
        };
        let local = match &config.admin_socket {
            Some(_) => Some(
                AdminSocket::bind(&state.folder)
                    .map_err(|source| ServerError::Socket { path: admin_socket_path(&state.folder), source })?,
            ),
            None => None,
        };
        let address = |listener: &TcpListener, whom, wanted| {
            listener.local_addr().map_err(|source| ServerError::Bind { address: wanted, whom, source })
        };
        let addresses = Addresses {
            listen: address(&guests, "guests", config.listen)?,
            admin_listen: address(&operators, "operators", config.admin_listen)?,
            metrics_listen: match (&figures, config.metrics_listen) {
                (Some(listener), Some(wanted)) => Some(address(listener, "figures", wanted)?),
                _ => None,
            },
            pin: state.server.spki(),
        };
        let started = config.of_the_start();
        state.update_profile(&addresses.admin_listen.to_string())?;
        let Config { simulated_anchors: anchors, endorsements, floors, chipless, policies, .. } = config;
        let rules = Rules { anchors, endorsements, floors, chipless };
        let verifier = Arc::new(GuestVerifier::new(rules, clock.clone(), CrlFloor::new(state.store.clone())));
        let endorser = Endorser::open(config.kds, &state.folder.join(KEPT), clock.clone())?;
        let fixed = Fixed {
            local: config.admin_socket,
            admins: config.admins,
            serve: config.serve,
            source: config.source,
            guest_rate: config.guest_rate,
            tenants: config.tenants,
            completer: endorser.map(|endorser| Arc::new(endorser) as Arc<dyn Completer>),
        };
        let metrics = Metrics::default();
        let log = metrics.counting(&log);
        Ok(Self {
            guests,
            operators,
            figures,
            local,
            metrics,
            addresses,
            state,
            fixed,
            policies: Arc::new(policies),
            verifier,
            started,
            log,
            clock,
        })
    }

    /// Reads how many public-key operations the evidence of guests has taken, also while it serves.
    pub fn evidence_cost(&self) -> impl Fn() -> Cost + Send + Sync + 'static {
        let verifier = self.verifier.clone();
        move || verifier.cost()
    }

    /// What puts another configuration in place while it serves.
    pub fn reload(&self) -> Reload {
        let (store, verifier) = (self.state.store.clone(), self.verifier.clone());
        Reload { store, verifier, policies: self.policies.clone(), started: self.started.clone() }
    }

    /// What changes the root key while it serves.
    pub fn rotation(&self) -> Rotation {
        Rotation::new(&self.state.folder, self.state.store.clone(), self.log.clone())
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Serves until `shutdown` ends, then lets open calls finish.
    ///
    /// # Errors
    /// [`ServerError`] if one listener fails; the other is then closed as well.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), ServerError> {
        let Self {
            guests,
            operators,
            figures,
            local,
            metrics,
            state,
            fixed: mut config,
            policies,
            verifier,
            log,
            clock,
            ..
        } = self;
        // `state` lives to the end of this function, and its lock with it.
        let guest_tls = ServerTls::new(&state.server, ClientRule::AttestedAfter, Purpose::Kbs)?;
        let configured_tenants = Arc::new(std::mem::take(&mut config.tenants));
        tenants::adopt(&state.store, &log, clock.now()).await.map_err(StateError::from)?;
        let mut view = state.store.read().await.map_err(StateError::from)?;
        let stored = view.admin_keys();
        for doubled in doubled(&mut view, &config.admins).await.map_err(StateError::from)? {
            tracing::warn!("{doubled}: the trail does not tell them apart");
        }
        drop(view);
        // The configuration's owners are the way back in: nobody else takes their places.
        let shares =
            KeyShares { each: OF_AN_OPERATOR, kept: config.admins.keys().copied().collect(), ..KeyShares::default() };
        let admitted = Operators::new(std::mem::take(&mut config.admins), stored, config.local.take());
        let listed = admitted.list();
        let admin_tls = ServerTls::with_alpn(&state.admin_server, ClientRule::Listed(listed.clone()), ALPN_ADMIN)?;
        let store = state.store.clone();
        verifier.bring_what_is_stored(&store).await.map_err(StateError::from)?;
        let releaser = Releaser {
            store: store.clone(),
            decider: Decider { verifier: verifier.clone(), policies: policies.clone() },
            log: log.clone(),
            clock: clock.clone(),
            inputs: Arc::default(),
            aside: Aside::default(),
            turns: Turns::at_processors(),
        };
        let printed = log.clone();
        let refusals = Arc::new(Refusals::new(store.clone(), log.clone(), clock.clone()));
        let present = Guests::default();
        let (of_door, rate) = (verifier.clone(), config.guest_rate);
        let there = Known::new(store.clone(), configured_tenants.clone());
        let door = Door::new(of_door, store.clone(), clock.clone(), present.clone(), refusals.clone(), there, rate);
        let door = Arc::new(door);
        let (guests_rate, refused) = (Arc::new(Buckets::new(rate)), Arc::new(Buckets::new(REFUSED_CALLS)));
        let broker = BrokerService { releaser, door: door.clone(), rate: guests_rate.clone() };
        let strangers = refusals.clone();
        let turned_away = move |source, key: &SpkiDigest| strangers.add(Whom::Stranger(source), unknown_key(key));
        let named = policies.clone();
        let admin = AdminService {
            store,
            policies,
            operators: admitted,
            configured_tenants,
            guests: present,
            verifier: verifier.clone(),
            refusals: refusals.clone(),
            refused: refused.clone(),
            aside: Aside::for_operators(),
            policy_work: Arc::default(),
            log,
            clock,
        };
        let broker = BrokerServer::new(broker).max_decoding_message_size(GUEST_MESSAGE);
        let admin = AdminServer::new(admin)
            .max_decoding_message_size(VALUE_LIMIT + 64 * 1024)
            .max_encoding_message_size(ANSWER_LIMIT);

        let (guests, operators) = (Sources::new(guests, config.source), Sources::new(operators, ADMIN_SOURCES));
        let load = (Load::default(), Load::default());
        // Aborted with this future.
        let mut beside = JoinSet::new();
        beside.spawn(refusals.clone().keep_writing());
        beside.spawn(keep_looking(state.store.clone()));
        beside.spawn(warn_of_what_waits(state.store.clone(), named));
        if let Some(listener) = figures {
            let of = |of, load: &Load, from: &Sources| metrics::Listener {
                of,
                load: load.clone(),
                over_source: from.all_dropped(),
            };
            let door = door.clone();
            beside.spawn(metrics::serve(
                listener,
                metrics,
                Counted {
                    store: state.store.clone(),
                    verifier: verifier.clone(),
                    unprinted: printed.unprinted(),
                    listeners: [of("guests", &load.0, &guests), of("operators", &load.1, &operators)],
                    over_rate: [
                        ("guests", Box::new(move || guests_rate.refused() + door.over_rate())),
                        ("operators", Box::new(move || refused.refused())),
                    ],
                },
            ));
        }
        let (stop, stopped) = watch::channel(false);
        let signal = |mut stopped: watch::Receiver<bool>| async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        if let Some(socket) = local {
            beside.spawn(serve_locally(socket, admin.clone(), signal(stopped.clone())));
        }
        let for_guests = serve_shared(
            guests,
            guest_tls,
            AttestationService::verifier_with(door.clone(), door).completed_by(config.completer),
            Routes::new(broker),
            config.serve,
            load.0,
            signal(stopped.clone()),
        );
        let for_operators = serve_pinned_shared(
            operators,
            admin_tls,
            // A message with a value is long, and whoever sends many at once is no operator's command.
            Routes::new(OneByOne::until_answered(UntilGone::new(admin, listed, key_of))),
            ServeLimits { unattested: 16, connections: 64, ..ServeLimits::default() },
            (shares, load.1),
            turned_away,
            signal(stopped),
        );
        let both = async {
            tokio::try_join!(
                async { for_guests.await.map_err(|source| ServerError::Serve { whom: "guests", source }) },
                async { for_operators.await.map_err(|source| ServerError::Serve { whom: "operators", source }) },
            )
            .map(|_| ())
        };
        let mut both = std::pin::pin!(both);
        tokio::select! {
            ended = &mut both => return ended,
            () = shutdown => {}
        }
        let _ = stop.send(true);
        // Idle connections would keep a server for ever; what was committed is safe in either case.
        let drained = tokio::time::timeout(DRAIN, both).await.unwrap_or(Ok(()));
        refusals.write(Which::All).await;
        // The local socket goes before the lock of the folder does.
        beside.shutdown().await;
        if let Err(error) = state.store.settle().await {
            tracing::error!(error = %coffer_rim::chain(&error), "the checkpoint lags behind");
        }
        // A thread of its own, for this one may have others to wait for.
        let settled = tokio::task::spawn_blocking(move || printed.settle(LAST_LINES)).await;
        if !settled.unwrap_or(false) {
            tracing::error!("standard output did not take the last lines of the audit trail: the database has them");
        }
        drained
    }
}

/// What an operator may ask for that it may not have, before it gets another word for it.
const REFUSED_CALLS: Rate = Rate { burst: 100, per_second: 10 };
/// Connections of one operator at once.
const OF_AN_OPERATOR: usize = 16;
const ADMIN_SOURCES: SourceLimits =
    // More than strangers and one operator can take of an address that many share.
    SourceLimits { connections: 96, all_told: 256, rate: Rate { burst: 100, per_second: 50 } };

/// A key at the operators' listener that is no operator's. The handshake ends there, and no id comes back.
fn unknown_key(key: &SpkiDigest) -> AuditEntry {
    AuditEntry {
        event: "admin.connect",
        outcome: "refused",
        id: fresh_id(),
        peer: key.to_string(),
        code: Some("key-not-admitted"),
        reasons: vec!["key: no operator has it".to_owned()],
        ..AuditEntry::default()
    }
}

/// The key that opened the connection of a request.
fn key_of(request: &Request<Body>) -> Option<SpkiDigest> {
    request.extensions().get::<Arc<ConnectionState>>().map(|connection| *connection.peer_spki())
}

/// Serves the local socket. Nothing that happens to it, or on it, reaches the other listeners, nor the other way round.
async fn serve_locally(socket: AdminSocket, admin: AdminServer<AdminService>, stopped: impl Future<Output = ()>) {
    let (ready, connections) = mpsc::channel(1);
    // Aborted with this future.
    let mut acceptor = JoinSet::new();
    acceptor.spawn(socket.accept(ready));
    let served = tonic::transport::Server::builder()
        .layer(tower::util::MapResponseLayer::new(coffer_ratls::named::<tonic::body::Body>))
        .max_concurrent_streams(64)
        .concurrency_limit_per_connection(64)
        .http2_max_header_list_size(16 * 1024)
        .add_service(admin)
        .serve_with_incoming_shutdown(ReceiverStream::new(connections).map(Ok::<_, io::Error>), stopped);
    if let Err(error) = served.await {
        tracing::error!(error = %coffer_rim::chain(&error), "the local admin socket is closed");
    }
}

/// Says in the log what an operator should know of a ledger that is served: what stays closed until somebody says so, and what
/// releases nothing.
async fn warn_of_what_waits(store: Arc<Store>, policies: Arc<ReleasePolicies>) {
    let looked = async {
        let mut view = store.read().await?;
        // One that is not believed is named where it stands in the way.
        if let Ok(Some(Restored { epoch, confirmed_unix: None, .. })) = view.restored().await {
            tracing::warn!(epoch, "an older state was accepted: {UNCONFIRMED}");
        }
        named_and_gone(&mut view, |name| !policies.has(name)).await
    };
    match looked.await {
        Ok(named) => named.iter().for_each(|named| tracing::warn!("{named}: nothing of that is released")),
        Err(error) => tracing::warn!(error = %coffer_rim::chain(&error), "what policies are named is not known"),
    }
}

async fn bind(address: SocketAddr, whom: &'static str) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address).await.map_err(|source| ServerError::Bind { address, whom, source })
}
