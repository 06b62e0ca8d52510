//! Ingress: RA-TLS that ends here, in front of TCP ports of the workload; and plain TLS, in front of those whose spec says so ([`browsers`]).
//!
//! Each port of the spec has a line of its own from the host and a purpose of its own, so that a connection for one port is none for another.
//! Trusts: nothing that comes over the line. Never: hands on a byte of a client that was not given evidence on its connection, opens a
//! port that the spec does not name, connects to anything but the guest's own loopback.
//! Source: docs/design/protocol.md §4; docs/ingress.md.

pub mod browsers;
mod loopback;
mod room;

use std::{sync::Arc, time::Duration};

use coffer_guest_proto::ports;
use coffer_ratls::{
    AttestationService, Attester, Behind, ClientRule, ConnectionState, Identity, Purpose, ServeLimits, ServerTls,
    StreamRefusal, Streams,
};
use coffer_rim::sys::heap::keep_freed;
use coffer_spec::{Ingress, IngressClients, WorkloadSpec};
use coffer_verifier::AttestationResult;
use tokio::sync::OwnedSemaphorePermit;
use tonic::service::Routes;

use room::{Room, STREAMS};

use crate::{
    ending::{Ending, WorkloadStream},
    failure::{Code, Failure, OrFail},
    host::Ports,
    log_ring::LogRing,
    notices::Notices,
    peers::{Gate, Judge},
};

/// For all ports together; each has its share.
const LIMITS: ServeLimits = ServeLimits {
    handshake: Duration::from_secs(10),
    unattested: 8,
    unattested_lifetime: Duration::from_mins(1),
    connections: 32,
    windows: (256 << 10, 512 << 10),
    streams: 64,
    headers: 2 << 10,
};
/// What a stream has on its way from the workload: four pieces of 64 KiB, however much HTTP/2 would take before its client reads.
const OUTGOING: u64 = 256 << 10;
// What the spec reserves is enough where every connection and stream is filled.
const _: () = assert!(LIMITS.most_memory() + STREAMS as u64 * OUTGOING <= Ingress::MEMORY);
/// Opens the ports of a spec, and gives those that need a certificate.
///
/// # Errors
/// `internal` if one cannot be opened.
pub fn open(
    spec: &WorkloadSpec,
    ports: &Ports,
    identity: &Identity,
    attester: &Arc<dyn Attester>,
    (logs, ending): (&Arc<LogRing>, &Ending),
) -> Result<Vec<Arc<browsers::Certified>>, Failure> {
    let all = &spec.ingress;
    if !all.is_empty() {
        keep_freed();
    }
    let share = |of: usize| (of / all.len().max(1)).max(1);
    let limits = ServeLimits { unattested: share(LIMITS.unattested), connections: share(LIMITS.connections), ..LIMITS };
    let common = Room::common(all.len());
    let mut plain = Vec::new();
    for ingress in all {
        let (port, room) = (ingress.port, Arc::new(common.with_own()));
        let incoming = ports.open(ports::ingress(port)).or_fail(Code::Internal, "listen for clients")?;
        let (rule, attestation) = match &ingress.clients {
            IngressClients::Anyone => (ClientRule::AuthorizedPerCall, AttestationService::attester(attester.clone())),
            IngressClients::Keys(keys) => {
                (ClientRule::Spki(keys.clone()), AttestationService::attester(attester.clone()))
            }
            IngressClients::Guests(guests) => {
                let gate = Gate::new(Notices::of_strangers(logs, format!("port {port}")));
                let judge = Arc::new(Judge::new(guests, spec));
                (ClientRule::AttestedAfter, AttestationService::mutual(attester.clone(), judge, Arc::new(gate)))
            }
            IngressClients::Certificate(profile) => {
                let opened = Arc::new(browsers::Certified::new(port, profile, limits.unattested)?);
                tokio::spawn(opened.clone().serve(incoming, limits, room, ending.clone()));
                plain.push(opened);
                continue;
            }
        };
        let behind =
            Loopback { port, room, ending: ending.clone(), only_guests: matches!(rule, ClientRule::AttestedAfter) };
        let tls = ServerTls::new(identity, rule, Purpose::Ingress(port)).or_fail(Code::Internal, "configure TLS")?;
        tokio::spawn(coffer_ratls::serve(
            incoming,
            tls,
            attestation,
            Routes::new(Streams::new(behind)),
            limits,
            std::future::pending(),
        ));
    }
    Ok(plain)
}

/// A port of the workload's.
struct Loopback {
    port: u16,
    room: Arc<Room>,
    ending: Ending,
    /// Its clients show evidence too.
    only_guests: bool,
}

impl Behind for Loopback {
    type Io = WorkloadStream;
    type Place = OwnedSemaphorePermit;

    async fn open(&self, from: &ConnectionState) -> Result<(WorkloadStream, OwnedSemaphorePermit), StreamRefusal> {
        // One whose evidence was refused, or is too old, has none.
        if self.only_guests && from.attested::<AttestationResult>().is_err() {
            return Err(StreamRefusal::NotAdmitted);
        }
        let place = self.room.take().ok_or(StreamRefusal::TooMany)?;
        Ok((loopback::connect(self.port, &self.ending).await?, place))
    }

    /// By a reset, which no program takes for an end.
    fn break_off(workload: WorkloadStream, _: OwnedSemaphorePermit) {
        workload.break_off();
    }
}
