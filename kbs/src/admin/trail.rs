//! The audit trail, read: by what its lines are about, and with what a decision's policy saw.

use coffer_kbs_client::kbs::admin::v1 as wire;
use serde::Deserialize;
use tonic::{Response, Status};

use super::{AdminService, dry_run::is_of, name, needed, non_zero, store_status, tenant};
use crate::{
    operators::Caller,
    refusals::Which,
    store::{Archive, AuditFilter, AuditFound, AuditOrder, EVENTS, OUTCOMES, is_event_word},
};

const AUDIT_LIMIT: u32 = 10_000;
const AUDIT_USUAL: u32 = 1000;
/// Below what a client takes in one message.
const AUDIT_BYTES: usize = 3 * 1024 * 1024;

/// What is looked at of a line.
#[derive(Deserialize)]
struct Line {
    sequence: u64,
    tenant: Option<String>,
    input: Option<String>,
}

impl AdminService {
    pub(super) async fn trail_read(
        &self,
        caller: Caller,
        message: wire::AuditRequest,
    ) -> Result<Response<wire::AuditResponse>, Status> {
        let of_all = message.tenant.is_none();
        let from = non_zero("from_sequence", message.from_sequence)?;
        let limit = non_zero("limit", message.limit)?.unwrap_or(AUDIT_USUAL).min(AUDIT_LIMIT);
        let wanted = AuditFilter {
            tenant: message.tenant.as_deref().map(tenant).transpose()?,
            id: name("id", message.id)?,
            path: name("path", message.path)?,
            event: word("event", message.event, EVENTS, is_event_word)?,
            outcome: word("outcome", message.outcome, OUTCOMES, |word| OUTCOMES.contains(&word))?,
            since_unix: non_zero("since_unix", message.since_unix)?,
            until_unix: non_zero("until_unix", message.until_unix)?,
        };
        let order = if message.newest { AuditOrder::Newest } else { AuditOrder::Oldest };
        // Whoever reads finds what was refused for the first time until now, or what was asked for by its id.
        let waiting = wanted.id.clone().map_or(Which::Read, Which::Of);
        self.refusals.clone().write(waiting).await;
        let mut found = self.searched(caller, wanted, from, limit as usize, order).await?;
        // Lines carry every check of the evidence; who wants more than one answer holds asks on.
        let mut bytes = 0;
        let fit = found.lines.iter().take_while(|line| {
            bytes += line.len();
            bytes <= AUDIT_BYTES
        });
        let fit = fit.count().max(1);
        if fit < found.lines.len() {
            found.lines.truncate(fit);
            (found.next, found.archived) = (None, Vec::new());
        }
        Ok(Response::new(wire::AuditResponse {
            lines: found.lines,
            end_sequence: found.end.lines,
            end_sha256: found.end.hash.to_vec(),
            first_sequence: found.start.archived + 1,
            first_previous: found.start.hash.to_vec(),
            next_sequence: found.next.unwrap_or(0),
            archived: found.archived.into_iter().map(|one| archived(one, of_all)).collect(),
        }))
    }

    async fn searched(
        &self,
        caller: Caller,
        wanted: AuditFilter,
        from: Option<u64>,
        limit: usize,
        order: AuditOrder,
    ) -> Result<AuditFound, Status> {
        let search = |this: Self| async move {
            this.store.audit_search(&wanted, from, limit, order).await.map_err(store_status)
        };
        self.reads(caller, search).await
    }

    pub(super) async fn decision_input(
        &self,
        caller: Caller,
        message: wire::GetDecisionInputRequest,
    ) -> Result<Response<wire::GetDecisionInputResponse>, Status> {
        let of = message.tenant.as_deref().map(tenant).transpose()?;
        let of_all = of.is_none();
        let id = needed("id", message.id)?;
        // One that was summed until now may have the id.
        self.refusals.clone().write(Which::Of(id.clone())).await;
        let wanted = AuditFilter { tenant: of, id: Some(id), ..AuditFilter::default() };
        let from = non_zero("from_sequence", message.from_sequence)?;
        let found = self.searched(caller, wanted, from, 1, AuditOrder::Newest).await?;
        let line = found.lines.into_iter().next();
        let parsed = line.as_deref().and_then(|line| serde_json::from_str::<Line>(line).ok());
        let mut input = None;
        if let Some(Line { sequence, tenant: Some(name), input: Some(named) }) = parsed {
            let kept = self.view().await?.inputs(&tenant(&name)?, sequence, 1).await.map_err(store_status)?;
            let kept = kept.into_iter().find(|one| one.line == sequence && is_of(one, Some(&named)));
            input = kept.map(|one| one.json);
        }
        let next_sequence = found.next.filter(|_| line.is_none()).unwrap_or(0);
        let archived = found.archived.into_iter().map(|one| archived(one, of_all)).collect();
        Ok(Response::new(wire::GetDecisionInputResponse { line, input, next_sequence, archived }))
    }
}

/// Which file it is whoever reads the whole trail is told alone.
fn archived(archive: Archive, of_all: bool) -> wire::ArchivedLines {
    let Archive { first, last, file, .. } = archive;
    let file = file.filter(|_| of_all);
    let (file, sha256) = file.map_or_else(Default::default, |file| (file.name, file.sha256.to_vec()));
    wire::ArchivedLines { first, last, file, sha256 }
}

/// A word that some line can have: whoever looks for another one would take a slip for "there is none".
#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn word(
    field: &str,
    text: Option<String>,
    all: &[&str],
    is_one: impl Fn(&str) -> bool,
) -> Result<Option<String>, Status> {
    match name(field, text)? {
        Some(text) if !is_one(&text) => {
            let shown = coffer_rim::foreign(&text);
            Err(Status::invalid_argument(format!("{field}: no line has {shown}; there are: {}", all.join(", "))))
        }
        other => Ok(other),
    }
}
