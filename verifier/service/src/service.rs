//! What all connections share: the configuration in force, challenges, places, figures; and the way of one request through them.
//!
//! HTTP and gRPC come here with what was asked, and go with an answer: neither decides anything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use coffer_kds::{Clients, Collected};
use coffer_verifier::{UnixTime, Verdict};
use opentelemetry::Context;
use tokio::sync::Semaphore;

use crate::access::Access;
use crate::appraiser::{Admitted, Answer, Appraiser};
use crate::callers::Callers;
use crate::challenge::{Challenge, Challenges};
use crate::decisions::Decisions;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::request::Asked;
use crate::tls::Tls;
use crate::traces::{self, Traces};

/// What a reload puts in place, all of it at once.
pub struct Live {
    /// Decides.
    pub appraiser: Appraiser,
    /// Who may ask.
    pub access: Access,
    /// Identity.
    pub tls: Option<Tls>,
}

/// What all connections share.
pub struct Service {
    live: RwLock<Arc<Live>>,
    challenges: Challenges,
    clients: Clients,
    /// Limits.
    pub limits: Limits,
    /// Figures.
    pub metrics: Metrics,
    /// The last decisions.
    pub decisions: Decisions,
    /// Where traces go, if anywhere.
    pub traces: Option<Traces>,
    /// Requests under way.
    pub places: Arc<Semaphore>,
    /// The same, by caller.
    pub callers: Arc<Callers>,
    /// Connections that are open.
    pub lines: Arc<Semaphore>,
    /// Judgements at once: each keeps a processor busy.
    judges: Arc<Semaphore>,
    stopping: AtomicBool,
}

impl Service {
    /// With these.
    pub fn new(live: Live, challenges: Challenges, clients: Clients, traces: Option<Traces>, limits: Limits) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            live: RwLock::new(Arc::new(live)),
            challenges,
            clients,
            limits,
            metrics: Metrics::default(),
            decisions: Decisions::default(),
            traces,
            places: Arc::new(Semaphore::new(limits.requests)),
            callers: Arc::default(),
            lines: Arc::new(Semaphore::new(limits.connections)),
            judges: Arc::new(Semaphore::new(2 * processors)),
            stopping: AtomicBool::new(false),
        }
    }

    /// The configuration in force.
    pub fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Another one from now on. Requests under way end under the one they began with.
    pub fn replace(&self, live: Live) {
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
    }

    /// Requests under way.
    pub fn under_way(&self) -> usize {
        self.limits.requests.saturating_sub(self.places.available_permits())
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.limits.connections.saturating_sub(self.lines.available_permits())
    }

    /// From now on nothing new is begun.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// It is about to end.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Another challenge.
    ///
    /// # Errors
    /// [`Refusal::Internal`] without randomness.
    pub fn challenge(&self) -> Result<Challenge, Refusal> {
        let challenge = self.challenges.issue(random()?, now());
        self.metrics.challenged();
        Ok(challenge)
    }

    /// One request, from what is asked to the answer. `caller`: for the log.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn appraise(&self, asked: Asked, caller: &str) -> Result<Answer, Refusal> {
        // Of the request that is under way here.
        let span = self.traces.as_ref().map(|traces| traces.step("appraisal", &Context::current()));
        let result = self.judged(asked, caller, span.as_ref()).await;
        if let Some(span) = &span {
            traces::appraised(span, &result);
        }
        result
    }

    async fn judged(&self, asked: Asked, caller: &str, span: Option<&Context>) -> Result<Answer, Refusal> {
        let step = |name| Some(self.traces.as_ref()?.step(name, span?));
        let live = self.live();
        let admitted = live.appraiser.admit(asked, &self.challenges, now())?;
        let fetch = step("fetch");
        let found = self.fetched(&admitted).await;
        drop(fetch);
        let wait = step("wait for a processor");
        let judge = Arc::clone(&self.judges).acquire_owned().await.map_err(|_| Refusal::Internal)?;
        drop(wait);
        let random = random()?;
        let step = step("judge");
        // A judgement is work for a thread of its own, so that whoever comes meanwhile is let in or told to come again at once. Its
        // place is free once it is done, whoever has gone away.
        let judged = tokio::task::spawn_blocking(move || {
            let (_judge, _step) = (judge, step);
            live.appraiser.answer(admitted, &found, now(), random)
        });
        let answer = judged.await.map_err(|error| {
            tracing::error!(%error, "a judgement did not end");
            Refusal::Internal
        })??;
        self.metrics.appraised(answer.appraisal.verdict(), answer.token.is_some());
        log(&answer, caller);
        self.decisions.keep(&answer, caller, now());
        Ok(answer)
    }

    async fn fetched(&self, admitted: &Admitted) -> Collected {
        let kds = if admitted.believes_simulated() { &self.clients.simulated } else { &self.clients.amd };
        // What came with it is read for that alone: the judge reads it where it has not verified that chain before.
        let Some(kds) = kds else { return Collected::default() };
        match admitted.wants() {
            Some((report, carried)) => kds.collect(&report, &carried, now()).await,
            None => Collected::default(),
        }
    }

    /// Lets what is being fetched come to its end.
    pub async fn settle(&self, longest: Duration) {
        for kds in [&self.clients.amd, &self.clients.simulated].into_iter().flatten() {
            kds.settle(longest).await;
        }
    }
}

/// One line for each decision: codes, never a value of the evidence.
fn log(answer: &Answer, caller: &str) {
    let policy = answer.policy.name.as_str();
    let verdict = answer.appraisal.verdict();
    if verdict == Verdict::Accepted {
        tracing::info!(caller, policy, %verdict, token = answer.token.is_some(), "appraised");
    } else {
        let codes: Vec<_> = answer.appraisal.reasons().iter().map(|reason| reason.code.as_str()).collect();
        tracing::info!(caller, policy, %verdict, codes = codes.join(","), token = answer.token.is_some(), "appraised");
    }
}

/// The clock.
pub fn now() -> UnixTime {
    SystemTime::now().into()
}

/// The system's random source.
///
/// # Errors
/// [`Refusal::Internal`].
pub fn random<const N: usize>() -> Result<[u8; N], Refusal> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        tracing::error!(%error, "no randomness from the system");
        Refusal::Internal
    })?;
    Ok(bytes)
}
