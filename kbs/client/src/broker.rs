//! The guest's side: one attested connection to a pinned broker.

use std::{sync::Arc, time::Duration};

use coffer_ratls::{
    Attester, AttestingConnection, Identity, Purpose, ToldTime, connect_and_attest, signing_request_spki,
};
use coffer_spec::SecretPath;
use coffer_verifier::{
    abi::{ReportData, SpkiDigest, WorkloadDigest},
    binding::{TokenBinding, length_prefixed},
    ear::{Nonce, Word},
};
use secrecy::{ExposeSecret as _, SecretBox};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tonic::{Response, Status};

use crate::{
    error::{ClientError, call},
    kbs::v1::{
        self, GenerationRequest, GenerationStep, GetSealingKeyRequest, GetSecretRequest, IssueCertificateRequest,
        IssueTokenRequest, broker_client,
    },
    sealing::SealingName,
};

/// HPKE method of [`BrokerClient::secret`], on both ends.
pub const GET_SECRET: &str = "coffer.kbs.v1.Broker/GetSecret";
/// HPKE method of [`BrokerClient::sealing_key`].
pub const GET_SEALING_KEY: &str = "coffer.kbs.v1.Broker/GetSealingKey";
/// HPKE method of [`BrokerClient::generation`].
pub const GENERATION: &str = "coffer.kbs.v1.Broker/Generation";

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

/// A sealing key. Wiped on drop, never printed.
pub struct SealingKey(pub SecretBox<[u8; 32]>);

/// What a counter says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    /// What it is at now; 0: nobody began it.
    pub current: u64,
    /// True if this very call set it.
    pub set: bool,
}

type Raw = broker_client::BrokerClient<tonic::transport::Channel>;

/// Hears how often a guest asks, to bound it.
pub trait Meter: Send + Sync {
    /// A question goes out.
    fn asked(&self);
    /// The broker wants fewer.
    fn too_often(&self);
}

/// A connection on which the broker has admitted this guest.
pub struct BrokerClient {
    connection: AttestingConnection,
    broker: Raw,
    tenant: String,
    longest: Duration,
    meter: Option<Arc<dyn Meter>>,
}

