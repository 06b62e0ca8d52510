//! The operator's side: secrets in, references in, audit out. Values never come back.

use std::{path::Path, time::Duration};

use coffer_ratls::{ClientTls, ConnectError, PeerPin, connect_listed, one_channel};
use coffer_verifier::{
    Expiry,
    abi::{Measurement, WorkloadDigest},
};
use tokio::{
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tonic::{Response, transport::Channel};

use crate::{
    ALPN_ADMIN, ANSWER_LIMIT,
    error::{ClientError, admin_call},
    kbs::admin::v1::{self, admin_client},
    listed::Listed,
    profile::AdminProfile,
};

const DIAL: Duration = Duration::from_secs(10);
/// Longest for one call, its answer included: a list of everything on a slow line, or a policy tried on all that is kept.
const CALL: Duration = Duration::from_mins(2);

/// One admitted pair: this measurement, for this workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Tenant.
    pub tenant: String,
    /// Launch digest.
    pub measurement: Measurement,
    /// Workload digest.
    pub workload: WorkloadDigest,
    /// For people.
    pub name: String,
    /// From when on it admits nothing.
    pub expires: Expiry,
}

/// A connection to the admin API.
pub struct AdminClient {
    pub(crate) admin: admin_client::AdminClient<Channel>,
    longest: Duration,
}

impl AdminClient {
    /// Dials the profile's address, demands its key, shows the operator's.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] names the address; [`ClientError::PinMismatch`] if somebody else answers;
    /// [`ClientError::Refused`] with `key-not-admitted` if the key is no operator's.
    pub async fn connect(profile: &AdminProfile) -> Result<Self, ClientError> {
        let tls = ClientTls::with_alpn(&profile.identity, PeerPin::Spki(profile.pins.clone()), ALPN_ADMIN)
            .map_err(|error| ClientError::Own { cause: error.to_string() })?;
        let told = |error: ConnectError| match error.into() {
            ClientError::OtherListener { .. } => ClientError::OtherListener { wanted: "coffer-kbs-admin/1" },
            error => error,
        };
        let channel = match connect_listed(dial(&profile.address).await?, &tls).await {
            // It stops just now, or its line is bad: its word for a key that it does not know arrives.
            Err(ConnectError::HungUp(_)) => match connect_listed(dial(&profile.address).await?, &tls).await {
                Err(ConnectError::HungUp(error)) => {
                    let cause = format!(
                        "it ended the connection twice without a word: the line to it, or it does not know this key: {error}"
                    );
                    return Err(ClientError::Unreachable { cause });
                }
                again => again.map_err(told)?.0,
            },
            first => first.map_err(told)?.0,
        };
        Ok(Self::on(channel))
    }

    /// Reaches the broker of this machine over its local socket: no network, no key; the broker asks the kernel who calls.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] names the socket.
    pub async fn connect_local(socket: &Path) -> Result<Self, ClientError> {
        let unreachable = |cause: String| ClientError::Unreachable { cause: format!("{}: {cause}", socket.display()) };
        let stream = timeout(DIAL, UnixStream::connect(socket))
            .await
            .map_err(|_| unreachable(format!("no answer within {} s", DIAL.as_secs())))?
            .map_err(|error| unreachable(error.to_string()))?;
        let channel = one_channel(stream).await.map_err(|error| unreachable(coffer_rim::chain(&error)))?;
        Ok(Self::on(channel))
    }

    fn on(channel: Channel) -> Self {
        Self { admin: admin_client::AdminClient::new(channel).max_decoding_message_size(ANSWER_LIMIT), longest: CALL }
    }

    /// Waits for each call at most so long, where it is usually two minutes.
    #[must_use]
    pub fn waiting_at_most(self, longest: Duration) -> Self {
        Self { longest, ..self }
    }

