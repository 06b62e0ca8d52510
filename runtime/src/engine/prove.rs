//! What a guest must prove to its owner, and the connection on which it proved it.
//!
//! Trusts: the platform files, the spec and the policy its caller names. Believes nothing the host says about the box.

use std::path::PathBuf;
use std::sync::Arc;

use coffer_guest_proto::owner_client::OwnerClient;
use coffer_guest_proto::{EvidenceRequest, EvidenceResponse};
use coffer_ratls::{Appraiser as _, ConnectError, Foreign, Identity, IdentityError, Lapsed, MAX_MESSAGE, Refusal};
use coffer_spec::{Act, Document, Tee};
use coffer_verifier::binding::nonce_report_data;
use coffer_verifier::ear::Nonce;
use coffer_verifier::{Code, Evidence, EvidencePolicy, ExpectedGuest, Pair, Reason, TrustAnchors, Verdict};
use tokio::task::JoinHandle;

use super::guest::Guest;
use super::measure::{VCPU_TYPE, measurement};
use super::{Engine, Fault, Hint, OpenError};
use crate::boxes::BoxOptions;
use crate::endpoint::{self, Address};
use crate::owner_access::{self, Findings, GuestAppraiser, OwnerConnection, OwnerError, Place};
use crate::platform_folder::load_platform;
use crate::state::{BoxRecord, BoxState};
use crate::{Class, Failure, agent, simulator};

/// What a guest must prove.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Also believe the simulator of this installation. It proves nothing to others.
    pub allow_simulated: bool,
    /// Folder of the platform it must have booted from [default: this installation's].
    pub platform: Option<PathBuf>,
    /// Workload spec it must run [default: the one the box was created with].
    pub expect_spec: Option<Document>,
    /// Guests it may be, in place of platform and spec, if any are named.
    pub references: Vec<Pair>,
    /// Roots that are believed beside AMD's where simulators are, in place of this installation's.
    pub simulators: Option<TrustAnchors>,
    /// Policy on top of measurement, workload and the built-in floor: one that accepts what these refuse is refused itself.
    pub policy: Option<EvidencePolicy>,
}

impl Trust {
    /// For the output of a simulated box that its caller has just started, from the platform it was started on.
    pub fn of_own_simulator(record: &BoxRecord) -> Self {
        Self { allow_simulated: true, platform: Some(record.options.platform.clone()), ..Self::default() }
    }
}

/// Why a guest is not believed, or not asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProveError {
    /// The installation does not open, or has no such box.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is nothing that could prove anything.
    #[error("box {0} has no TEE: it can prove nothing")]
    NoTee(String),
    /// Only a running guest can.
    #[error("box {0} is not running")]
    NotRunning(String),
    /// It would, were it not paused.
    #[error("box {0} is paused")]
    Paused(String),
    /// Spec, platform files, simulator or the owner's key.
    #[error(transparent)]
    File(#[from] Failure),
    /// No key for the moment.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// One elsewhere is nobody in particular until somebody says who it may be.
    #[error("nobody says which guest may be at {0}: any genuine one would do, and that is nobody in particular")]
    Nobody(Address),
    /// The guest was not reached, or the connection broke before its evidence was judged.
    #[error("{}", .guest.said())]
    Unreachable {
        /// Which.
        guest: Guest,
        /// Why.
        #[source]
        source: OwnerError,
    },
    /// Its evidence is not of this connection, so that nobody judged it.
    #[error("{} shows evidence that was not made for this connection", .guest.said())]
    NotOfThisConnection {
        /// Which.
        guest: Guest,
        /// Why.
        #[source]
        refusal: Refusal,
    },
    /// Its evidence was judged and is not good enough.
    #[error("{} is not admitted: {}", .guest.said(), .findings.appraisal.why())]
    NotAdmitted {
        /// Which.
        guest: Guest,
        /// What was found.
        findings: Box<Findings>,
        /// It is simulated, and nobody said that this is good enough.
        simulated: bool,
    },
}

