//! Looks for lines of the audit trail: by tenant, path, event, outcome, id and time, from either end.
//!
//! The ledger is let go of between stretches of the trail, so that whoever looks for few lines among many keeps nobody waiting.
//! Trusts: the root key; each line is checked as it is read. Never: passes over a line that does not hold.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    AuditFault, StoreError,
    archive::Archive,
    audit::{TrailStart, check_line, rfc3339, sequence_of},
    ledger::{Ledger, Store},
    marker::chained,
    rows::Row,
};
use crate::tenant::Tenant;

/// Which lines are wanted. What is not said may be anything.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Of this tenant, or of a guest that was refused and said that it was.
    pub tenant: Option<Tenant>,
    /// The line of this id, or the one it was summed in.
    pub id: Option<String>,
    /// About this path.
    pub path: Option<String>,
    /// This event, or all below a word: `secret` is every event that begins with `secret.`
    pub event: Option<String>,
    /// With this outcome.
    pub outcome: Option<String>,
    /// From this second on.
    pub since_unix: Option<i64>,
    /// Before this second.
    pub until_unix: Option<i64>,
}

/// From which end the trail is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditOrder {
    /// Oldest first.
    Oldest,
    /// Newest first.
    Newest,
}

/// Where the trail ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditEnd {
    /// Number of its last line; 0: there is none.
    pub lines: u64,
    /// SHA-256 of it.
    pub hash: [u8; 32],
}

/// What was found, and how far was looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditFound {
    /// Lines that are wanted.
    pub lines: Vec<String>,
    /// Where the trail ends.
    pub end: AuditEnd,
    /// Where it begins.
    pub start: TrailStart,
    /// From where on more may be wanted; nothing: the trail was looked through in this direction.
    pub next: Option<u64>,
    /// Where lines are that were asked for, and are no longer here.
    pub archived: Vec<Archive>,
}

/// What is looked at of a line.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Looked {
    time: String,
    event: String,
    outcome: String,
    id: String,
    ids: Vec<String>,
    tenant: Option<String>,
    claimed_tenant: Option<String>,
    path: Option<String>,
}

impl AuditFilter {
    /// True if a line is wanted.
    pub fn wants(&self, line: &str) -> bool {
        // Most lines have not the id that is looked for.
        if self.id.as_ref().is_some_and(|id| !line.contains(id)) {
            return false;
        }
        let Ok(looked) = serde_json::from_str::<Looked>(line) else { return false };
        // A line that is about no tenant is for the one that its guest said it was of.
        let whose = looked.tenant.as_deref().or(looked.claimed_tenant.as_deref());
        let is = |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
        let below = |event: &String| {
            looked.event == *event
                || looked.event.strip_prefix(event.as_str()).is_some_and(|rest| rest.starts_with('.'))
        };
        // Times of lines are all of one form, so that their order is that of their text.
        self.tenant.as_ref().is_none_or(|tenant| whose == Some(tenant.as_str()))
            && self.id.as_ref().is_none_or(|id| looked.id == *id || looked.ids.contains(id))
            && is(&self.path, &looked.path)
            && self.event.as_ref().is_none_or(below)
            && self.outcome.as_ref().is_none_or(|outcome| looked.outcome == *outcome)
            && self.since_unix.is_none_or(|since| looked.time >= rfc3339(since))
            && self.until_unix.is_none_or(|until| looked.time < rfc3339(until))
    }
}

impl Ledger {
    /// Where the trail ends.
    pub fn audit_end(&self) -> AuditEnd {
        AuditEnd { lines: self.head.lines, hash: self.head.line_hash }
    }

