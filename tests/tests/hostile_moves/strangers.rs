//! Somebody whom nobody listed, at the ports behind RA-TLS.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use coffer_guest_proto::{
    InjectRequest, LogsRequest, RefreshRequest, SealRequest, SignalRequest, StateRequest, StatsRequest, StopRequest,
    UnsealRequest,
    control_client::ControlClient,
    exec_client::ExecClient,
    owner_client::OwnerClient,
    ports::{RA_TLS, ingress},
};
use coffer_ratls::{Appraiser, Identity, Purpose, Refusal, connect_and_verify};
use coffer_verifier::{abi::ReportData, evidence::Evidence};
use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName};
use tonic::Code;

use super::{chance::Chance, guest_ports::Guest};

/// How long all of one takes at most.
const PATIENCE: Duration = Duration::from_secs(8);

/// Takes whatever it is shown.
struct Anything;

impl Appraiser for Anything {
    type Admitted = ();

    fn appraise(&self, _: &Evidence, _: &ReportData) -> Result<(), Refusal> {
        Ok(())
    }
}

/// The beginning of a handshake: for a port's protocol, for another one, or for none.
pub fn client_hello(chance: &mut Chance) -> Result<Vec<u8>> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    for protocol in ["coffer-control/1", "coffer-ingress/1/8080", "coffer-kbs/1", "h2"] {
        if chance.once_in(2) {
            config.alpn_protocols.push(protocol.into());
        }
    }
    let name = *chance.of(&["guest.invalid", "localhost", "127.0.0.1"]);
    let mut client = ClientConnection::new(Arc::new(config), ServerName::try_from(name)?)?;
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes)?;
    Ok(bytes)
}

/// The whole handshake and the guest's proof, and then every call there is.
pub fn proves_nothing(guest: &Guest, chance: &mut Chance) -> Result<()> {
    let inside = chance.once_in(3);
    let (port, purpose) =
        if inside { (ingress(guest.served), Purpose::Ingress(guest.served)) } else { (RA_TLS, Purpose::Control) };
    // Or with a purpose that is another port's.
    let wrong = chance.once_in(4);
    let purpose = if wrong { *chance.of(&[Purpose::Kbs, Purpose::Ingress(1)]) } else { purpose };
    let Some(stream) = guest.for_tls(port)? else { return Ok(()) };
    stream.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let said = runtime.block_on(async {
        let stream = tokio::net::UnixStream::from_std(stream)?;
        let stranger = Identity::generate("stranger")?;
        let met = connect_and_verify(stream, &stranger, purpose, Arc::new(Anything));
        // A place that others hold, or the way it is refused: no matter.
        let Ok(Ok(met)) = tokio::time::timeout(PATIENCE, met).await else { return Ok(()) };
        ensure!(!wrong, "a connection of purpose {purpose:?} was attested on port {port}");
        if inside {
            return Ok(());
        }
        match tokio::time::timeout(PATIENCE, every_call(met.channel())).await {
            Ok(said) => said,
            Err(_) => Ok(()),
        }
    });
    runtime.shutdown_background();
    said
}

async fn every_call(channel: tonic::transport::Channel) -> Result<()> {
    let mut control = ControlClient::new(channel.clone());
    let mut owner = OwnerClient::new(channel.clone());
    let mut exec = ExecClient::new(channel);
    let name = "note".to_owned();
    let asks = tokio_stream::once(coffer_guest_proto::ExecRequest::default());
    let answers = [
        control.state(StateRequest {}).await.err(),
        control.stats(StatsRequest {}).await.err(),
        control.stop(StopRequest { grace_seconds: 0 }).await.err(),
        control.signal(SignalRequest { number: 9 }).await.err(),
        control.logs(LogsRequest::default()).await.err(),
        exec.run(asks).await.err(),
        owner.inject(InjectRequest { name, ..InjectRequest::default() }).await.err(),
        owner.refresh(RefreshRequest {}).await.err(),
        owner.seal(SealRequest::default()).await.err(),
        owner.unseal(UnsealRequest::default()).await.err(),
    ];
    for (at, answer) in answers.into_iter().enumerate() {
        let status = answer.with_context(|| format!("a stranger's call {at} was answered"))?;
        match status.code() {
            Code::PermissionDenied | Code::Unauthenticated => {}
            // The connection went.
            Code::Unavailable | Code::Cancelled | Code::Unknown => return Ok(()),
            _ => bail!("a stranger's call {at} was refused by {status:?}"),
        }
    }
    Ok(())
}
