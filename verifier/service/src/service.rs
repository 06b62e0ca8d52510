//! What all connections share: the configuration in force, challenges, places, figures; and the way of one request through them.
//!
//! HTTP and gRPC come here with what was asked, and go with an answer: neither decides anything.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use coffer_kds::{Clients, Collected};
use coffer_verifier::{Endorsements, UnixTime, Verdict};
use futures_util::future::join_all;
use opentelemetry::Context;
use tokio::sync::{Semaphore, watch};

use crate::access::Access;
use crate::appraiser::{Admitted, Answer, Appraiser};
use crate::callers::Callers;
use crate::challenge::{Challenge, Challenges};
use crate::decisions::Decisions;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::places::Places;
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
    live: watch::Sender<Arc<Live>>,
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
    pub lines: Places,
    /// Judgements at once: each keeps a processor busy.
    judges: Arc<Semaphore>,
    stopping: AtomicBool,
}

impl Service {
    /// With these.
    pub fn new(live: Live, challenges: Challenges, clients: Clients, traces: Option<Traces>, limits: Limits) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            live: watch::Sender::new(Arc::new(live)),
            challenges,
            clients,
            limits,
            metrics: Metrics::default(),
            decisions: Decisions::default(),
            traces,
            places: Arc::new(Semaphore::new(limits.requests)),
            callers: Arc::default(),
            lines: Places::new(limits.connections),
            judges: Arc::new(Semaphore::new(2 * processors)),
            stopping: AtomicBool::new(false),
        }
    }

    /// The configuration in force.
    pub fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.borrow())
    }

    /// Ends once the configuration in force is such.
    pub async fn until(&self, such: impl Fn(&Live) -> bool) {
        // It fails once nobody can change it any more, which is not while there is a service.
        if self.live.subscribe().wait_for(|live| such(live)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Another one from now on. Requests under way end under the one they began with.
    pub fn replace(&self, live: Live) {
        self.live.send_replace(Arc::new(live));
    }

    /// Requests under way.
    pub fn under_way(&self) -> usize {
        self.limits.requests.saturating_sub(self.places.available_permits())
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.lines.taken()
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
        let mut begun = self.begin(asked)?;
        self.fetch(&mut begun).await;
        self.judge(begun, caller).await
    }

    /// Several, each for itself and in their order, each answer as `written` has it: none is held while the next is judged.
    pub async fn appraise_each<T>(
        &self,
        asked: Vec<Result<Asked, Refusal>>,
        caller: &str,
        written: impl Fn(Result<Answer, Refusal>) -> Result<T, Refusal>,
    ) -> Vec<Result<T, Refusal>> {
        let mut all: Vec<_> = asked.into_iter().map(|asked| asked.and_then(|asked| self.begin(asked))).collect();
        // Together: a service that does not answer is waited for once, not once for each.
        join_all(all.iter_mut().flatten().map(|begun| self.fetch(begun))).await;
        let mut results = Vec::with_capacity(all.len());
        for begun in all {
            let answer = match begun {
                Ok(begun) => self.judge(begun, caller).await,
                Err(refusal) => Err(refusal),
            };
            results.push(self.counted(written(answer)));
        }
        results
    }

    /// Counts what gets no answer of the judge.
    pub fn counted<T>(&self, result: Result<T, Refusal>) -> Result<T, Refusal> {
        result.inspect_err(|refusal| {
            self.metrics.refused(refusal);
            tracing::debug!(code = refusal.code(), %refusal, "no appraisal");
        })
    }

    /// Its first part: policy and challenge. Of several, they are spent in the order they stand in.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn begin(&self, asked: Asked) -> Result<Begun, Refusal> {
        // Of the request that is under way here.
        let span = self.traces.as_ref().map(|traces| traces.step("appraisal", &Context::current()));
        let live = self.live();
        match live.appraiser.admit(asked, &self.challenges, now()) {
            Ok(admitted) => Ok(Begun { live, admitted, found: Collected::default(), span }),
            Err(refusal) => {
                if let Some(span) = &span {
                    traces::appraised(span, Err(&refusal));
                }
                Err(refusal)
            }
        }
    }

    /// Its second part: what the evidence lacks is asked for. Several wait together.
    pub async fn fetch(&self, begun: &mut Begun) {
        let _step = self.step(begun, "fetch");
        begun.found = self.fetched(&begun.admitted, &begun.live.appraiser.endorsements).await;
    }

    /// Its last part. `caller`: for the log.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn judge(&self, begun: Begun, caller: &str) -> Result<Answer, Refusal> {
        let span = begun.span.clone();
        let answer = self.judged(begun).await;
        if let Ok(answer) = &answer {
            self.metrics.appraised(answer.appraisal.verdict(), answer.token.is_some());
            log(answer, caller);
            self.decisions.keep(answer, caller, now());
        }
        if let Some(span) = &span {
            traces::appraised(span, answer.as_ref());
        }
        answer
    }

    async fn judged(&self, begun: Begun) -> Result<Answer, Refusal> {
        let wait = self.step(&begun, "wait for a processor");
        let judge = Arc::clone(&self.judges).acquire_owned().await.map_err(|_| Refusal::Internal)?;
        let here = begun.admitted.is_soon_judged();
        if here {
            // All the others have their turn first, whatever came for them meanwhile: whoever comes is let in or told to come again
            // once one judgement is made, not once all are.
            tokio::task::yield_now().await;
        }
        drop(wait);
        let random = random()?;
        let step = self.step(&begun, "judge");
        let Begun { live, admitted, found, .. } = begun;
        // Its place is free once it is done, whoever has gone away.
        let judged = move || {
            let (_judge, _step) = (judge, step);
            #[cfg(test)]
            tests::breaks(&admitted);
            live.appraiser.answer(admitted, &found, now(), random)
        };
        let judged = if here {
            // What breaks breaks for itself alone, as on another thread.
            catch_unwind(AssertUnwindSafe(judged)).map_err(|_| ())
        } else {
            tokio::task::spawn_blocking(judged).await.map_err(|_| ())
        };
        judged.map_err(|()| {
            tracing::error!("a judgement did not end");
            Refusal::Internal
        })?
    }

    fn step(&self, begun: &Begun, name: &'static str) -> Option<Context> {
        Some(self.traces.as_ref()?.step(name, begun.span.as_ref()?))
    }

    async fn fetched(&self, admitted: &Admitted, configured: &Endorsements) -> Collected {
        let kds = if admitted.believes_simulated() { &self.clients.simulated } else { &self.clients.amd };
        // What came with it is read for that alone: the judge reads it where it has not verified that chain before.
        let Some(kds) = kds else { return Collected::default() };
        match admitted.wants(configured) {
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

/// A request whose policy is found and whose challenge is spent.
pub struct Begun {
    /// The configuration it began under.
    live: Arc<Live>,
    admitted: Admitted,
    found: Collected,
    span: Option<Context>,
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

#[cfg(test)]
mod tests;
