//! `coffer connect`.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use coffer_ratls::Identity;
use coffer_rim::out;
use coffer_rim::sys::heap::keep_freed;
use coffer_runtime::ingress::{Attested, Forwarder, Peer};
use coffer_runtime::owner_access;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::boxes::attend::of_signal;
use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::evidence::judging;
use crate::prove::reference::References;
use crate::terminal;

/// Reach a port of a guest's workload behind RA-TLS: whoever answers there must prove first that it is the guest expected.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The port was opened by `coffer run -p HOST-PORT:PORT/ra-tls`. Without --listen, one connection is joined to \
standard input and output, and ends when the workload ends it.
Exit status: 0, 141 nobody reads any more, 3 a file, 5 not authentic, 6 refused by policy or by the guest, 7 nobody answers, or the connection breaks off.

Examples:
  coffer connect --reference web.json --guest-port 8080 \\
      --listen 127.0.0.1:9000 host.example:8443
  coffer connect --reference web.json --manifest-key manifest.pem.pub \\
      --policy strict --guest-port 8080 host.example:8443 <request
  ssh -o ProxyCommand='coffer connect --reference ssh.json \\
      --guest-port 22 %h:%p' -p 2222 host.example"
)]
pub struct Args {
    /// The guest must prove itself, for lines that say so: there is no other way to connect.
    #[arg(long)]
    attest: bool,
    #[command(flatten)]
    references: References,
    /// Policy on top, TOML and no Rego; the word `strict` is the built-in policy of that name [default: the built-in floor].
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Also believe simulated evidence: of this installation's simulator, or of those given by --anchor. It proves nothing.
    #[arg(long)]
    allow_simulated: bool,
    /// With --allow-simulated: this simulator root, not this installation's. SHA-256 of its public key in hexadecimal, or its
    /// certificate, DER or PEM.
    #[arg(long, value_name = "HEX|FILE", requires = "allow_simulated")]
    anchor: Vec<String>,
    /// Port of the workload that is meant [default: that of the address].
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    guest_port: Option<u16>,
    /// Show this installation's owner key, for a port that takes listed clients alone.
    #[arg(long)]
    as_owner: bool,
    /// Listen here for clients, and lead each to the workload.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Where the host of the guest listens.
    #[arg(value_name = "HOST:PORT")]
    address: String,
}

/// Connects, and stays until the workload ends it, or a signal ends a listener.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    if context.json && args.listen.is_none() {
        let message = "--json describes a listener, and without --listen the workload's bytes go to standard output";
        return Err(CliError::new(Class::Usage, message).hint("leave --json out, or name --listen ADDRESS:PORT"));
    }
    let peer = peer(args, context)?;
    keep_freed();
    let runtime = context.runtime()?;
    let ended = runtime.block_on(async {
        let attested = peer.connect().await?;
        match args.listen.as_deref() {
            None => {
                match out::check() {
                    // Not yet: that has a code of its own below.
                    Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(out::unwritten(&error)),
                    _ => {}
                }
                let gone = terminal::reader_gone();
                let ended = tokio::select! {
                    piped = attested.pipe(&peer, tokio::io::stdin(), tokio::io::stdout()) => Some(piped),
                    () = gone.notified() => None,
                };
                let seen_enough = || out::check().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
                match ended {
                    // Whoever reads has seen enough.
                    None => std::process::exit(of_signal(libc::SIGPIPE).into()),
                    Some(Err(_)) if seen_enough() => std::process::exit(of_signal(libc::SIGPIPE).into()),
                    Some(piped) => piped?,
                }
                // Whoever still writes to us need not be waited for: the workload listens no more.
                let _ = std::io::stdout().flush();
                std::process::exit(0)
            }
            Some(address) => listen(address, peer, attested, context.json).await,
        }
    });
    // Whoever still writes to us need not be waited for, where the stream broke off either.
    runtime.shutdown_background();
    ended
}

fn peer(args: &Args, context: &Context) -> Result<Peer, CliError> {
    let policy = judging::floor_alone(args.policy.as_deref())?;
    owner_access::only_narrows(&policy)?;
    let guests = args.references.read(policy.max_manifest_age, SystemTime::now().into())?;
    if guests.is_empty() {
        let message =
            "no guest is named that may be there: any genuine guest would do, and that is nobody in particular";
        return Err(CliError::new(Class::Usage, message)
            .hint("name it with --reference FILE: the output of `coffer measure --json`, or a signed manifest"));
    }
    let port = port_of(&args.address).filter(|port| *port > 0).ok_or_else(|| {
        let message = format!("{:?} is no address", args.address);
        CliError::new(Class::Usage, message).hint("write HOST:PORT, or [IPV6]:PORT, without https://")
    })?;
    if let Some(listen) = args.listen.as_deref().filter(|listen| port_of(listen).is_none()) {
        let message = format!("invalid value {listen:?} for --listen: expected ADDRESS:PORT");
        return Err(CliError::new(Class::Usage, message).hint("such as 127.0.0.1:9001"));
    }
    let identity = if args.as_owner {
        owner_access::load(&context.open_home()?.owner())?
    } else {
        Identity::generate("coffer connect").class(Class::Internal)?
    };
    Ok(Peer {
        address: args.address.clone(),
        port: args.guest_port.unwrap_or(port),
        guests,
        anchors: judging::anchors(args.allow_simulated, &args.anchor, context)?,
        policy,
        identity,
    })
}

/// The port of an address with a host.
fn port_of(address: &str) -> Option<u16> {
    let (host, port) = address.rsplit_once(':')?;
    port.parse().ok().filter(|_| !host.is_empty() && !host.contains('/'))
}

async fn listen(address: &str, peer: Peer, attested: Attested, json: bool) -> Result<ExitCode, CliError> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|error| coffer_rim::listen::failed(format_args!("{address:?}"), &error))?;
    let here = listener.local_addr()?;
    let report = attested.findings.appraisal.verified().map(|verified| {
        let report = verified.report();
        (report.measurement(), report.host_data(), verified.simulated())
    });
    let Some((measurement, host_data, simulated)) = report else {
        return Err(CliError::new(Class::Internal, "the guest was admitted without a report"));
    };
    if json {
        println!(
            "{}",
            json!({ "listening": here, "port": peer.port, "measurement": measurement, "host_data": host_data, "simulated": simulated })
        );
    } else {
        let what = if simulated { ", which is SIMULATED" } else { "" };
        println!("{here} leads to port {} of the guest{what}", peer.port);
        println!("  measurement  {measurement}");
        println!("  host data    {host_data}");
    }
    let _ = std::io::stdout().flush();
    let (mut ended, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let said = |from: SocketAddr, why: String| eprintln!("coffer: {from}: {}", coffer_rim::foreign(&why));
    tokio::select! {
        () = Forwarder::new(peer, attested).serve(listener, said) => {}
        _ = ended.recv() => {}
        _ = interrupted.recv() => {}
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port_and_nothing_else() {
        for (address, port) in [
            ("host.example:8443", Some(8443)),
            ("[::1]:1", Some(1)),
            ("127.0.0.1:0", Some(0)),
            ("9001", None),
            (":9001", None),
            ("host", None),
            ("https://127.0.0.1:8443", None),
            ("127.0.0.1:8443/x", None),
            ("127.0.0.1:65536", None),
        ] {
            assert_eq!(port_of(address), port, "{address}");
        }
    }
}