impl Fault for ProveError {
    fn reason(&self) -> Option<coffer_rim::Reason> {
        match self {
            Self::NotOfThisConnection { refusal, .. } => {
                Some(coffer_rim::Reason { code: refusal.code.to_owned(), denial_id: None })
            }
            _ => None,
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Open(error) => error.class(),
            Self::NoTee(_) | Self::NotRunning(_) | Self::Paused(_) => Class::Config,
            Self::File(failure) => failure.class(),
            Self::Nobody(_) => Class::Usage,
            Self::Identity(_) => Class::Internal,
            Self::Unreachable { .. } => Class::Unreachable,
            Self::NotAdmitted { findings, .. } if findings.appraisal.verdict() == Verdict::Refused => Class::Refused,
            Self::NotOfThisConnection { .. } | Self::NotAdmitted { .. } => Class::NotAuthentic,
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Open(error) => error.hint(),
            Self::NoTee(_) => Some(Hint::WithProcessor),
            Self::NotRunning(name) => Some(Hint::StartBox { name: name.clone() }),
            Self::Paused(name) => Some(Hint::UnpauseBox { name: name.clone() }),
            Self::File(failure) => Fault::hint(failure),
            Self::Nobody(_) => Some(Hint::NameGuest),
            Self::NotOfThisConnection { .. } => Some(endpoint::SOMEBODY_BETWEEN.into()),
            Self::Unreachable { guest: Guest::Elsewhere(_), source } => Some(of_silence(source)),
            Self::Identity(_) | Self::Unreachable { .. } => None,
            Self::NotAdmitted { simulated: true, .. } => Some(Hint::BelieveSimulator),
            Self::NotAdmitted { guest, findings, .. } => {
                findings.appraisal.reasons().first().map(|reason| of_reason(guest, reason))
            }
        }
    }
}

const HUNG_UP: &str = "something answered and hung up: it is no port for owners, or all places of its owners are taken, of which each has some";

/// What to do where an address does not lead to an agent.
fn of_silence(error: &OwnerError) -> Hint {
    match error {
        OwnerError::Name(_) => "check the name, and that this machine can resolve it".into(),
        OwnerError::Dial(_) | OwnerError::Connect(ConnectError::KeyNotTaken(_) | ConnectError::Facts(_)) => {
            Hint::PublishForOwners
        }
        OwnerError::Connect(ConnectError::NoPlace) => {
            "all places of its owners are taken, of which each has some: end what you have open there, or come again".into()
        }
        OwnerError::Connect(error) => match error.foreign() {
            Some(Foreign::Refuses) => Hint::PublishForOwners,
            Some(Foreign::NoTls) => "what answers there speaks no TLS: it is another port than that of `-p …:owners`".into(),
            Some(Foreign::Silent) => {
                "something takes connections there and says nothing: it is no port for owners, or its guest is paused or very busy".into()
            }
            Some(Foreign::HungUp) | None => HUNG_UP.into(),
        },
        _ => HUNG_UP.into(),
    }
}

/// What to do about a reason. Of another guest than the expected one: which half of it is another.
fn of_reason(guest: &Guest, reason: &Reason) -> Hint {
    let Guest::Here(record) = guest else {
        return match reason.code {
            Code::Guest => Hint::AnotherGuest,
            Code::UntrustedRoot => Hint::BelieveSomeSimulator,
            _ => reason.hint.to_string().into(),
        };
    };
    let name = record.name.clone();
    let pair = |text: &str| text.split_once(" for ").map(|(_, workload)| workload.to_owned());
    // Of several that it might have been, none is the one to name.
    let is_one = reason.code == Code::Guest && !reason.expected.contains(" or ");
    match (pair(&reason.found), pair(&reason.expected)) {
        (Some(found), Some(expected)) if is_one && found == expected => Hint::NamePlatform { name },
        (Some(_), Some(_)) if is_one => Hint::NameWorkload { name },
        _ => reason.hint.to_string().into(),
    }
}

/// How a guest's proof ended.
#[derive(Debug)]
pub struct Attestation {
    /// Who was asked.
    pub guest: Guest,
    /// What was found, if evidence came that was made for the connection.
    pub findings: Option<Findings>,
    /// Why it is not admitted, or was not reached.
    pub error: Option<ProveError>,
}

