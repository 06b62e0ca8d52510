//! The operator's side of the audit trail: lines by what they are about, from either end.

use crate::{admin::AdminClient, error::ClientError, kbs::admin::v1};

/// Which lines of the trail are wanted. What is not said may be anything.
#[derive(Clone, Debug, Default)]
pub struct AuditQuery {
    /// Of this tenant: what an auditor of that tenant may read.
    pub tenant: Option<String>,
    /// The line of this id, or the one it was summed in.
    pub id: Option<String>,
    /// About this path.
    pub path: Option<String>,
    /// This event, or those below a word: `secret`.
    pub event: Option<String>,
    /// With this outcome.
    pub outcome: Option<String>,
    /// From this second on.
    pub since_unix: Option<i64>,
    /// Before this second.
    pub until_unix: Option<i64>,
    /// Newest first.
    pub newest: bool,
    /// Number of the line to begin with; nothing: from that end.
    pub from: Option<u64>,
}

/// A decision, and what its policy saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionInput {
    /// Its line in the trail.
    pub line: String,
    /// The input, as JSON; nothing if none is kept of it.
    pub input: Option<String>,
}

/// Some lines, and where the trail ended when they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditPage {
    /// JSON, one decision each.
    pub lines: Vec<String>,
    /// Number of the last line of the trail.
    pub end: u64,
    /// SHA-256 of it.
    pub head: Vec<u8>,
    /// Number of the first line that is not archived.
    pub start: u64,
    /// SHA-256 of the line before it, as it names it.
    pub previous: Vec<u8>,
    /// Where the next page begins; nothing: there is none.
    pub next: Option<u64>,
    /// Where lines are that were asked for, and are no longer at the broker.
    pub archived: Vec<Archived>,
}

/// Lines that were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFound {
    /// JSON, one decision each.
    pub lines: Vec<String>,
    /// Where lines are that were asked for, and are no longer at the broker.
    pub archived: Vec<Archived>,
}

/// Lines that were moved into a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archived {
    /// Number of the first.
    pub first: u64,
    /// Number of the last.
    pub last: u64,
    /// The file's name when it was written; empty: no longer known.
    pub file: String,
}

impl std::fmt::Display for Archived {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { first, last, file } = self;
        match file.as_str() {
            "" => write!(f, "lines {first} to {last}, in a file"),
            file => write!(f, "lines {first} to {last} in {file}"),
        }
    }
}

impl From<v1::ArchivedLines> for Archived {
    fn from(lines: v1::ArchivedLines) -> Self {
        let v1::ArchivedLines { first, last, file, .. } = lines;
        Self { first, last, file }
    }
}

impl AdminClient {
    /// One answer of the broker: some megabytes at most.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn audit_page(&self, query: &AuditQuery, limit: u32) -> Result<AuditPage, ClientError> {
        let AuditQuery { tenant, id, path, event, outcome, since_unix, until_unix, newest, from } = query.clone();
        let request = v1::AuditRequest {
            from_sequence: from,
            limit: Some(limit),
            tenant,
            id,
            path,
            event,
            outcome,
            since_unix,
            until_unix,
            newest,
        };
        let answer = self.done(self.admin.clone().audit(request)).await?;
        let stopped = Some(answer.next_sequence).filter(|next| *next != 0);
        let last = answer.lines.last().and_then(|line| sequence(line));
        let next =
            if newest { last.and_then(|last| last.checked_sub(1)) } else { last.and_then(|last| last.checked_add(1)) };
        Ok(AuditPage {
            lines: answer.lines,
            end: answer.end_sequence,
            head: answer.end_sha256,
            start: answer.first_sequence.max(1),
            previous: answer.first_previous,
            next: stopped.or(next.filter(|next| *next != 0)),
            archived: answer.archived.into_iter().map(Archived::from).collect(),
        })
    }

    /// Every line that is wanted, at most so many.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn audit_search(&self, query: &AuditQuery, limit: usize) -> Result<Vec<String>, ClientError> {
        Ok(self.audit_find(query, limit).await?.lines)
    }

    /// The same, and where older lines are.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn audit_find(&self, query: &AuditQuery, limit: usize) -> Result<AuditFound, ClientError> {
        let (mut query, mut all) = (query.clone(), AuditFound::default());
        while all.lines.len() < limit {
            let left = u32::try_from(limit - all.lines.len()).unwrap_or(u32::MAX);
            let page = self.audit_page(&query, left).await?;
            all.lines.extend(page.lines);
            if query.newest || all.archived.is_empty() {
                all.archived = page.archived;
            }
            match page.next {
                Some(next) if query.from.is_none_or(|from| if query.newest { next < from } else { next > from }) => {
                    query.from = Some(next);
                }
                _ => break,
            }
        }
        Ok(all)
    }

    /// A decision by its id, with what its policy saw; nothing if no line has the id.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn decision_input(&self, tenant: Option<&str>, id: &str) -> Result<Option<DecisionInput>, ClientError> {
        Ok(self.decision_found(tenant, id).await?.ok())
    }

    /// The same; or, where no line at the broker has the id, where older lines are.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn decision_found(
        &self,
        tenant: Option<&str>,
        id: &str,
    ) -> Result<Result<DecisionInput, Vec<Archived>>, ClientError> {
        let mut from = None;
        loop {
            let request = v1::GetDecisionInputRequest {
                tenant: tenant.map(str::to_owned),
                id: id.to_owned(),
                from_sequence: from,
            };
            let answer = self.done(self.admin.clone().get_decision_input(request)).await?;
            if let Some(line) = answer.line {
                return Ok(Ok(DecisionInput { line, input: answer.input }));
            }
            match answer.next_sequence {
                next if next != 0 && from.is_none_or(|from| next < from) => from = Some(next),
                _ => return Ok(Err(answer.archived.into_iter().map(Archived::from).collect())),
            }
        }
    }

    /// Audit lines (JSON) from `from_sequence` on, oldest first; 0: from the first. `limit` 0: the broker's usual number.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn audit(&self, from_sequence: u64, limit: u32) -> Result<Vec<String>, ClientError> {
        self.audit_of(None, from_sequence, limit).await
    }

    /// The same, of one tenant alone: what an auditor of that tenant may read.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn audit_of(
        &self,
        tenant: Option<&str>,
        from_sequence: u64,
        limit: u32,
    ) -> Result<Vec<String>, ClientError> {
        let query = AuditQuery {
            tenant: tenant.map(str::to_owned),
            from: Some(from_sequence).filter(|from| *from != 0),
            ..AuditQuery::default()
        };
        self.audit_search(&query, if limit == 0 { USUAL } else { limit as usize }).await
    }
}

/// Lines asked for where no limit is named.
const USUAL: usize = 1000;

/// Sequence number of an audit line, with which it begins.
fn sequence(line: &str) -> Option<u64> {
    line.strip_prefix("{\"sequence\":")?.split_once(',')?.0.parse().ok()
}
