//! Revocations, and whom they reach: guests that are connected are taken their attestation at once.

use coffer_kbs_client::kbs::admin::v1 as wire;
use tonic::{Response, Status};

use super::{
    AdminService,
    changed::{named, say},
    name, sorted, store_status, tenant,
};
use crate::{
    guests::Present,
    operators::Caller,
    revoked::{Chipless, Revoked},
    store::{AuditEntry, Revocation},
    tenant::Tenant,
};

/// Revocations of one tenant, and those of all: each is looked at for each release.
const LIST_LIMIT: usize = 1024;

impl AdminService {
    pub(super) async fn revocation_added(
        &self,
        caller: Caller,
        message: wire::AddRevocationRequest,
    ) -> Result<Response<wire::AddRevocationResponse>, Status> {
        let message = message.revocation.ok_or_else(|| Status::invalid_argument("revocation: none was given"))?;
        let (revoked, tenant) = parsed(&message.kind, &message.value, message.tenant.as_deref())?;
        let reason = name("reason", message.reason)?.unwrap_or_default();
        let entry = AuditEntry {
            reasons: if reason.is_empty() { Vec::new() } else { vec![format!("revoked: {reason}")] },
            ..entry("revocation.add", &revoked, tenant.as_ref())
        };
        let by = caller.name.clone();
        let mut change = self.change(caller, entry).await?;
        let there = change.ledger.revocations(tenant.as_ref()).await.map_err(store_status)?;
        if there.len() >= LIST_LIMIT && !there.iter().flatten().any(|one| one.revoked == revoked) {
            return Err(Status::failed_precondition(format!("there are {LIST_LIMIT} revocations already")));
        }
        let before = there.iter().flatten().find(|one| one.revoked == revoked);
        say(&mut change.entry.changes, "reason", before.map(|before| named(&before.reason)), named(&reason));
        let since_unix = change.now;
        let revocation = Revocation { revoked, tenant, reason, by, since_unix };
        let added = change.ledger.put_revocation(&revocation).await.map_err(store_status)?;
        let answer = wire::AddRevocationResponse { added, recalled: 0 };
        let service = self.clone();
        // In a task of its own: an operator that hangs up meanwhile takes no part of it back.
        let committed = tokio::spawn(async move {
            let answer = change.done_if(added, "replaced", answer).await;
            // Whoever attests from here on is not admitted. Also where nobody can say whether it was written: it may have been,
            // and who is recalled for nothing is admitted anew.
            let recalled = service.guests.recall(|present| service.reaches(&revocation, present));
            (answer, recalled)
        });
        let (answer, recalled) = committed.await.map_err(|error| Status::internal(error.to_string()))?;
        let mut answer = answer?;
        answer.get_mut().recalled = u32::try_from(recalled).unwrap_or(u32::MAX);
        Ok(answer)
    }

    fn reaches(&self, revocation: &Revocation, present: &Present) -> bool {
        let Revocation { revoked, tenant, .. } = revocation;
        let hidden = matches!(revoked, Revoked::Chip(_))
            && present.marks.chip.is_none()
            && self.verifier.chipless() == Chipless::Refused;
        tenant.as_ref().is_none_or(|tenant| present.tenant == *tenant) && (hidden || revoked.touches(&present.marks))
    }

    pub(super) async fn revocations_listed(
        &self,
        message: wire::ListRevocationsRequest,
    ) -> Result<Response<wire::ListRevocationsResponse>, Status> {
        let tenant = message.tenant.as_deref().map(tenant).transpose()?;
        let mut view = self.view().await?;
        // What is revoked for every tenant is revoked for this one.
        let mut rows = view.revocations(None).await.map_err(store_status)?;
        if tenant.is_some() {
            rows.extend(view.revocations(tenant.as_ref()).await.map_err(store_status)?);
        }
        let (rows, damaged) = sorted(rows);
        let revocations = rows.into_iter().map(|one| wire::Revocation {
            tenant: one.tenant.map(|tenant| tenant.to_string()),
            kind: one.revoked.kind().to_owned(),
            value: one.revoked.value(),
            reason: Some(one.reason).filter(|reason| !reason.is_empty()),
            by: one.by,
            since_unix: one.since_unix,
        });
        Ok(Response::new(wire::ListRevocationsResponse { revocations: revocations.collect(), damaged }))
    }

    pub(super) async fn revocation_removed(
        &self,
        caller: Caller,
        message: wire::RemoveRevocationRequest,
    ) -> Result<Response<wire::RemoveRevocationResponse>, Status> {
        let (revoked, tenant) = parsed(&message.kind, &message.value, message.tenant.as_deref())?;
        let entry = entry("revocation.remove", &revoked, tenant.as_ref());
        let mut change = self.change(caller, entry).await?;
        let existed = change.ledger.remove_revocation(&revoked, tenant.as_ref()).await.map_err(store_status)?;
        change.done_if(existed, "nothing-there", wire::RemoveRevocationResponse { existed }).await
    }

    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    pub(super) fn guests_listed(
        &self,
        message: &wire::ListGuestsRequest,
    ) -> Result<Response<wire::ListGuestsResponse>, Status> {
        let tenant = message.tenant.as_deref().map(tenant).transpose()?;
        let guests = self.guests.list(tenant.as_ref()).into_iter().map(|one| wire::Guest {
            tenant: one.tenant.to_string(),
            since_unix: one.since_unix,
            admitted_by: one.admitted_by,
            measurement: one.facts.measurement,
            workload_digest: one.facts.workload_digest,
            report_id: one.facts.report_id,
            chip_id: one.marks.chip.map(|chip| chip.to_string()),
            anchor: one.facts.anchor,
            anchor_fingerprint: one.facts.anchor_fingerprint,
            peer: one.peer.to_string(),
            source: one.source,
        });
        Ok(Response::new(wire::ListGuestsResponse { guests: guests.collect() }))
    }
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn parsed(kind: &str, value: &str, whose: Option<&str>) -> Result<(Revoked, Option<Tenant>), Status> {
    let whose = whose.map(tenant).transpose()?;
    let revoked = Revoked::parse(kind, value).map_err(|error| Status::invalid_argument(error.to_string()))?;
    Ok((revoked, whose))
}

fn entry(event: &'static str, revoked: &Revoked, tenant: Option<&Tenant>) -> AuditEntry {
    AuditEntry {
        event,
        tenant: tenant.map(ToString::to_string),
        name: Some(revoked.kind().to_owned()),
        key: Some(revoked.value()),
        ..AuditEntry::default()
    }
}