    /// The lines of some numbers, in that order, as far as they hold; with what is wrong with the first that does not.
    async fn stretch(
        &mut self,
        first: u64,
        last: u64,
        order: AuditOrder,
    ) -> Result<(Vec<(u64, String)>, Option<AuditFault>), StoreError> {
        let start = self.trail_start();
        // The line before names what the first must be chained to.
        let from = first.saturating_sub(1).max(start.archived + 1);
        let rows = self.lines(from, usize::try_from(last - from + 1).unwrap_or(usize::MAX)).await?;
        let rows: BTreeMap<u64, Row> = rows.into_iter().map(|(key, row)| (sequence_of(&key), row)).collect();
        let find = |number: u64| rows.get(&number);
        let mut held = Vec::new();
        let numbers: Box<dyn Iterator<Item = u64> + Send> = match order {
            AuditOrder::Oldest => Box::new(first..=last),
            AuditOrder::Newest => Box::new((first..=last).rev()),
        };
        for number in numbers {
            let Some(row) = find(number) else {
                return Ok((held, Some(AuditFault::Line { sequence: number })));
            };
            let begins = number == start.archived + 1;
            let previous = if begins {
                Some(start.hash)
            } else {
                find(number - 1).map(|row| chained(&self.root, &(number - 1).to_be_bytes(), row))
            };
            let checked = match previous {
                Some(previous) => check_line(&self.root, number, number, row, &previous),
                None => Err(AuditFault::Chain { sequence: number }),
            };
            if let Err(fault) = checked {
                return Ok((held, Some(fault)));
            }
            held.push((number, String::from_utf8_lossy(&row.body).into_owned()));
        }
        Ok((held, None))
    }

    /// One line, if it is there and ours.
    ///
    /// # Errors
    /// As the store.
    pub async fn audit_line(&mut self, number: u64) -> Result<Option<String>, StoreError> {
        if number <= self.trail_start().archived || number > self.head.lines {
            return Ok(None);
        }
        Ok(self.stretch(number, number, AuditOrder::Oldest).await?.0.pop().map(|(_, line)| line))
    }
}

impl Store {
    /// Lines that are wanted, from a number on in the order that is asked for; `from`: nothing, from that end. At most so many, and
    /// no more than one answer looks through: who wants more asks on.
    ///
    /// # Errors
    /// As the store; [`StoreError::Audit`] where a line does not hold before one that is wanted was found.
    pub async fn audit_search(
        &self,
        wanted: &AuditFilter,
        from: Option<u64>,
        limit: usize,
        order: AuditOrder,
    ) -> Result<AuditFound, StoreError> {
        self.audit_search_within(wanted, from, limit, order, (LOOKED_LINES, LOOKED_BYTES)).await
    }

    /// The same, and looks at no more than so many lines and bytes.
    pub(super) async fn audit_search_within(
        &self,
        wanted: &AuditFilter,
        from: Option<u64>,
        limit: usize,
        order: AuditOrder,
        (most_lines, most_bytes): (usize, usize),
    ) -> Result<AuditFound, StoreError> {
        let (mut lines, mut next) = (Vec::new(), from);
        let (mut looked_lines, mut looked_bytes) = (0, 0);
        loop {
            let mut ledger = self.read().await?;
            let (end, start) = (ledger.audit_end(), ledger.trail_start());
            let (first, last) = match order {
                AuditOrder::Oldest => {
                    let first = next.unwrap_or(1).max(start.archived + 1);
                    (first, end.lines.min(first.saturating_add(STRETCH - 1)))
                }
                AuditOrder::Newest => {
                    let last = next.unwrap_or(end.lines).min(end.lines);
                    (last.saturating_sub(STRETCH - 1).max(start.archived + 1), last)
                }
            };
            let mut found = AuditFound { lines: Vec::new(), end, start, next: None, archived: Vec::new() };
            if first > last {
                let wanted_from = if order == AuditOrder::Newest { 1 } else { from.unwrap_or(1) };
                found.lines = lines;
                found.archived = ledger.archived_from(wanted_from).await?;
                return Ok(found);
            }
            let (stretch, fault) = ledger.stretch(first, last, order).await?;
            drop(ledger);
            for (number, line) in stretch {
                if lines.len() >= limit || looked_lines >= most_lines || looked_bytes >= most_bytes {
                    found.next = Some(number);
                    break;
                }
                (looked_lines, looked_bytes) = (looked_lines + 1, looked_bytes + line.len());
                if wanted.wants(&line) {
                    lines.push(line);
                }
            }
            next = match order {
                AuditOrder::Oldest => Some(last + 1),
                AuditOrder::Newest => Some(first - 1),
            };
            match fault {
                _ if found.next.is_some() => {}
                // What holds is given first; whoever asks for the rest is told.
                Some(fault) if lines.is_empty() => return Err(StoreError::Audit(fault)),
                Some(_) => {}
                None if lines.len() >= limit => {
                    found.next = next.filter(|next| (start.archived + 1..=end.lines).contains(next));
                }
                None => continue,
            }
            found.lines = lines;
            return Ok(found);
        }
    }
}

