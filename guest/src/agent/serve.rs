//! The agent's ports.

use std::{sync::Arc, time::Duration};

use coffer_guest_proto::{
    control_server::ControlServer,
    exec_server::ExecServer,
    owner_server::OwnerServer,
    ports::{CONTROL, EXEC, RA_TLS},
};
use coffer_ratls::{AttestationService, Attester, ClientRule, Identity, Purpose, ServeLimits, ServerTls};
use tonic::{
    service::Routes,
    transport::{Server, server::Router},
};

use super::{Agent, authority::Door, control::ControlService, exec::ExecService, owner::OwnerService};
use crate::{
    failure::{Code, Failure, OrFail},
    host::Ports,
    processor::SharedProcessor,
};

/// Opens the host's two ports.
///
/// # Errors
/// `internal` if a port cannot be opened; later failures end the port alone.
pub fn host_ports(agent: &Arc<Agent>, ports: &Ports) -> Result<(), Failure> {
    let door = Door::Host;
    let control = ControlServer::new(ControlService { agent: agent.clone(), door });
    plain(ports, CONTROL, server().add_service(control))?;
    let exec = ExecServer::new(ExecService { agent: agent.clone(), door });
    plain(ports, EXEC, server().add_service(exec))
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
    let routes = Routes::new(ControlServer::new(ControlService { agent: agent.clone(), door }))
        .add_service(ExecServer::new(ExecService { agent: agent.clone(), door }))
        .add_service(OwnerServer::new(OwnerService { agent: agent.clone(), processor, attester: attester.clone() }));
    let tls = ServerTls::new(identity, ClientRule::AuthorizedPerCall, Purpose::Control)
        .or_fail(Code::Internal, "configure TLS")?;
    let incoming = ports.open(RA_TLS).or_fail(Code::Internal, "listen for owners")?;
    tokio::spawn(coffer_ratls::serve(
        incoming,
        tls,
        AttestationService::attester(attester),
        routes,
        ServeLimits { unattested: 16, connections: 64, windows: WINDOWS, ..ServeLimits::default() },
        std::future::pending(),
    ));
    Ok(())
}

/// What an owner's connection holds of input that nobody takes: as much as one program's.
const WINDOWS: (u32, u32) = (128 << 10, 128 << 10);

fn server() -> Server {
    Server::builder().max_concurrent_streams(64).http2_keepalive_interval(Some(Duration::from_secs(30)))
}

fn plain(ports: &Ports, port: u32, router: Router) -> Result<(), Failure> {
    let incoming = ports.open(port).or_fail(Code::Internal, "listen for the host")?;
    tokio::spawn(router.serve_with_incoming(incoming));
    Ok(())
}
