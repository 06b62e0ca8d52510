//! The road to the key broker: the host's relay, which sees nothing but TLS.

pub mod questions;

use std::{io, sync::Arc, time::Duration};

use coffer_guest_proto::ports::HOST_KBS_RELAY;
use coffer_kbs_client::{BrokerClient, ClientError, Secret};
use coffer_ratls::{Attester, Identity};
use coffer_seal::SealPolicy;
use coffer_spec::{KbsPin, SecretPath, WorkloadSpec};

use crate::{clock, host::Host, sys::vsock::VsockStream};

/// Where secrets come from.
pub trait Source: Sync {
    /// A secret as it is now.
    fn current(&self, path: &SecretPath) -> impl Future<Output = Result<Secret, ClientError>> + Send;
}

impl Source for BrokerClient {
    fn current(&self, path: &SecretPath) -> impl Future<Output = Result<Secret, ClientError>> + Send {
        self.secret(path)
    }
}

/// How long the key broker may take for one call, all attempts and questions together.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Connections tried, and the pauses between them.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];

/// A connection to the broker of the spec, which has admitted this guest on it.
///
/// # Errors
/// [`ClientError`].
pub async fn connect(
    host: Host,
    spec: &WorkloadSpec,
    kbs: &KbsPin,
    identity: &Identity,
    attester: Arc<dyn Attester>,
) -> Result<BrokerClient, ClientError> {
    let mut pauses = PAUSES.into_iter();
    loop {
        let result = match relay(host).await {
            Ok(stream) => {
                BrokerClient::connect(stream, identity, spec.tenant.as_str(), kbs.spki.clone(), attester.clone()).await
            }
            Err(error) => Err(ClientError::Unreachable { cause: error.to_string() }),
        };
        match (result, pauses.next()) {
            // Only silence, and a broker that is not well, are worth another try; a refusal or another key will not change by asking again.
            (
                Err(ClientError::Unreachable { .. } | ClientError::Slow { .. } | ClientError::Undecided { .. }),
                Some(pause),
            ) => {
                tokio::time::sleep(pause).await;
            }
            (result, _) => {
                let result = result.map_err(|error| said(kbs, error));
                if let Some(word) = result.as_ref().ok().and_then(BrokerClient::told_time) {
                    clock::told(word, host);
                }
                return result;
            }
        }
    }
}

/// What a line ended with is the word of the host's relay, which hangs up where it reaches nobody, or of whoever else answers there.
fn said(kbs: &KbsPin, error: ClientError) -> ClientError {
    match error {
        ClientError::Unreachable { .. } => {
            ClientError::Unreachable { cause: format!("no key broker answers the guest's host at {}", kbs.address) }
        }
        other => other,
    }
}

/// The same, under a key of its own.
///
/// # Errors
/// [`ClientError`].
pub async fn connect_anew(
    host: Host,
    spec: &WorkloadSpec,
    kbs: &KbsPin,
    attester: Arc<dyn Attester>,
) -> Result<BrokerClient, ClientError> {
    let own = |_| ClientError::Own { cause: "no identity for the key broker".into() };
    let identity = Identity::generate("coffer guest").map_err(own)?;
    connect(host, spec, kbs, &identity, attester).await
}

/// Whether one of the policies asks the broker of the spec.
pub fn is_asked(spec: &WorkloadSpec, policies: &[SealPolicy]) -> bool {
    spec.kbs.is_some() && policies.iter().any(|policy| policy.source().needs_broker())
}

/// The same, if one of the policies needs it and the spec names a broker. That there is none is refused later, by the policy's name.
///
/// # Errors
/// [`ClientError`], and the policy that needed it.
pub async fn for_policies(
    host: Host,
    spec: &WorkloadSpec,
    policies: &[SealPolicy],
    attester: &Arc<dyn Attester>,
) -> Result<Option<BrokerClient>, (SealPolicy, ClientError)> {
    let needs = policies.iter().find(|policy| policy.source().needs_broker());
    let Some((policy, kbs)) = needs.zip(spec.kbs.as_ref()) else { return Ok(None) };
    let connected = Box::pin(connect_anew(host, spec, kbs, attester.clone())).await;
    connected.map(Some).map_err(|cause| (*policy, cause))
}

async fn relay(host: Host) -> io::Result<VsockStream> {
    let line = tokio::task::spawn_blocking(move || host.connect(HOST_KBS_RELAY)).await??;
    line.into_stream()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_is_down_is_named_by_its_address_and_not_by_how_a_line_ended() {
        let kbs = KbsPin { address: "kbs.example:4480".into(), spki: Vec::new() };
        let cause = "TLS handshake failed: Broken pipe (os error 32)".to_owned();
        let down = said(&kbs, ClientError::Unreachable { cause });
        assert_eq!(
            down.to_string(),
            "key broker is unreachable: no key broker answers the guest's host at kbs.example:4480"
        );
        let refused = ClientError::Refused { code: "not-released".into(), id: "ab".into() };
        assert!(said(&kbs, refused).to_string().contains("not-released"), "what a broker says is passed on");
    }
}