impl Engine {
    /// Has the guest of a box prove what it is, on a connection of its own. Anybody may ask: without an owner's key, an
    /// identity of the moment does.
    ///
    /// # Errors
    /// [`ProveError`] if it could not be asked; what it answered is no error of this call.
    pub async fn attest(&self, word: &str, trust: &Trust) -> Result<Attestation, ProveError> {
        let guest = self.guest(word)?;
        let place = self.place_of_agent(&guest)?;
        let home = self.home().map_err(OpenError::from)?;
        let identity = match owner_access::load(&home.owner()) {
            Ok(identity) => identity,
            Err(_) => Identity::generate("coffer attest")?,
        };
        let appraiser = Arc::new(self.appraiser(&guest, trust)?);
        let connected = owner_access::connect(&place, &identity, Arc::clone(&appraiser)).await;
        let findings = appraiser.findings();
        let error = connected.err().map(|error| not_admitted(error, findings.as_ref(), &guest, trust));
        Ok(Attestation { guest, findings, error })
    }

    /// As [`Self::attest`], as the local owner, and then over a nonce: what was found is of that evidence, which is of no connection
    /// and shows to whoever chose the nonce that it was made since. Where the guest does not prove itself on the connection
    /// first, it is not asked, and what was found is of the connection's evidence.
    ///
    /// # Errors
    /// [`ProveError`] if it could not be asked, or did not answer; what it answered is no error of this call.
    pub async fn attest_nonce(&self, word: &str, nonce: &Nonce, trust: &Trust) -> Result<Attestation, ProveError> {
        let guest = self.guest(word)?;
        let connection = match self.connect(&guest, trust).await {
            Ok(connection) => connection,
            Err(ProveError::NotAdmitted { guest, findings, simulated }) => {
                let found = Some((*findings).clone());
                let error = Some(ProveError::NotAdmitted { guest: guest.clone(), findings, simulated });
                return Ok(Attestation { guest, findings: found, error });
            }
            Err(error) => return Err(error),
        };
        let mut owner = OwnerClient::new(connection.channel()).max_decoding_message_size(MAX_MESSAGE);
        let answer = owner.evidence(EvidenceRequest { nonce: nonce.as_bytes().to_vec() }).await;
        let EvidenceResponse { report, cert_table, crls } = answer.map_err(|status| unanswered(&status))?.into_inner();
        let attested = connection.attested();
        let expected = nonce_report_data(attested.workload(), nonce.as_bytes());
        let workload_spec = attested.evidence().workload_spec.clone();
        let evidence = Evidence { report, cert_table, crls, workload_spec };
        let appraiser = self.appraiser(&guest, trust)?;
        let judged = tokio::task::spawn_blocking(move || {
            let _ = appraiser.appraise(&evidence, &expected);
            appraiser.findings()
        });
        let findings = judged.await.map_err(|error| Failure::caused(Class::Internal, &error))?;
        let error = match &findings {
            Some(found) if found.appraisal.verdict() != Verdict::Accepted => Some(ProveError::NotAdmitted {
                guest: guest.clone(),
                findings: Box::new(found.clone()),
                simulated: false,
            }),
            _ => None,
        };
        Ok(Attestation { guest, findings, error })
    }

    /// Connects to the agent of a guest that runs as the local owner, once the guest has proved itself.
    pub(super) async fn connect(&self, guest: &Guest, trust: &Trust) -> Result<OwnerConnection, ProveError> {
        let place = self.place_of_agent(guest)?;
        let home = self.home().map_err(OpenError::from)?;
        let identity = owner_access::load(&home.owner()).map_err(Failure::from)?;
        let appraiser = Arc::new(self.appraiser(guest, trust)?);
        owner_access::connect(&place, &identity, Arc::clone(&appraiser))
            .await
            .map_err(|error| not_admitted(error, appraiser.findings().as_ref(), guest, trust))
    }

    /// What a guest runs: of a box here what it was created with, else what it proves to run.
    ///
    /// # Errors
    /// [`ProveError`].
    pub async fn document_run_by(&self, guest: &Guest, trust: &Trust) -> Result<Document, ProveError> {
        Ok(match guest {
            Guest::Here(record) => self.document(record)?,
            Guest::Elsewhere(_) => self.document_of(guest, &self.connect(guest, trust).await?)?,
        })
    }