    /// The answer to a call, whole, within the time it has: a broker that sends a byte now and then is as one that sends none.
    pub(crate) async fn done<R>(
        &self,
        call: impl Future<Output = Result<Response<R>, tonic::Status>>,
    ) -> Result<R, ClientError> {
        let answer = timeout(self.longest, call).await.map_err(|_| ClientError::Slow { within: self.longest })?;
        answer.map(Response::into_inner).map_err(|status| admin_call(&status))
    }

    /// Adds a reference; false if it was there already.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn add_reference(&self, reference: &Reference) -> Result<bool, ClientError> {
        let request = v1::AddReferenceRequest { reference: Some(reference.into()) };
        Ok(self.done(self.admin.clone().add_reference(request)).await?.added)
    }

    /// Lists a tenant's references.
    ///
    /// # Errors
    /// [`ClientError::Protocol`] if the broker states one that is none.
    pub async fn list_references(&self, tenant: &str) -> Result<Listed<Reference>, ClientError> {
        let request = v1::ListReferencesRequest { tenant: tenant.to_owned() };
        let response = self.done(self.admin.clone().list_references(request)).await?;
        Listed::read(response.references, response.damaged, Reference::try_from)
    }

    /// Removes a reference; false if there was none.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn remove_reference(
        &self,
        tenant: &str,
        measurement: &Measurement,
        workload: &WorkloadDigest,
    ) -> Result<bool, ClientError> {
        let request = v1::RemoveReferenceRequest {
            tenant: tenant.to_owned(),
            measurement: measurement.as_bytes().to_vec(),
            workload_digest: workload.as_bytes().to_vec(),
        };
        Ok(self.done(self.admin.clone().remove_reference(request)).await?.existed)
    }

    /// Says that an owner has looked at what a restore gave up; false if there was nothing to confirm.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn confirm_restored(&self) -> Result<bool, ClientError> {
        Ok(self.done(self.admin.clone().confirm_restored(v1::ConfirmRestoredRequest {})).await?.confirmed)
    }
}

async fn dial(address: &str) -> Result<TcpStream, ClientError> {
    let unreachable = |cause: String| ClientError::Unreachable { cause: format!("{address}: {cause}") };
    let stream = timeout(DIAL, TcpStream::connect(address))
        .await
        .map_err(|_| unreachable(format!("no answer within {} s", DIAL.as_secs())))?
        .map_err(|error| unreachable(error.to_string()))?;
    stream.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
    Ok(stream)
}

/// Left out where there is none: the broker refuses an empty one.
pub(crate) fn given(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

/// An expiry as it is sent: left out where there is none.
pub(crate) fn seconds(expires: Expiry) -> Option<i64> {
    match expires {
        Expiry::Never => None,
        Expiry::At(_) => Some(expires.to_secs()),
    }
}

pub(crate) fn expiry(seconds: Option<i64>) -> Result<Expiry, ClientError> {
    let malformed = |error: coffer_verifier::ExpiryError| ClientError::Protocol { cause: error.to_string() };
    seconds.map_or(Ok(Expiry::Never), Expiry::from_secs).map_err(malformed)
}

impl From<&Reference> for v1::Reference {
    fn from(reference: &Reference) -> Self {
        Self {
            tenant: reference.tenant.clone(),
            measurement: reference.measurement.as_bytes().to_vec(),
            workload_digest: reference.workload.as_bytes().to_vec(),
            name: given(&reference.name),
            expires_unix: seconds(reference.expires),
        }
    }
}

impl TryFrom<v1::Reference> for Reference {
    type Error = ClientError;

    fn try_from(wire: v1::Reference) -> Result<Self, ClientError> {
        let malformed = |error: coffer_verifier::abi::WordError| ClientError::Protocol { cause: error.to_string() };
        Ok(Self {
            tenant: wire.tenant,
            measurement: Measurement::try_from(wire.measurement.as_slice()).map_err(malformed)?,
            workload: WorkloadDigest::try_from(wire.workload_digest.as_slice()).map_err(malformed)?,
            name: wire.name.unwrap_or_default(),
            expires: expiry(wire.expires_unix)?,
        })
    }
}