/// Longest for one call, its answer included.
const CALL: Duration = Duration::from_mins(1);

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
        Ok(Self { connection, broker, tenant: tenant.to_owned(), longest: CALL, meter: None })
    }

    /// Waits for each call at most so long, where it is usually a minute.
    #[must_use]
    pub fn waiting_at_most(self, longest: Duration) -> Self {
        Self { longest, ..self }
    }

    /// Has each question counted.
    #[must_use]
    pub fn metered(self, meter: Arc<dyn Meter>) -> Self {
        Self { meter: Some(meter), ..self }
    }

    /// What time the broker said it is, when it admitted this guest last.
    pub fn told_time(&self) -> Option<ToldTime> {
        self.connection.told_time()
    }

    /// Asks for a secret as it is now. Attests anew, once, if the broker finds the last report too old.
    ///
    /// # Errors
    /// [`ClientError::Refused`] whether it is missing or not for us, [`ClientError::TooOften`] whichever it is; the others as they say.
    pub async fn secret(&self, path: &SecretPath) -> Result<Secret, ClientError> {
        self.get_secret(path, None).await
    }

    /// Asks for one version of a secret.
    ///
    /// # Errors
    /// As [`Self::secret`]; also [`ClientError::Protocol`] if the broker answers with another version.
    pub async fn secret_version(&self, path: &SecretPath, version: u64) -> Result<Secret, ClientError> {
        let secret = self.get_secret(path, Some(version)).await?;
        if secret.version == version {
            return Ok(secret);
        }
        Err(ClientError::Protocol { cause: format!("asked for version {version}, got version {}", secret.version) })
    }

    async fn get_secret(&self, path: &SecretPath, version: Option<u64>) -> Result<Secret, ClientError> {
        let request = GetSecretRequest { path: path.to_string(), version };
        let response = self.ask(request, |mut broker, request| async move { broker.get_secret(request).await }).await?;
        let aad = secret_aad(&self.tenant, path, response.version);
        let value = self.open(GET_SECRET, &aad, response.value)?;
        Ok(Secret { value, version: response.version })
    }

    /// Asks for one of this guest's own sealing keys.
    ///
    /// # Errors
    /// As [`Self::secret`].
    pub async fn sealing_key(&self, name: &SealingName) -> Result<SealingKey, ClientError> {
        let request = GetSealingKeyRequest { name: Some(name.into()) };
        let response =
            self.ask(request, |mut broker, request| async move { broker.get_sealing_key(request).await }).await?;
        let opened = self.open(GET_SEALING_KEY, &name.key_aad(&self.tenant), response.key)?;
        let length = || ClientError::Protocol { cause: "a sealing key of another length than 32 bytes".to_owned() };
        let bytes: &[u8; 32] = opened.expose_secret().as_slice().try_into().map_err(|_| length())?;
        Ok(SealingKey(SecretBox::init_with_mut(|key: &mut [u8; 32]| key.copy_from_slice(bytes))))
    }

    /// Reads a counter of what is sealed under `name`.
    ///
    /// # Errors
    /// As [`Self::secret`].
    pub async fn generation(&self, name: &SealingName, counter: &[u8; 16]) -> Result<Generation, ClientError> {
        self.step(name, counter, None).await
    }

    /// Sets a counter from `expected` (0: nobody began it) to `next`, if it is still at the first.
    ///
    /// # Errors
    /// As [`Self::secret`]. That it is elsewhere is an answer, not an error.
    pub async fn set_generation(
        &self,
        name: &SealingName,
        counter: &[u8; 16],
        expected: u64,
        next: u64,
    ) -> Result<Generation, ClientError> {
        self.step(name, counter, Some(GenerationStep { expected, next })).await
    }

    async fn step(
        &self,
        name: &SealingName,
        counter: &[u8; 16],
        step: Option<GenerationStep>,
    ) -> Result<Generation, ClientError> {
        let request = GenerationRequest { name: Some(name.into()), counter_id: counter.to_vec(), step };
        let response = self.ask(request, |mut broker, request| async move { broker.generation(request).await }).await?;
        let aad = name.generation_aad(&self.tenant, counter, response.set);
        let opened = self.open(GENERATION, &aad, response.current)?;
        let bytes = opened.expose_secret().as_slice().try_into();
        let length = |_| ClientError::Protocol { cause: "a generation of another length than 8 bytes".to_owned() };
        Ok(Generation { current: u64::from_be_bytes(bytes.map_err(length)?), set: response.set })
    }

    /// Asks for a certificate of this profile for the key of a CSR (PKCS #10, DER). Gives the chain in DER, leaf first.
    ///
    /// # Errors
    /// As [`Self::secret`].
    pub async fn certificate(&self, profile: &str, csr: &[u8]) -> Result<Vec<Vec<u8>>, ClientError> {
        let request = IssueCertificateRequest { csr: csr.to_vec(), profile: profile.to_owned() };
        let response =
            self.ask(request, |mut broker, request| async move { broker.issue_certificate(request).await }).await?;
        if response.chain.is_empty() {
            return Err(ClientError::Protocol { cause: "no certificate in answer".to_owned() });
        }
        Ok(response.chain)
    }

    /// Asks for a token for the key of a CSR (PKCS #10, DER), which says to `audience` what this guest is. `report` makes the
    /// report that shows it: given its REPORT_DATA, 1184 bytes. It is not renewed by itself: what was bound is this connection's report.
    ///
    /// # Errors
    /// As [`Self::secret`]; [`ClientError::Own`] where the CSR cannot be read or there is no report.
    pub async fn token<F>(
        &self,
        audience: &Word,
        nonce: Option<&Nonce>,
        csr: &[u8],
        workload: &WorkloadDigest,
        report: impl FnOnce(ReportData) -> F,
    ) -> Result<String, ClientError>
    where
        F: Future<Output = Result<Vec<u8>, ClientError>>,
    {
        let unreadable = || ClientError::Own { cause: "the signing request is no PKCS #10 in DER".to_owned() };
        let key = signing_request_spki(csr).ok_or_else(unreadable)?;
        let (connection, nonce) = (self.connection.report_data(), nonce.map(Nonce::as_bytes));
        let binding = TokenBinding {
            connection: &connection,
            key: &key,
            audience: audience.as_str(),
            nonce: nonce.unwrap_or_default(),
            workload,
        };
        let request = IssueTokenRequest {
            audience: audience.to_string(),
            csr: csr.to_vec(),
            report: report(binding.report_data()).await?,
            nonce: nonce.map(<[u8]>::to_vec),
        };
        let mut broker = self.broker.clone();
        Ok(self.once(broker.issue_token(request)).await?.map_err(|status| call(&status))?.into_inner().token)
    }

    /// Answers a new challenge on the same connection: what was sealed to the report before opens no more.
    ///
    /// # Errors
    /// [`ClientError`]; after a refusal the connection has no attestation.
    pub async fn renew(&self) -> Result<(), ClientError> {
        Ok(self.connection.renew().await?)
    }

    /// The attested connection, for calls this client has no method for.
    pub fn connection(&self) -> &AttestingConnection {
        &self.connection
    }

    /// Asks, and once more after a new report if the last one is too old.
    async fn ask<Q: Clone, R, A>(&self, request: Q, ask: impl Fn(Raw, Q) -> A) -> Result<R, ClientError>
    where
        A: Future<Output = Result<Response<R>, Status>>,
    {
        let answer = match self.once(ask(self.broker.clone(), request.clone())).await? {
            Err(status) if status.code() == tonic::Code::Unauthenticated => {
                self.connection.renew().await?;
                self.once(ask(self.broker.clone(), request)).await?
            }
            other => other,
        };
        answer.map(Response::into_inner).map_err(|status| call(&status))
    }

    /// What came of a question, whole, within the time it has.
    async fn once<T>(
        &self,
        question: impl Future<Output = Result<T, Status>>,
    ) -> Result<Result<T, Status>, ClientError> {
        if let Some(meter) = &self.meter {
            meter.asked();
        }
        let answer = timeout(self.longest, question).await.map_err(|_| ClientError::Slow { within: self.longest })?;
        if let (Some(meter), Err(status)) = (&self.meter, &answer)
            && matches!(call(status), ClientError::TooOften)
        {
            meter.too_often();
        }
        Ok(answer)
    }

    fn open(&self, method: &str, aad: &[u8], sealed: Option<v1::Sealed>) -> Result<SecretBox<Vec<u8>>, ClientError> {
        let sealed = sealed.ok_or_else(|| ClientError::Protocol { cause: "no value in answer".to_owned() })?;
        self.connection.open(method, aad, &sealed.into()).map_err(ClientError::Sealed)
    }
}

impl From<&SealingName> for v1::SealingName {
    fn from(name: &SealingName) -> Self {
        Self {
            policy: name.policy.name().to_owned(),
            scope: name.scope.name().to_owned(),
            context: name.context.clone(),
            minimum_svn: name.minimum_svn,
        }
    }
}