    /// Where the agent is, of a box that runs.
    fn place_of_agent(&self, guest: &Guest) -> Result<Place, ProveError> {
        Ok(match guest {
            Guest::Here(record) => {
                must_run(record)?;
                Place::Box(self.home().map_err(OpenError::from)?.box_folder(&record.id))
            }
            Guest::Elsewhere(address) => Place::Elsewhere(address.clone()),
        })
    }

    /// What a guest is appraised against.
    fn appraiser(&self, guest: &Guest, trust: &Trust) -> Result<GuestAppraiser, ProveError> {
        let guest = match guest {
            Guest::Elsewhere(address) if trust.references.is_empty() => {
                return Err(ProveError::Nobody(address.clone()));
            }
            Guest::Here(record) if trust.references.is_empty() => ExpectedGuest::Exactly(self.expected(record, trust)?),
            _ => ExpectedGuest::Admitted { pairs: trust.references.clone(), signers: Vec::new() },
        };
        let policy = trust.policy.clone().unwrap_or_else(EvidencePolicy::default_floor);
        owner_access::only_narrows(&policy)?;
        let home = self.home().map_err(OpenError::from)?;
        let anchors = match &trust.simulators {
            _ if !trust.allow_simulated => TrustAnchors::amd(),
            Some(anchors) => anchors.clone(),
            None => simulator::anchors(&home.simulator())?,
        };
        // What this box must be is expected beside the policy, which cannot widen it either.
        Ok(GuestAppraiser::new(anchors, policy, guest))
    }

    /// The guest that platform and spec make.
    fn expected(&self, record: &BoxRecord, trust: &Trust) -> Result<Pair, ProveError> {
        let document = match &trust.expect_spec {
            Some(document) => document.clone(),
            None => self.document(record)?,
        };
        let platform = load_platform(&self.settings().search.platform_folder(trust.platform.as_deref())?)?;
        let BoxOptions { launch, vcpus, .. } = record.options;
        let measurement = measurement(&platform, launch, &document, vcpus, VCPU_TYPE)?;
        let host_data = document.digest().host_data();
        Ok(Pair { measurement, host_data })
    }

    /// Refuses early what could not be asked of a box here; of one elsewhere its guest alone knows.
    pub(super) fn may_ask<E>(&self, guest: &Guest, act: Act) -> Result<(), E>
    where
        E: From<ProveError> + From<OwnerMayNot> + From<Failure>,
    {
        let Guest::Here(record) = guest else { return Ok(()) };
        must_run(record)?;
        Ok(self.owner_listed(&self.document(record)?, &record.name, act)?)
    }

    /// Refuses early, and in words, what the guest would refuse: the local key must be listed for the act.
    pub(super) fn owner_listed(&self, document: &Document, name: &str, act: Act) -> Result<(), OwnerMayNot> {
        let refused = |why| Err(OwnerMayNot { name: name.into(), act, why });
        if document.spec().tee == Tee::None {
            return refused(Why::NoTee);
        }
        let identity = self.home().ok().and_then(|home| owner_access::load(&home.owner()).ok());
        let Some(identity) = identity else { return refused(Why::NoKey) };
        // A list may say otherwise, and only the guest knows it.
        if document.spec().owner_authority.is_some() {
            return Ok(());
        }
        let mut mine = document.spec().owners.iter().filter(|owner| owner.key == identity.spki());
        if mine.any(|owner| owner.allows(act)) { Ok(()) } else { refused(Why::NotListed) }
    }
}

/// No evidence over a nonce came.
fn unanswered(status: &tonic::Status) -> Failure {
    match status.code() {
        tonic::Code::Unimplemented => {
            let message = "the guest's agent gives no evidence over a nonce: it is older than this command";
            Failure::new(Class::Config, message)
                .hint("start the box anew from a platform of today, or ask for no nonce")
        }
        _ => agent::of_status(status),
    }
}

