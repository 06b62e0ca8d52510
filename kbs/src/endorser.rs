//! What guests' evidence lacks, from a key distribution service: off unless the configuration names one, for what is asked there
//! is decided by strangers.
//!
//! Trusts: nothing that it gets; the judge finds it as if the guest's host had sent it.
//! Never: holds a place among those whose evidence is judged; asks AMD for a simulator's, or a simulator's service for AMD's.

use std::{path::Path, time::Duration};

use coffer_kds::{Base, Kds, OpenError, Options};
use coffer_ratls::Completer;
use coffer_spec::{Document, Tee};
use coffer_verifier::{
    Endorsements, Evidence, TrustAnchors, UnixTime,
    abi::{Report, SpkiDigest},
};
use serde::{Deserialize, Serialize};

use crate::clock::Clock;

/// `[kds]`, as typed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KdsEntry {
    /// AMD's own, or a mirror of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// A service of the simulators whose roots tenants list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub simulated_service: Option<String>,
}

/// Whom to ask; nobody where none is named.
#[derive(Clone, Debug, Default)]
pub struct Services {
    amd: Option<Base>,
    simulated: Option<(Base, TrustAnchors)>,
}

impl KdsEntry {
    /// As meant. `simulators`: the roots of simulators that tenants list.
    pub(crate) fn read(
        &self,
        simulators: impl IntoIterator<Item = SpkiDigest>,
        mistakes: &mut Vec<String>,
    ) -> Services {
        let anchors = simulators.into_iter().fold(TrustAnchors::amd(), TrustAnchors::with_simulated);
        let mut base = |key, text: &Option<String>| {
            let parsed = text.as_deref()?.parse::<Base>();
            parsed.map_err(|error| mistakes.push(format!("kds.{key}: {error}"))).ok()
        };
        let (amd, simulated) = (base("service", &self.service), base("simulated_service", &self.simulated_service));
        if self.service.is_none() && self.simulated_service.is_none() {
            mistakes.push(format!("kds names no service: service = \"{}\" is AMD's", Base::amd()));
        }
        if self.simulated_service.is_some() && !anchors.accepts_simulated() {
            mistakes.push("kds.simulated_service: no tenant lists a simulated root".to_owned());
        }
        Services { amd, simulated: simulated.map(|base| (base, anchors)) }
    }
}

/// Completes evidence.
pub(crate) struct Endorser {
    amd: Option<Kds>,
    simulated: Option<Kds>,
    clock: Clock,
}

impl Endorser {
    /// Nothing where no service is named. It keeps what it gets in `folder`.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(services: Services, folder: &Path, clock: Clock) -> Result<Option<Self>, OpenError> {
        let open = |mut options: Options| {
            options.patience = PATIENCE;
            Kds::open(options.kept_in(folder))
        };
        let amd = services.amd.map(|base| open(Options::mirror(base))).transpose()?;
        let simulated =
            services.simulated.map(|(base, anchors)| open(Options::simulated(base, anchors))).transpose()?;
        let named = amd.is_some() || simulated.is_some();
        Ok(named.then_some(Self { amd, simulated, clock }))
    }

    /// Whose evidence it is says the spec: that of this report, by its digest.
    fn service_of(&self, evidence: &Evidence) -> Option<&Kds> {
        match Document::parse(evidence.workload_spec.clone()).ok()?.spec().tee {
            Tee::Snp => self.amd.as_ref(),
            Tee::Simulated => self.simulated.as_ref(),
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
        for (item, error) in &found.failures {
            tracing::info!(%item, error = %coffer_rim::chain(error), hint = error.hint(), "not got for a guest");
        }
        if let Err(error) = evidence.bring(&found.endorsements) {
            tracing::debug!(%error, "what was got is not brought");
        }
    }
}

/// Longest that evidence waits: a stranger has its place for a minute.
const PATIENCE: Duration = Duration::from_secs(10);