/// Lines read at once.
const STRETCH: u64 = 500;
/// Lines that one answer looks through, at most.
const LOOKED_LINES: usize = 10_000;
/// And bytes of them.
const LOOKED_BYTES: usize = 32 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_asks_for_all_it_says_and_for_nothing_else() {
        let line = r#"{"sequence":7,"time":"2026-11-27T20:00:00Z","event":"secret.release","outcome":"refused","id":"ab",
            "ids":["cd"],"tenant":"acme","path":"kbs:///a/b/c","previous":"00"}"#;
        let time = 1_795_809_600;
        assert_eq!(rfc3339(time), "2026-11-27T20:00:00Z");
        let some = |text: &str| Some(text.to_owned());
        let tenant = |name| Some(Tenant::parse(name).unwrap());
        for (filter, wants) in [
            (AuditFilter::default(), true),
            (AuditFilter { tenant: tenant("acme"), ..AuditFilter::default() }, true),
            (AuditFilter { tenant: tenant("globex"), ..AuditFilter::default() }, false),
            (AuditFilter { id: some("ab"), ..AuditFilter::default() }, true),
            (AuditFilter { id: some("cd"), ..AuditFilter::default() }, true),
            (AuditFilter { id: some("a"), ..AuditFilter::default() }, false),
            (AuditFilter { path: some("kbs:///a/b/c"), ..AuditFilter::default() }, true),
            (AuditFilter { path: some("kbs:///a/b/d"), ..AuditFilter::default() }, false),
            (AuditFilter { event: some("secret.release"), ..AuditFilter::default() }, true),
            (AuditFilter { event: some("secret"), ..AuditFilter::default() }, true),
            (AuditFilter { event: some("secre"), ..AuditFilter::default() }, false),
            (AuditFilter { outcome: some("refused"), ..AuditFilter::default() }, true),
            (AuditFilter { outcome: some("released"), ..AuditFilter::default() }, false),
            (AuditFilter { since_unix: Some(time), ..AuditFilter::default() }, true),
            (AuditFilter { since_unix: Some(time + 1), ..AuditFilter::default() }, false),
            (AuditFilter { until_unix: Some(time), ..AuditFilter::default() }, false),
            (AuditFilter { until_unix: Some(time + 1), ..AuditFilter::default() }, true),
        ] {
            assert_eq!(filter.wants(line), wants, "{filter:?}");
        }
        let claimed = r#"{"sequence":8,"event":"guest.attest","claimed_tenant":"acme"}"#;
        assert!(AuditFilter { tenant: tenant("acme"), ..AuditFilter::default() }.wants(claimed));
        assert!(!AuditFilter { tenant: tenant("globex"), ..AuditFilter::default() }.wants(claimed));
        // What a guest says takes no line away from the tenant that it is about.
        let both = r#"{"sequence":9,"event":"secret.release","tenant":"globex","claimed_tenant":"acme"}"#;
        assert!(!AuditFilter { tenant: tenant("acme"), ..AuditFilter::default() }.wants(both));
        assert!(!AuditFilter::default().wants("no line"));
    }
}
