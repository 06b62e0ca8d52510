//! Tries a policy on what was decided: over the inputs that are kept, newest first. Nothing is released or changed.
//!
//! Trusts: a line of the trail, and an input only if its line names it. What stood against a release beside the policy stands against it
//! still.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use coffer_kbs_client::kbs::admin::v1 as wire;
use coffer_policies::Policy;
use serde::Deserialize;
use tonic::{Response, Status};

use super::{AdminService, non_zero, policies::policy_name, store_status, tenant};
use crate::{
    store::{AuditFilter, AuditOrder, KEPT_INPUTS, KeptInput, StoreError},
    tenant::Tenant,
};

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Reasons told of one decision.
const REASONS: usize = 4;
/// Inputs read at once.
const STRETCH: usize = 100;
/// Lines of a tenant read at once to find what is missing, and how often.
const LINES: usize = 1000;
const LOOKS: usize = 20;

/// What is looked at of a line.
#[derive(Deserialize)]
struct Line {
    sequence: u64,
    time: String,
    event: String,
    outcome: String,
    id: String,
    path: Option<String>,
    name: Option<String>,
    policy: Option<String>,
    input: Option<String>,
    #[serde(default)]
    measurement: String,
    #[serde(default)]
    workload_digest: String,
    #[serde(default)]
    report_id: String,
}

/// A decision that can be made again.
struct Case {
    line: Line,
    input: KeptInput,
}

impl AdminService {
    pub(super) async fn policy_tested(
        &self,
        message: wire::TestPolicyRequest,
    ) -> Result<Response<wire::TestPolicyResponse>, Status> {
        let (tenant, name) = (tenant(&message.tenant)?, policy_name(message.name)?);
        let since_unix = non_zero("since_unix", message.since_unix)?;
        let place = self.policy_work.trial(&tenant).await?;
        let policy = self.candidate(&tenant, &name, message.text).await?;
        let wanted = AuditFilter { tenant: Some(tenant.clone()), since_unix, ..AuditFilter::default() };
        let under = (!message.all).then_some(name.as_str());
        let Cases { tried: cases, not_believed, there } = self.cases(&tenant, &wanted, under).await?;
        let missing = self.missing(&wanted, under, &there).await?;
        let mut view = self.view().await?;
        let archived = view.trail_start().archived;
        let is_known = self.policies.has(&name) || view.has_policy(&tenant, &name);
        if under.is_some() && cases.is_empty() && not_believed + missing == 0 && !is_known {
            let why = "neither the broker nor the tenant has it, and nothing that is kept was decided under it";
            return Err(Status::not_found(format!("name: there is no policy {name}: {why}")));
        }
        let tried = tokio::task::spawn_blocking(move || {
            let _place = place;
            try_all(&policy, cases)
        });
        let tried = tried.await;
        let (decisions, left_out) = tried.map_err(|_| Status::internal("the policy could not be tried"))?;
        Ok(Response::new(wire::TestPolicyResponse { decisions, left_out, not_believed, missing, archived }))
    }

    async fn candidate(&self, tenant: &Tenant, name: &str, text: Option<String>) -> Result<Arc<Policy>, Status> {
        if let Some(text) = text {
            return self.policy_work.parse(tenant, name, &text).await.map(Arc::new);
        }
        if let Some(stored) = self.view().await?.policy(tenant, name).await.map_err(store_status)? {
            return self.policy_work.parse(tenant, name, &stored.text).await.map(Arc::new);
        }
        let none = || Status::invalid_argument(format!("name: there is no policy {name}; give a text to try"));
        self.policies.named_policy(name).ok_or_else(none)
    }

