//! The agent's ports, with how much memory connections to them may take: that and the rest ([`super::room`]) fit.

use std::{io, sync::Arc, time::Duration};

use coffer_guest_proto::{
    control_server::ControlServer,
    exec_server::ExecServer,
    owner_server::OwnerServer,
    ports::{CONTROL, EXEC, RA_TLS, RA_TLS_ELSEWHERE},
};
use coffer_ratls::{AttestationService, Attester, ClientRule, Identity, Purpose, ServeLimits, ServerTls, Sourced};
use coffer_spec::WorkloadSpec;
use coffer_verifier::abi::SpkiDigest;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
};
use tokio_io_timeout::TimeoutStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::service::Routes;

use super::{
    Agent,
    authority::Door,
    control::ControlService,
    exec::ExecService,
    gate::{self, Gate},
    owner::OwnerService,
    room,
};
use crate::{
    failure::{Code, Failure, OrFail},
    host::Ports,
    processor::SharedProcessor,
    sys::vsock::VsockStream,
};

/// Opens the host's two ports.
///
/// # Errors
/// `internal` if a port cannot be opened; later failures end the port alone.
pub fn host_ports(agent: &Arc<Agent>, ports: &Ports) -> Result<(), Failure> {
    let door = Door::Host;
    plain(ports, HOST[0], Routes::new(control(agent, door)))?;
    plain(ports, HOST[1], Routes::new(exec(agent, door)))
}

/// Opens the owners' port.
///
/// # Errors
/// `internal`.
pub fn owner_port(
    agent: &Arc<Agent>,
    ports: &Ports,
    identity: &Identity,
    attester: Arc<dyn Attester>,
    processor: SharedProcessor,
) -> Result<(), Failure> {
    let door = Door::Owners;
    let owner = OwnerService { agent: agent.clone(), processor, attester: attester.clone() };
    let routes = Routes::new(control(agent, door)).add_service(exec(agent, door)).add_service(owners(agent, owner));
    let tls = ServerTls::new(identity, ClientRule::AuthorizedPerCall, Purpose::Control)
        .or_fail(Code::Internal, "configure TLS")?;
    let open = |port| ports.open(port).or_fail(Code::Internal, "listen for owners");
    let incoming = open(RA_TLS)?.merge(open(RA_TLS_ELSEWHERE)?);
    let known = {
        let agent = agent.clone();
        move |key: &SpkiDigest| agent.owners.now().iter().any(|owner| owner.key == *key)
    };
    let attestation = AttestationService::attester(attester);
    tokio::spawn(coffer_ratls::serve_known(incoming, tls, attestation, routes, OWNERS, known, std::future::pending()));
    Ok(())
}

/// Whoever comes from elsewhere takes no place of those who come on the host.
impl Sourced for VsockStream {
    fn source(&self) -> u64 {
        self.port().into()
    }
}

/// The agent's services, each behind its gate: nothing else makes one.
pub(super) fn control(agent: &Arc<Agent>, door: Door) -> Gate<ControlServer<ControlService>> {
    let service = ControlServer::new(ControlService { agent: agent.clone(), door });
    Gate::short(service, agent.clone(), door)
}

/// As [`control`].
pub(super) fn exec(agent: &Arc<Agent>, door: Door) -> Gate<ExecServer<ExecService>> {
    let service = ExecServer::new(ExecService { agent: agent.clone(), door }).max_decoding_message_size(gate::START);
    Gate::stream(service, agent.clone(), door)
}

fn owners(agent: &Arc<Agent>, service: OwnerService) -> Gate<OwnerServer<OwnerService>> {
    let service = OwnerServer::new(service).max_decoding_message_size(gate::VALUE);
    Gate::owners(service, agent.clone())
}

/// Bytes that a stream, and a connection, holds of input that nobody takes. HTTP/2 begins with no less for a connection.
const WINDOWS: (u32, u32) = (64 << 10, 64 << 10);

/// Of owners, and of strangers among them, who are given evidence, nothing else, and no more time than that takes.
const OWNERS: ServeLimits = ServeLimits {
    handshake: Duration::from_secs(10),
    unattested: 6,
    unattested_lifetime: Duration::from_secs(20),
    connections: 20,
    windows: WINDOWS,
    streams: STREAMS,
    headers: HEADERS,
};

/// How many connections the host may have at each of its ports.
const HOST: [(u32, usize); 2] = [(CONTROL, 8), (EXEC, 20)];
/// Requests of a connection at once.
const STREAMS: u32 = 8;
/// How long nothing comes over a connection of the host's until it is asked whether it is there; and until it is hung up on.
const ASKED: Duration = Duration::from_secs(15);
const SILENCE: Duration = Duration::from_secs(25);
/// And how long nothing of what is for it is taken.
const UNTAKEN: Duration = Duration::from_secs(20);
/// Bytes of a request's head.
const HEADERS: u32 = 2 << 10;
/// Bytes of an answer that HTTP/2 keeps for a reader who does not take it, before it asks for more of it.
const ANSWER: usize = 15 << 10;
/// What a connection takes beside what its client sends: a frame each way.
const FRAMES: usize = 2 * (16 << 10);
/// What a connection of the host's takes.
const PLAIN: usize = WINDOWS.1 as usize + STREAMS as usize * HEADERS as usize + FRAMES;
/// Of all connections: of the host's and of the owners', some of whom may be strangers; with the answers of all callers.
const CONNECTIONS: usize = (HOST[0].1 + HOST[1].1) * PLAIN + OWNERS.most_memory() as usize + room::CALLERS * ANSWER;
const _: () =
    assert!((room::ALL + CONNECTIONS) as u64 <= WorkloadSpec::LEAST_RESERVE, "callers fit into what the agent is left");

/// At most so many connections, each with so much. Whoever finds no place is hung up on, and comes again.
fn plain(ports: &Ports, (port, most): (u32, usize), routes: Routes) -> Result<(), Failure> {
    let incoming = ports.open(port).or_fail(Code::Internal, "listen for the host")?;
    tokio::spawn(take(incoming, most, routes));
    Ok(())
}

/// Serves them to whoever comes.
pub(super) async fn take<IO>(mut incoming: impl Stream<Item = io::Result<IO>> + Unpin, most: usize, routes: Routes)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let places = Arc::new(Semaphore::new(most));
    while let Some(next) = incoming.next().await {
        let (Ok(stream), Ok(place)) = (next, places.clone().try_acquire_owned()) else { continue };
        let routes = TowerToHyperService::new(routes.clone());
        // A host that says nothing, or takes nothing of what it is told, and whose device does not tell when it hangs up, has its place no longer.
        let mut stream = TimeoutStream::new(stream);
        stream.set_read_timeout(Some(SILENCE));
        stream.set_write_timeout(Some(UNTAKEN));
        let stream = Box::pin(stream);
        tokio::spawn(async move {
            let mut builder = auto::Builder::new(TokioExecutor::new()).http2_only();
            builder
                .http2()
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS)
                .max_header_list_size(HEADERS)
                .initial_stream_window_size(WINDOWS.0)
                .initial_connection_window_size(WINDOWS.1)
                .max_send_buf_size(ANSWER)
                .keep_alive_interval(Some(ASKED))
                .keep_alive_timeout(SILENCE.saturating_sub(ASKED));
            // What breaks off is the host's own loss.
            let _ = builder.serve_connection(TokioIo::new(stream), routes).await;
            drop(place);
        });
    }
}
