//! The agent's ports.

use std::{io, sync::Arc, time::Duration};

use coffer_guest_proto::{
    control_server::ControlServer,
    exec_server::ExecServer,
    owner_server::OwnerServer,
    ports::{CONTROL, EXEC, RA_TLS},
};
use coffer_machine::vsock::HOST_CID;
use coffer_ratls::{AttestationService, Attester, ClientRule, Identity, Purpose, ServeLimits, ServerTls};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{
    service::Routes,
    transport::{Server, server::Router},
};

use super::{Agent, authority::Door, control::ControlService, exec::ExecService, owner::OwnerService};
use crate::{
    failure::{Code, Failure, OrFail},
    processor::SharedProcessor,
    sys::vsock::{VsockListener, VsockStream},
};

/// Opens the host's two ports.
///
/// # Errors
/// `internal` if a port cannot be opened; later failures end the port alone.
pub fn host_ports(agent: &Arc<Agent>) -> Result<(), Failure> {
    let door = Door::Host;
    let control = ControlServer::new(ControlService { agent: agent.clone(), door });
    plain(CONTROL, server().add_service(control))?;
    let exec = ExecServer::new(ExecService { agent: agent.clone(), door });
    plain(EXEC, server().add_service(exec))
}

/// Opens the owners' port.
///
/// # Errors
/// `internal`.
pub fn owner_port(
    agent: &Arc<Agent>,
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
    let listener = VsockListener::bind(RA_TLS).or_fail(Code::Internal, "listen for owners")?;
    tokio::spawn(coffer_ratls::serve(
        incoming(listener),
        tls,
        AttestationService::attester(attester),
        routes,
        ServeLimits { unattested: 16, connections: 64, ..ServeLimits::default() },
        std::future::pending(),
    ));
    Ok(())
}

fn server() -> Server {
    Server::builder().max_concurrent_streams(64).http2_keepalive_interval(Some(Duration::from_secs(30)))
}

fn plain(port: u32, router: Router) -> Result<(), Failure> {
    let listener = VsockListener::bind(port).or_fail(Code::Internal, "listen for the host")?;
    tokio::spawn(router.serve_with_incoming(incoming(listener)));
    Ok(())
}

/// Connections from the host; nobody else is on the line.
fn incoming(listener: VsockListener) -> impl Stream<Item = io::Result<VsockStream>> + Send + 'static {
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok(stream) if stream.peer().cid != HOST_CID => {}
                Ok(stream) => {
                    if sender.send(Ok(stream)).await.is_err() {
                        return;
                    }
                }
                // Out of descriptors, or the like: give it time, and go on.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    });
    ReceiverStream::new(receiver)
}