    /// What was decided under a policy, newest first; and how many are not as their line says.
    async fn cases(&self, tenant: &Tenant, wanted: &AuditFilter, under: Option<&str>) -> Result<Cases, Status> {
        let (mut found, mut from) = (Cases::default(), 0);
        loop {
            let mut view = self.view().await?;
            let kept = view.inputs(tenant, from, STRETCH).await.map_err(store_status)?;
            let Some(last) = kept.last() else { break };
            from = last.line.saturating_add(1);
            for input in kept {
                found.there.insert(input.line);
                let text = view.audit_line(input.line).await.map_err(store_status)?;
                let line = text.as_deref().and_then(|text| serde_json::from_str::<Line>(text).ok());
                match (text, line) {
                    (Some(text), Some(line)) if is_of(&input, line.input.as_deref()) => {
                        if wanted.wants(&text) && line.is_under(under) {
                            found.tried.push(Case { line, input });
                        }
                    }
                    _ => found.not_believed += 1,
                }
            }
        }
        found.tried.reverse();
        Ok(found)
    }

    /// How many lines that are wanted name an input of which nothing is there: of the last that should be kept, as far as is looked.
    async fn missing(&self, wanted: &AuditFilter, under: Option<&str>, there: &BTreeSet<u64>) -> Result<u64, Status> {
        let (mut from, mut named, mut missing) = (None, 0, 0);
        let everything = AuditFilter { tenant: wanted.tenant.clone(), ..AuditFilter::default() };
        for _ in 0..LOOKS {
            let found = match self.store.audit_search(&everything, from, LINES, AuditOrder::Newest).await {
                // A line that does not hold is for `audit verify` to name.
                Err(StoreError::Audit(_)) => break,
                found => found.map_err(store_status)?,
            };
            for text in &found.lines {
                let Ok(line) = serde_json::from_str::<Line>(text) else { continue };
                if line.input.is_none() {
                    continue;
                }
                named += 1;
                let is_gone = !there.contains(&line.sequence);
                missing += u64::from(is_gone && wanted.wants(text) && line.is_under(under));
                if named == KEPT_INPUTS {
                    return Ok(missing);
                }
            }
            match found.next {
                Some(next) => from = Some(next),
                None => break,
            }
        }
        Ok(missing)
    }
}

/// What a dry run is about.
#[derive(Default)]
struct Cases {
    tried: Vec<Case>,
    not_believed: u64,
    /// Lines of which something is kept.
    there: BTreeSet<u64>,
}

impl Line {
    fn is_under(&self, policy: Option<&str>) -> bool {
        policy.is_none() || self.policy.as_deref() == policy
    }
}

/// True if a line names this input.
pub(super) fn is_of(input: &KeptInput, named: Option<&str>) -> bool {
    named == Some(input.digest().as_str())
}

fn try_all(policy: &Policy, cases: Vec<Case>) -> (Vec<wire::TestedDecision>, u64) {
    let (until, mut left_out) = (Instant::now() + PATIENCE, 0);
    let mut decisions = Vec::new();
    for case in cases {
        if Instant::now() >= until {
            left_out += 1;
        } else {
            decisions.push(try_one(policy, case));
        }
    }
    (decisions, left_out)
}

fn try_one(policy: &Policy, case: Case) -> wire::TestedDecision {
    let Case { line, input } = case;
    let mut reasons = Vec::new();
    if input.refused_beside {
        reasons.push("what is no policy's to decide spoke against it: see its line".to_owned());
    }
    match serde_json::from_str(&input.json) {
        Ok(input) => {
            let decision = policy.decide(&input);
            // They are words of whoever tries, who could write all of an input into them; and all answers are one message.
            reasons.extend(decision.reasons().iter().take(REASONS).cloned());
            let more = decision.reasons().len().saturating_sub(REASONS);
            if more > 0 {
                reasons.push(format!("policy: … and {more} more reasons"));
            }
        }
        Err(_) => reasons.push("policy: the input that is kept does not parse".to_owned()),
    }
    let after = match line.outcome.as_str() {
        _ if !reasons.is_empty() => "refused",
        "refused" => "released",
        before => before,
    };
    wire::TestedDecision {
        after: after.to_owned(),
        before: line.outcome,
        id: line.id,
        sequence: line.sequence,
        time: line.time,
        event: line.event,
        what: line.path.or(line.name).unwrap_or_default(),
        policy: line.policy.unwrap_or_default(),
        measurement: line.measurement,
        workload_digest: line.workload_digest,
        report_id: line.report_id,
        reasons,
    }
}
