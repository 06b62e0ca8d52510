//! Tries a policy on what was decided: over the inputs that are kept, newest first. Nothing is released or changed.
//!
//! Trusts: a line of the trail, and an input only if its line names it. What stood against a release beside the policy stands against it
//! still.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use coffer_kbs_client::kbs::admin::v1 as wire;
use coffer_policies::Policy;
use serde::Deserialize;
use tonic::{Response, Status};

use super::{AdminService, non_zero, policies::policy_name, store_status, tenant};
use crate::{
    store::{AuditFilter, KeptInput},
    tenant::Tenant,
};

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Reasons told of one decision.
const REASONS: usize = 4;
/// Inputs read at once.
const STRETCH: usize = 100;

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
        let place = self.policy_work.trial(&tenant)?;
        let policy = self.candidate(&tenant, &name, message.text).await?;
        let wanted = AuditFilter { tenant: Some(tenant.clone()), since_unix, ..AuditFilter::default() };
        let under = (!message.all).then_some(name.as_str());
        let (cases, not_believed) = self.cases(&tenant, &wanted, under).await?;
        let tried = tokio::task::spawn_blocking(move || {
            let _place = place;
            try_all(&policy, cases)
        });
        let tried = tried.await;
        let (decisions, left_out) = tried.map_err(|_| Status::internal("the policy could not be tried"))?;
        Ok(Response::new(wire::TestPolicyResponse { decisions, left_out, not_believed }))
    }

    async fn candidate(&self, tenant: &Tenant, name: &str, text: Option<String>) -> Result<Arc<Policy>, Status> {
        if let Some(text) = text {
            return self.policy_work.parse(name, &text).await.map(Arc::new);
        }
        if let Some(stored) = self.view().await?.policy(tenant, name).await.map_err(store_status)? {
            return self.policy_work.parse(name, &stored.text).await.map(Arc::new);
        }
        let none = || Status::invalid_argument(format!("name: there is no policy {name}; give a text to try"));
        self.policies.named_policy(name).ok_or_else(none)
    }

    /// What was decided under a policy, newest first; and how many are not as their line says.
    async fn cases(
        &self,
        tenant: &Tenant,
        wanted: &AuditFilter,
        under: Option<&str>,
    ) -> Result<(Vec<Case>, u64), Status> {
        let (mut cases, mut not_believed, mut from) = (Vec::new(), 0, 0);
        loop {
            let mut view = self.view().await?;
            let kept = view.inputs(tenant, from, STRETCH).await.map_err(store_status)?;
            let Some(last) = kept.last() else { break };
            from = last.line.saturating_add(1);
            for input in kept {
                let text = view.audit_line(input.line).await.map_err(store_status)?;
                let line = text.as_deref().and_then(|text| serde_json::from_str::<Line>(text).ok());
                match (text, line) {
                    (Some(text), Some(line)) if is_of(&input, line.input.as_deref()) => {
                        if wanted.wants(&text) && (under.is_none() || line.policy.as_deref() == under) {
                            cases.push(Case { line, input });
                        }
                    }
                    _ => not_believed += 1,
                }
            }
        }
        cases.reverse();
        Ok((cases, not_believed))
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
