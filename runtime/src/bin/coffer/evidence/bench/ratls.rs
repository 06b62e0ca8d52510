//! `coffer bench ratls`: how long a client takes to believe a guest on a new connection, beside the public-key work of both ends; and a
//! transfer through the ingress of a guest, beside one through proxies that speak TLS and no more.
//!
//! Both ends are in this process, over loopback, with simulated evidence that nobody else believes. What a figure is held against is
//! measured in turns with it.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use coffer_ratls::{
    AttestationService, Behind, ClientRule, ConnectionState, Identity, Purpose, ServeLimits, ServerTls, StreamRefusal,
    Streams, serve,
};
use coffer_rim::sys::heap::keep_freed;
use coffer_runtime::ingress::{Forwarder, Peer};
use coffer_verifier::{EvidencePolicy, Pair, TrustAnchors};
use futures_util::StreamExt as _;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;

use super::figures::{broken, median, micros, real};
use super::guest::{Guest, Platform};
use super::work::PublicKeys;
use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};

/// Measure how long it takes to believe a guest, and what its ingress adds to a transfer.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer bench ratls\n  coffer bench ratls --mebibytes 256 --json")]
pub struct Args {
    /// Connections.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=10_000))]
    connections: u16,
    /// Size of a transfer.
    #[arg(long, default_value_t = 1024, value_name = "MIB", value_parser = clap::value_parser!(u16).range(1..=16_384))]
    mebibytes: u16,
}

const PORT: u16 = 8080;
/// Transfers each way; the fastest counts, for who else used the processor slowed the others.
const TRANSFERS: usize = 5;
const PIECE: usize = 64 << 10;
/// What a connection may take, in public-key work, and a transfer, in that through plain proxies.
const LIMITS: (f64, f64) = (1.5, 1.1);

/// Measures and prints.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    if !context.json {
        eprintln!("measuring for most of a minute; figures mean something on an idle machine");
    }
    // As both ends do, for all that is measured here.
    keep_freed();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.class_while(Class::Internal, "starting the event loop")?;
    let platform = Platform::new()?;
    let mut keys = PublicKeys::new(&platform)?;
    let source = runtime.block_on(source(usize::from(args.mebibytes) << 20))?;
    let guest = runtime.block_on(guest(&platform, source))?;
    let mut connections = Vec::new();
    for _ in 0..args.connections {
        keys.round()?;
        let peer = peer(&platform, guest)?;
        let start = Instant::now();
        runtime.block_on(peer.connect())?;
        connections.push(micros(start.elapsed()));
    }
    let work = keys.of_a_connection();
    let sum: f64 = work.iter().map(|operation| operation.count * operation.each).sum();
    let connection = median(connections.clone());

    let through_guest = runtime.block_on(through_guest(&platform, guest))?;
    let through_proxies = runtime.block_on(through_proxies(source))?;
    let (mut ingress, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..TRANSFERS {
        plain.push(runtime.block_on(transfer(through_proxies, args.mebibytes))?);
        ingress.push(runtime.block_on(transfer(through_guest, args.mebibytes))?);
    }
    let rate = |all: &[f64]| f64::from(args.mebibytes) / all.iter().copied().fold(f64::INFINITY, f64::min);
    let (plain_rate, ingress_rate) = (rate(&plain), rate(&ingress));
    let (believing, moving) = (connection / sum, plain_rate / ingress_rate);
    if context.json {
        println!(
            "{}",
            json!({
                "connection": { "us": connection, "public_key_us": sum, "ratio": believing, "most": LIMITS.0,
                    "work": work.iter().map(super::work::Operation::to_json).collect::<Vec<_>>(), "samples_us": connections },
                "transfer": { "mebibytes": args.mebibytes, "ingress_mib_s": ingress_rate, "proxies_mib_s": plain_rate,
                    "ratio": moving, "most": LIMITS.1, "ingress_s": ingress, "proxies_s": plain },
            })
        );
        return Ok(ExitCode::SUCCESS);
    }
    for operation in &work {
        let (end, name, count, each) = (operation.end, operation.name, operation.count, operation.each);
        println!("{end:<7} {name:<56} {count:>3} x {each:>8.1} us");
    }
    let missed = |ratio: f64, most: f64| if ratio <= most { "" } else { ", missed" };
    println!(
        "a guest believed {connection:>8.0} us, public-key work {sum:>8.0} us: {believing:.2} x, at most {}{}",
        LIMITS.0,
        missed(believing, LIMITS.0)
    );
    println!(
        "transfer of {} MiB: ingress {ingress_rate:.0} MiB/s, plain proxies {plain_rate:.0} MiB/s: {moving:.2} x the time, at most {}{}",
        args.mebibytes,
        LIMITS.1,
        missed(moving, LIMITS.1)
    );
    Ok(ExitCode::SUCCESS)
}

async fn listener() -> Result<(TcpListener, SocketAddr), CliError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.class(Class::Platform)?;
    let at = listener.local_addr().class(Class::Platform)?;
    Ok((listener, at))
}