/// Only a running guest can prove anything.
pub(super) fn must_run(record: &BoxRecord) -> Result<(), ProveError> {
    if record.options.tee == Tee::None {
        return Err(ProveError::NoTee(record.name.clone()));
    }
    match record.state {
        BoxState::Running => Ok(()),
        BoxState::Paused => Err(ProveError::Paused(record.name.clone())),
        _ => Err(ProveError::NotRunning(record.name.clone())),
    }
}

/// A failed connection in words: the findings of the appraisal where there are any.
fn not_admitted(error: OwnerError, findings: Option<&Findings>, guest: &Guest, trust: &Trust) -> ProveError {
    let guest = guest.clone();
    match findings.filter(|findings| findings.appraisal.verdict() != Verdict::Accepted) {
        None => match error {
            OwnerError::Connect(ConnectError::Rejected(refusal)) => ProveError::NotOfThisConnection { guest, refusal },
            source => ProveError::Unreachable { guest, source },
        },
        Some(findings) => ProveError::NotAdmitted {
            findings: Box::new(findings.clone()),
            simulated: guest.is_simulated() && !trust.allow_simulated,
            guest,
        },
    }
}

/// The spec lets neither host nor local owner do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerMayNot {
    name: String,
    act: Act,
    why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    NoTee,
    NoKey,
    NotListed,
}

impl std::error::Error for OwnerMayNot {}

impl std::fmt::Display for OwnerMayNot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, act) = (&self.name, self.act);
        match self.why {
            Why::NoTee => write!(
                f,
                "the spec of {name} gives the host no right to {act}, and without a TEE there is no owner to ask as"
            ),
            Why::NoKey => {
                write!(f, "the spec of {name} gives the host no right to {act}, and there is no owner's key here")
            }
            Why::NotListed => {
                write!(f, "the spec of {name} gives neither the host nor the local owner the right to {act}")
            }
        }
    }
}

impl Fault for OwnerMayNot {
    fn class(&self) -> Class {
        Class::Refused
    }

    fn hint(&self) -> Option<Hint> {
        Some(Hint::ListOwner { act: self.act })
    }
}

/// A connection that is challenged again for as long as it is held, so that no stream outlives what its guest proved.
pub(super) struct Kept {
    connection: Arc<OwnerConnection>,
    keeper: JoinHandle<Option<Lapsed>>,
}

impl Kept {
    /// Keeps a connection, on the event loop that this is called on.
    pub(super) fn new(connection: OwnerConnection) -> Self {
        let connection = Arc::new(connection);
        let kept = Arc::clone(&connection);
        let keeper = tokio::spawn(async move { kept.kept(std::future::pending::<()>()).await.err() });
        Self { connection, keeper }
    }

    /// For calls on it.
    pub(super) fn channel(&self) -> tonic::transport::Channel {
        self.connection.channel()
    }

    /// What `call` gives, unless the guest does not prove itself once more meanwhile.
    pub(super) async fn unless_lapsed<F: Future>(&mut self, call: F) -> Result<F::Output, Failure> {
        tokio::select! {
            output = call => Ok(output),
            lapsed = &mut self.keeper => Err(match lapsed {
                Ok(Some(lapsed)) => owner_access::lapsed(&lapsed),
                _ => Failure::new(Class::Internal, "the guest is no longer asked to prove itself"),
            }),
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

#[cfg(test)]
mod tests {
    use coffer_verifier::abi::{HostData, Measurement};

    use super::*;

    #[test]
    fn of_another_guest_it_is_said_which_half_is_another_and_what_to_name() {
        let pair = |one: u8, other: u8| Pair {
            measurement: Measurement::new([one; 48]),
            host_data: HostData::new([other; 32]),
        };
        let here = Guest::Here(Box::new(crate::state::tests::record("db")));
        let hint =
            |found: Pair, expected: &str| of_reason(&here, &Reason::new(Code::Guest, found, expected, "its own"));
        let expected = pair(1, 2).to_string();
        assert_eq!(hint(pair(3, 2), &expected), Hint::NamePlatform { name: "db".into() });
        assert_eq!(hint(pair(3, 4), &expected), Hint::NameWorkload { name: "db".into() });
        let several = format!("{expected} or one of 3 more");
        assert_eq!(hint(pair(3, 4), &several), "its own".into());
    }
}
