//! What guests' evidence lacks, from a key distribution service: off unless the configuration names one, for what is asked there
//! is decided by strangers.
//!
//! Trusts: nothing that it gets; the judge finds it as if the guest's host had sent it.
//! Never: holds a place among those whose evidence is judged; asks AMD for a simulator's, or a simulator's service for AMD's.

use std::{path::Path, time::Duration};

use coffer_kds::{Asked, Clients, Kds, OpenError, Services};
use coffer_ratls::Completer;
use coffer_spec::{Document, Tee};
use coffer_verifier::{Endorsements, Evidence, UnixTime, abi::Report};

use crate::clock::Clock;

/// Completes evidence.
pub(crate) struct Endorser {
    clients: Clients,
    clock: Clock,
}

impl Endorser {
    /// Nothing where no service is named. It keeps what it gets in `folder`.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(services: Services, folder: &Path, clock: Clock) -> Result<Option<Self>, OpenError> {
        let clients = services.open(folder, PATIENCE)?;
        let named = clients.amd.is_some() || clients.simulated.is_some();
        Ok(named.then_some(Self { clients, clock }))
    }

    /// Whose evidence it is says the spec: that of this report, by its digest.
    fn service_of(&self, evidence: &Evidence) -> Option<&Kds> {
        match Document::parse(evidence.workload_spec.clone()).ok()?.spec().tee {
            Tee::Snp => self.clients.amd.as_ref(),
            Tee::Simulated => self.clients.simulated.as_ref(),
            Tee::None => None,
        }
    }
}

#[tonic::async_trait]
impl Completer for Endorser {
    async fn complete(&self, evidence: &mut Evidence) {
        // What cannot be read is the judge's to name.
        let Some(kds) = self.service_of(evidence) else { return };
        let (Ok(report), Ok(carried)) = (Report::parse(&evidence.report), Endorsements::from_evidence(evidence)) else {
            return;
        };
        let found = kds.collect(&report, &carried, UnixTime::from_secs(self.clock.now())).await;
        let asked = Asked { service: found.service.as_ref(), mirror: "service in [kds]" };
        for (item, error) in &found.failures {
            tracing::info!(%item, error = %coffer_rim::chain(error), hint = %error.hint(item, asked), "not got for a guest");
        }
        if let Err(error) = evidence.bring(&found.endorsements) {
            tracing::debug!(%error, "what was got is not brought");
        }
    }
}

/// Longest that evidence waits: a stranger has its place for a minute.
const PATIENCE: Duration = Duration::from_secs(10);