/// A workload that answers every byte with so many, and an end.
async fn source(bytes: usize) -> Result<SocketAddr, CliError> {
    let (listener, at) = listener().await?;
    tokio::spawn(async move {
        let piece = vec![0x5a; PIECE];
        while let Ok((mut client, _)) = listener.accept().await {
            let piece = piece.clone();
            tokio::spawn(async move {
                let mut left = if client.read_u8().await.is_ok() { bytes } else { 0 };
                while left > 0 {
                    let next = left.min(piece.len());
                    if client.write_all(&piece[..next]).await.is_err() {
                        return;
                    }
                    left -= next;
                }
            });
        }
    });
    Ok(at)
}

/// The workload behind the ingress of a guest.
struct Workload(SocketAddr);

impl Behind for Workload {
    type Io = TcpStream;
    type Place = ();

    async fn open(&self, _: &ConnectionState) -> Result<(TcpStream, ()), StreamRefusal> {
        TcpStream::connect(self.0).await.map(|io| (io, ())).map_err(|_| StreamRefusal::PortClosed)
    }

    fn break_off(io: TcpStream, (): ()) {
        let _ = io.set_zero_linger();
    }
}

async fn guest(platform: &Platform, workload: SocketAddr) -> Result<SocketAddr, CliError> {
    let identity = Identity::generate("coffer bench guest").class(Class::Internal)?;
    let rule = ClientRule::AuthorizedPerCall;
    let tls = ServerTls::new(&identity, rule, Purpose::Ingress(PORT)).class(Class::Internal)?;
    let attestation = AttestationService::attester(Arc::new(Guest::launch(platform)?));
    let (listener, at) = listener().await?;
    let routes = Routes::new(Streams::new(Workload(workload)));
    let limits = ServeLimits { unattested: 1024, connections: 20_000, ..ServeLimits::default() };
    // As everywhere: an answer does not wait for more.
    let incoming = TcpListenerStream::new(listener).inspect(|stream| {
        let _ = stream.as_ref().map(|stream| stream.set_nodelay(true));
    });
    tokio::spawn(serve(incoming, tls, attestation, routes, limits, std::future::pending()));
    Ok(at)
}

fn peer(platform: &Platform, at: SocketAddr) -> Result<Peer, CliError> {
    let guest = Pair { measurement: platform.measurement, host_data: platform.document.digest().host_data() };
    Ok(Peer {
        address: at.to_string(),
        port: PORT,
        guests: vec![guest],
        anchors: TrustAnchors::amd().with_simulated(platform.anchor),
        policy: EvidencePolicy::default_floor(),
        identity: Identity::generate("coffer bench client").class(Class::Internal)?,
    })
}

async fn through_guest(platform: &Platform, at: SocketAddr) -> Result<SocketAddr, CliError> {
    let peer = peer(platform, at)?;
    let first = peer.connect().await?;
    let (listener, here) = listener().await?;
    tokio::spawn(Forwarder::new(peer, first).serve(listener, |_, _| ()));
    Ok(here)
}

/// The same way with nothing on it but TLS: a proxy that begins it, and one that ends it.
async fn through_proxies(workload: SocketAddr) -> Result<SocketAddr, CliError> {
    let (server, client) = plain_tls()?;
    let (end, end_at) = listener().await?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = end.accept().await {
            let server = server.clone();
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                let (Ok(tls), Ok(to)) = (server.accept(stream).await, TcpStream::connect(workload).await) else {
                    return;
                };
                join(tls, to).await;
            });
        }
    });
    let (begin, here) = listener().await?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = begin.accept().await {
            let client = client.clone();
            tokio::spawn(async move {
                let Ok(to) = TcpStream::connect(end_at).await else { return };
                let _ = to.set_nodelay(true);
                if let Ok(tls) = client.connect(ServerName::from(Ipv4Addr::LOCALHOST), to).await {
                    join(stream, tls).await;
                }
            });
        }
    });
    Ok(here)
}

/// TLS with the algorithms that RA-TLS has, and without its checks.
fn plain_tls() -> Result<(TlsAcceptor, TlsConnector), CliError> {
    let named = rcgen::generate_simple_self_signed(vec![Ipv4Addr::LOCALHOST.to_string()]).class(Class::Internal)?;
    let key = PrivatePkcs8KeyDer::from(named.signing_key.serialize_der()).into();
    let provider = || Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .class(Class::Internal)?
        .with_no_client_auth()
        .with_single_cert(vec![named.cert.der().clone()], key)
        .class(Class::Internal)?;
    let mut roots = RootCertStore::empty();
    roots.add(named.cert.der().clone()).class(Class::Internal)?;
    let client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .class(Class::Internal)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok((Arc::new(server).into(), Arc::new(client).into()))
}

async fn join(
    mut one: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    mut other: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
) {
    let _ = tokio::io::copy_bidirectional_with_sizes(&mut one, &mut other, PIECE, PIECE).await;
}

/// Seconds until all of it came.
async fn transfer(from: SocketAddr, mebibytes: u16) -> Result<f64, CliError> {
    let start = Instant::now();
    let mut stream = TcpStream::connect(from).await.class(Class::Internal)?;
    stream.write_u8(1).await.class(Class::Internal)?;
    let mut piece = vec![0; PIECE];
    let mut came = 0_usize;
    loop {
        let read = stream.read(&mut piece).await.class(Class::Internal)?;
        if read == 0 {
            break;
        }
        came += read;
    }
    let seconds = start.elapsed().as_secs_f64();
    if real(came >> 10) / 1024.0 < f64::from(mebibytes) {
        return Err(broken("a transfer ended before its end"));
    }
    Ok(seconds)
}
