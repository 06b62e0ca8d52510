//! The guest's side: one attested connection to a pinned broker.

use std::sync::Arc;

use coffer_ratls::{Attester, AttestingConnection, Identity, Purpose, connect_and_attest};
use coffer_spec::SecretPath;
use coffer_verifier::{abi::SpkiDigest, binding::length_prefixed};
use secrecy::SecretBox;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::Status;

use crate::{
    error::{ClientError, call},
    kbs::v1::{GetSecretRequest, GetSecretResponse, broker_client},
};

/// HPKE method of [`BrokerClient::secret`], on both ends.
pub const GET_SECRET: &str = "coffer.kbs.v1.Broker/GetSecret";

/// HPKE AAD of a released secret: lp(tenant) lp(path) lp(version, u64 big-endian).
pub fn secret_aad(tenant: &str, path: &SecretPath, version: u64) -> Vec<u8> {
    length_prefixed(&[tenant.as_bytes(), path.as_str().as_bytes(), &version.to_be_bytes()])
}

/// A released secret. Wiped on drop, never printed.
pub struct Secret {
    /// The value.
    pub value: SecretBox<Vec<u8>>,
    /// Its version at the broker.
    pub version: u64,
}

/// A connection on which the broker has admitted this guest.
pub struct BrokerClient {
    connection: AttestingConnection,
    broker: broker_client::BrokerClient<tonic::transport::Channel>,
    tenant: String,
}

impl BrokerClient {
    /// Opens `stream` to a broker that holds one of `pins`, and attests to it. `tenant`: of this guest's own spec; what
    /// was released for another tenant does not open.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn connect<IO>(
        stream: IO,
        identity: &Identity,
        tenant: &str,
        pins: Vec<SpkiDigest>,
        attester: Arc<dyn Attester>,
    ) -> Result<Self, ClientError>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = connect_and_attest(stream, identity, Purpose::Kbs, pins, attester).await?;
        let broker = broker_client::BrokerClient::new(connection.channel());
        Ok(Self { connection, broker, tenant: tenant.to_owned() })
    }

    /// Asks for a secret. Attests anew, once, if the broker finds the last report too old.
    ///
    /// # Errors
    /// [`ClientError::Refused`] whether it is missing or not for us; the others as they say.
    pub async fn secret(&self, path: &SecretPath) -> Result<Secret, ClientError> {
        let response = match self.request(path).await {
            Err(status) if status.code() == tonic::Code::Unauthenticated => {
                self.connection.renew().await?;
                self.request(path).await
            }
            other => other,
        };
        let response = response.map_err(|status| call(&status))?;
        let sealed = response.value.ok_or_else(|| ClientError::Protocol { cause: "no value in answer".to_owned() })?;
        let aad = secret_aad(&self.tenant, path, response.version);
        let value = self.connection.open(GET_SECRET, &aad, &sealed.into()).map_err(ClientError::Sealed)?;
        Ok(Secret { value, version: response.version })
    }

    /// The attested connection, for calls this client has no method for.
    pub fn connection(&self) -> &AttestingConnection {
        &self.connection
    }

    async fn request(&self, path: &SecretPath) -> Result<GetSecretResponse, Status> {
        let request = GetSecretRequest { path: path.to_string() };
        self.broker.clone().get_secret(request).await.map(tonic::Response::into_inner)
    }
}
