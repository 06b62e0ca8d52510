//! What a header takes: this guest's report, the processor's and the broker's keys, the broker's counter.

use std::sync::PoisonError;

use coffer_kbs_client::{self as kbs, BrokerClient, ClientError, SealingName, SealingPolicy};
use coffer_seal::{
    BrokerKey, Header, Keys, MinimumSvn, Scope, SealError, SealPolicy, Secrets, Source, check_floor, key_request,
    refuse_unsafe,
};
use coffer_spec::{Tee, WorkloadSpec};
use coffer_verifier::abi::{DerivedKey, Report, ReportData, ReportRequest, SecureProcessor};

use super::error::SealingError;
use crate::{broker::questions::again, processor::SharedProcessor};

/// What a guest seals and opens with.
#[derive(Clone, Copy)]
pub struct Means<'a> {
    /// Its own.
    pub processor: &'a SharedProcessor,
    /// The one it was launched with.
    pub spec: &'a WorkloadSpec,
    /// A connection on which its broker has admitted it. Where a key of the broker's is needed and this is none, nothing is done.
    pub broker: Option<&'a BrokerClient>,
    /// For whom.
    pub scope: Scope,
}

impl Means<'_> {
    /// The header of a file that is sealed now, without a counter.
    pub(super) async fn fresh_header(&self, policy: SealPolicy, context: &[u8]) -> Result<Header, SealingError> {
        let report = own_report(self.processor).await?;
        let tcb = report.committed_tcb_raw();
        check_floor(tcb, &self.spec.floors.seal.min_tcb)?;
        let minimum_svn = if policy == SealPolicy::Signer {
            if !report.key_info().author_key_en || report.author_key_digest().is_zero() {
                return Err(SealingError::NoAuthor);
            }
            MinimumSvn::new(report.guest_svn())?
        } else {
            MinimumSvn::default()
        };
        // The processor was opened as the spec says, so the spec tells which kind it is.
        let header = Header::new(policy, self.spec.tee == Tee::Simulated, tcb, context, random()?);
        Ok(Header { minimum_svn, ..header })
    }

    /// Every secret the policy of a header wants.
    pub(super) async fn keys(&self, header: &Header, context: &[u8]) -> Result<Keys, SealingError> {
        let secrets = match header.policy.source() {
            Source::Processor => Secrets::Processor(self.processor_key(header).await?),
            // The broker first: where it gives nothing, a key that lacks MEASUREMENT is not even made.
            Source::Both => {
                let broker = self.broker_key(header, context).await?;
                Secrets::Both(self.processor_key(header).await?, broker)
            }
            Source::Broker => Secrets::Broker(self.broker_key(header, context).await?),
        };
        Ok(secrets.of(self.scope))
    }

    async fn processor_key(&self, header: &Header) -> Result<DerivedKey, SealingError> {
        let (policy, source) = (header.policy, header.policy.source());
        let needs = source.name();
        let request = key_request(source, header.tcb).ok_or(SealError::Keys { policy, needs })?;
        with(self.processor, move |processor| Ok(processor.derived_key(&request)?)).await
    }

    async fn broker_key(&self, header: &Header, context: &[u8]) -> Result<BrokerKey, SealingError> {
        let (broker, name) = self.at_broker(header, context)?;
        let key = self.ask(|| broker.sealing_key(&name)).await.map_err(|cause| refused(header, cause))?;
        Ok(BrokerKey::new(key.0))
    }

    /// Where the header's counter is.
    pub(super) async fn current(&self, header: &Header, context: &[u8]) -> Result<u64, SealingError> {
        let (broker, name) = self.at_broker(header, context)?;
        let found =
            self.ask(|| broker.generation(&name, &header.counter)).await.map_err(|cause| refused(header, cause))?;
        Ok(found.current)
    }

    /// Moves the header's counter to its generation, if it is where it is expected to be.
    pub(super) async fn move_counter(
        &self,
        header: &Header,
        context: &[u8],
        expected: u64,
    ) -> Result<(), SealingError> {
        let (broker, name) = self.at_broker(header, context)?;
        let moving = || broker.set_generation(&name, &header.counter, expected, header.generation);
        let moved = self.ask(moving).await.map_err(|cause| refused(header, cause))?;
        if moved.set { Ok(()) } else { Err(SealError::Older { found: expected, current: moved.current }.into()) }
    }

    /// What a start rests on is asked again where the broker wants fewer questions; whoever else asks hears that.
    async fn ask<T, F: Future<Output = Result<T, ClientError>>>(&self, ask: impl Fn() -> F) -> Result<T, ClientError> {
        match self.scope {
            Scope::Volume => again(ask).await,
            Scope::Agent | Scope::Workload => ask().await,
        }
    }

    /// The broker, and what it calls the header's key.
    fn at_broker(&self, header: &Header, context: &[u8]) -> Result<(&BrokerClient, SealingName), SealingError> {
        let named = header.policy;
        let policy = match named {
            SealPolicy::MeasurementAndChip => return Err(SealingError::CounterNeedsBroker { policy: named }),
            SealPolicy::Chip => SealingPolicy::Chip,
            SealPolicy::Measurement => SealingPolicy::Measurement,
            SealPolicy::Workload => SealingPolicy::Workload,
            SealPolicy::Signer => SealingPolicy::Signer,
        };
        let broker = self.broker.ok_or(SealingError::NoBroker { policy: named })?;
        if context.is_empty() || context.len() > SealingName::CONTEXT {
            return Err(SealingError::Context { policy: named, found: context.len() });
        }
        let minimum_svn = (named == SealPolicy::Signer).then(|| header.minimum_svn.get());
        let scope = match self.scope {
            Scope::Agent => kbs::Scope::Agent,
            Scope::Workload => kbs::Scope::Workload,
            Scope::Volume => kbs::Scope::Volume,
        };
        Ok((broker, SealingName { policy, scope, context: context.to_vec(), minimum_svn }))
    }
}

fn refused(header: &Header, cause: ClientError) -> SealingError {
    SealingError::Broker { policy: header.policy, cause }
}

/// This guest's report, unless it shows that others may look in.
pub(super) async fn own_report(processor: &SharedProcessor) -> Result<Report, SealingError> {
    with(processor, |processor| {
        let answer = processor.report(&ReportRequest::new(ReportData::new([0; 64])))?;
        let report = Report::parse(&answer.report).map_err(|_| SealingError::Report)?;
        refuse_unsafe(&report)?;
        Ok(report)
    })
    .await
}

/// Asks the secure processor away from the event loop: its line blocks.
async fn with<T: Send + 'static>(
    processor: &SharedProcessor,
    ask: impl FnOnce(&mut dyn SecureProcessor) -> Result<T, SealingError> + Send + 'static,
) -> Result<T, SealingError> {
    let processor = processor.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let mut processor = processor.lock().unwrap_or_else(PoisonError::into_inner);
        ask(processor.as_mut())
    });
    asked.await.map_err(|_| SealingError::Line)?
}

/// From the kernel's random source.
pub(super) fn random<const N: usize>() -> Result<[u8; N], SealingError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(SealingError::Random)?;
    Ok(bytes)
}
