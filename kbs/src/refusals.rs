//! Refusals of strangers, and of operators that ask for what they may not: summed by whoever asked and cause, so that nobody
//! floods the trail and every cause stands in it, with an id.
//!
//! The first of a cause is written within a second, the rest of a minute as one line with their number. Adding one takes
//! no lock of the ledger and costs no commit; all that wait are committed at once.
//! Trusts: nobody. Never: keeps more than [`STRANGERS`] and [`OPERATORS`] say apart, lets one of either crowd out the other.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use coffer_ratls::Source;
use tokio::sync::Notify;

use crate::{
    audit_log::AuditLog,
    clock::Clock,
    sources::source_name,
    store::{AuditEntry, Store, StoreError},
};

/// Causes that are kept apart; more are one.
struct Most {
    all_told: usize,
    of_one: usize,
}

/// By the sources of strangers.
const STRANGERS: Most = Most { all_told: 256, of_one: 16 };
/// By operators: some tenants, and each method.
const OPERATORS: Most = Most { all_told: 1024, of_one: 64 };
/// Ids that a line names beside its own.
const IDS: usize = 8;
/// From one line of a cause to the next.
const WINDOW: Duration = Duration::from_mins(1);
/// From the first refusal to its line.
const PAUSE: Duration = Duration::from_millis(500);

/// What was refused and does not stand in the trail yet.
pub struct Refusals {
    sums: Mutex<BTreeMap<Cause, Sum>>,
    told: Notify,
    /// One writer at a time.
    turn: tokio::sync::Mutex<()>,
    store: Arc<Store>,
    log: AuditLog,
    clock: Clock,
}

/// Who was refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whom {
    /// Somebody from there.
    Stranger(Source),
    /// An operator, by its name in the trail.
    Operator(String),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cause {
    of_operators: bool,
    /// Nothing where they are not kept apart any more.
    whom: Option<Whom>,
    words: String,
}

struct Sum {
    /// As the first of them was.
    entry: AuditEntry,
    waiting: u64,
    /// Of those that wait, the first ones.
    ids: Vec<String>,
    /// How many of these ids stand in a line that is being written just now.
    in_flight: usize,
    written: Option<Instant>,
}

/// A line to be written.
struct Due {
    cause: Cause,
    entry: AuditEntry,
    count: u64,
}

impl Refusals {
    /// Nothing yet.
    pub fn new(store: Arc<Store>, log: AuditLog, clock: Clock) -> Self {
        Self { sums: Mutex::default(), told: Notify::new(), turn: tokio::sync::Mutex::default(), store, log, clock }
    }

    /// Adds one. `entry` says what was refused, why, and under which id.
    pub fn add(&self, whom: Whom, entry: AuditEntry) {
        self.sum(whom, entry);
        self.told.notify_one();
    }

    fn sum(&self, whom: Whom, mut entry: AuditEntry) {
        let mut sums = self.sums();
        let of_operators = matches!(whom, Whom::Operator(_));
        let most = if of_operators { OPERATORS } else { STRANGERS };
        let mut cause = Cause { of_operators, whom: Some(whom), words: words(&entry) };
        if !sums.contains_key(&cause) {
            let of_kind = || sums.keys().filter(|one| one.of_operators == of_operators);
            if of_kind().count() >= most.all_told {
                cause = Cause { of_operators, whom: None, words: String::new() };
            } else if of_kind().filter(|one| one.whom == cause.whom).count() >= most.of_one {
                cause.words.clear();
            }
        }
        if cause.words.is_empty() {
            entry = others(entry, &cause);
        }
        if let Some(Whom::Stranger(source)) = cause.whom {
            entry.source = Some(source_name(source));
        }
        let id = entry.id.clone();
        let sum = sums.entry(cause).or_insert_with(|| Sum {
            entry,
            waiting: 0,
            ids: Vec::new(),
            in_flight: 0,
            written: None,
        });
        sum.waiting += 1;
        if sum.ids.len() - sum.in_flight <= IDS {
            sum.ids.push(id);
        }
    }

    /// Writes what waits until dropped.
    pub async fn keep_writing(self: Arc<Self>) {
        loop {
            // Without news there may still be sums whose minute is over.
            let _ = tokio::time::timeout(WINDOW, self.told.notified()).await;
            tokio::time::sleep(PAUSE).await;
            self.clone().write(false).await;
        }
    }

    /// Writes what is due, or all of it, in one transaction. What cannot be written goes on waiting.
    pub async fn write(self: Arc<Self>, all: bool) {
        // In a task of its own: a caller that goes away changes nothing about it.
        let written = tokio::spawn(async move { self.written(all).await }).await;
        let error = match written {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(error) => StoreError::interrupted(error),
        };
        tracing::error!(error = %coffer_rim::chain(&error), hint = error.hint(), "refusals are not in the trail yet");
    }

    async fn written(&self, all: bool) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let due = self.due(Instant::now(), all);
        if due.is_empty() {
            return Ok(());
        }
        let (mut ledger, now) = (self.store.write().await?, self.clock.now());
        let mut lines = Vec::with_capacity(due.len());
        for one in &due {
            lines.push(ledger.append_audit(&one.entry, now).await?);
        }
        ledger.commit().await?;
        for line in &lines {
            self.log.write(line);
        }
        self.settle(&due, Instant::now());
        Ok(())
    }

    fn due(&self, now: Instant, all: bool) -> Vec<Due> {
        let over = |sum: &Sum| sum.written.is_none_or(|at| now.saturating_duration_since(at) >= WINDOW);
        let mut sums = self.sums();
        sums.retain(|_, sum| sum.waiting > 0 || !over(sum));
        let due = sums.iter_mut().filter(|(_, sum)| sum.waiting > 0 && (all || over(sum)));
        due.map(|(cause, sum)| {
            // Those that come while this is written get an id of their own line.
            sum.in_flight = sum.ids.len().min(IDS + 1);
            let mut ids = sum.ids.iter().take(sum.in_flight).cloned();
            let entry = AuditEntry {
                id: ids.next().unwrap_or_default(),
                ids: ids.collect(),
                count: Some(sum.waiting),
                ..sum.entry.clone()
            };
            Due { cause: cause.clone(), entry, count: sum.waiting }
        })
        .collect()
    }

    /// What stands in the trail waits no more.
    fn settle(&self, due: &[Due], now: Instant) {
        let mut sums = self.sums();
        for one in due {
            if let Some(sum) = sums.get_mut(&one.cause) {
                sum.waiting -= one.count;
                let written = std::mem::take(&mut sum.in_flight);
                sum.ids.drain(..written);
                sum.written = Some(now);
            }
        }
    }

    fn sums(&self) -> MutexGuard<'_, BTreeMap<Cause, Sum>> {
        // Every critical section leaves whole sums.
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What makes two refusals one cause. Not who asked: keys of strangers cost nothing.
fn words(entry: &AuditEntry) -> String {
    let AuditEntry { event, code, tenant, path, name, guest, reasons, .. } = entry;
    let guest = guest.as_ref().map_or("", |guest| guest.report_id.as_str());
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    format!(
        "{event} {} {} {} {} {guest} {}",
        code.unwrap_or_default(),
        text(tenant),
        text(path),
        text(name),
        reasons.join("; ")
    )
}

/// More causes than are kept apart.
fn others(entry: AuditEntry, cause: &Cause) -> AuditEntry {
    AuditEntry {
        event: if cause.of_operators { "admin.call" } else { "guest.attest" },
        outcome: entry.outcome,
        id: entry.id,
        peer: match &cause.whom {
            Some(Whom::Operator(name)) => name.clone(),
            _ => String::new(),
        },
        code: Some("others"),
        reasons: vec!["others: more causes than are kept apart".to_owned()],
        ..AuditEntry::default()
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::{
        keys::RootKey,
        store::{MemoryRows, Witness},
    };

    async fn refusals() -> Arc<Refusals> {
        let root = RootKey::new(&Zeroizing::new([7; 32]));
        let rows = Arc::new(MemoryRows::default());
        let store = Arc::new(Store::create(rows, root, Witness::OlderDatabaseIsNotNoticed).await.unwrap());
        Arc::new(Refusals::new(store, AuditLog::new(|_| ()), Clock::system()))
    }

    fn refusal(id: usize, why: &str) -> AuditEntry {
        AuditEntry {
            event: "guest.attest",
            outcome: "refused",
            code: Some("evidence-refused"),
            id: format!("{id:04}"),
            reasons: vec![why.to_owned()],
            ..AuditEntry::default()
        }
    }

    async fn lines(refusals: &Refusals) -> Vec<serde_json::Value> {
        let lines = refusals.store.read().await.unwrap().audit_lines(1, 10_000).await.unwrap();
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[tokio::test]
    async fn a_cause_is_one_line_with_its_number_and_its_first_ids() {
        let refusals = refusals().await;
        for id in 0..100 {
            refusals.add(Whom::Stranger(0x7f00_0002), refusal(id, "tcb: too old"));
        }
        refusals.add(Whom::Stranger(0x7f00_0002), refusal(100, "debug: it is on"));
        refusals.add(Whom::Stranger(0x7f00_0003), refusal(101, "tcb: too old"));
        refusals.clone().write(false).await;
        let first = lines(&refusals).await;
        let said: Vec<_> = first.iter().map(|line| (&line["source"], &line["id"], &line["count"])).collect();
        let of = |line: &serde_json::Value| line["reasons"][0].as_str().unwrap().to_owned();
        assert_eq!(said.len(), 3, "{first:#?}");
        let many = first.iter().find(|line| line["count"] == 100).unwrap();
        assert_eq!((&many["source"], &many["id"]), (&"127.0.0.2".into(), &"0000".into()));
        assert_eq!((of(many).as_str(), many["ids"].as_array().unwrap().len()), ("tcb: too old", IDS));
        assert!(first.iter().any(|line| of(line) == "debug: it is on" && line["id"] == "0100"));

        // Within the minute it is only counted; then one line says how many there were.
        refusals.add(Whom::Stranger(0x7f00_0002), refusal(200, "tcb: too old"));
        refusals.add(Whom::Stranger(0x7f00_0002), refusal(201, "tcb: too old"));
        refusals.clone().write(false).await;
        assert_eq!(lines(&refusals).await.len(), 3);
        refusals.clone().write(true).await;
        let last = lines(&refusals).await.pop().unwrap();
        assert_eq!((&last["id"], &last["count"]), (&"0200".into(), &2.into()));
        refusals.clone().write(true).await;
        assert_eq!(lines(&refusals).await.len(), 4, "nothing is said twice");
    }

    #[tokio::test]
    async fn a_source_with_a_thousand_causes_has_seventeen_lines_and_all_have_few() {
        let refusals = refusals().await;
        for id in 0..1000 {
            refusals.add(Whom::Stranger(1), refusal(id, &format!("report-data: {id}")));
        }
        assert_eq!(refusals.due(Instant::now(), false).len(), STRANGERS.of_one + 1);
        for source in 2..1000 {
            refusals.add(Whom::Stranger(source), refusal(0, "tcb: too old"));
        }
        let due = refusals.due(Instant::now(), false);
        assert_eq!(due.len(), STRANGERS.all_told + 1);
        assert_eq!(due.iter().map(|one| one.count).sum::<u64>(), 1998, "each is counted");
    }

    #[tokio::test]
    async fn what_comes_while_a_line_is_written_has_an_id_in_the_next() {
        let refusals = refusals().await;
        let add = |id| refusals.add(Whom::Stranger(1), refusal(id, "tcb: too old"));
        for id in 0..20 {
            add(id);
        }
        let now = Instant::now();
        let written = refusals.due(now, true);
        for id in 20..40 {
            add(id);
        }
        refusals.settle(&written, now);
        let next = refusals.due(now, true);
        assert_eq!((next[0].entry.id.as_str(), next[0].count, next[0].entry.ids.len()), ("0020", 20, IDS));
        // One that could not be written is written with what came since, and no more is kept of it.
        for id in 40..100 {
            add(id);
            assert!(refusals.due(now, true)[0].entry.ids.len() <= IDS);
        }
        let all = refusals.due(now, true);
        assert_eq!((all[0].entry.id.as_str(), all[0].count), ("0020", 80));
        assert!(refusals.sums().values().all(|sum| sum.ids.len() <= 2 * (IDS + 1)));
    }

    #[tokio::test]
    async fn operators_and_strangers_do_not_crowd_each_other_out() {
        let refusals = refusals().await;
        for source in 0..1000 {
            refusals.add(Whom::Stranger(source), refusal(0, "tcb: too old"));
        }
        let call = |name: &str, at: usize| {
            let entry = AuditEntry {
                event: "admin.call",
                peer: name.to_owned(),
                name: Some(format!("M{at}")),
                ..refusal(at, "role: x")
            };
            refusals.add(Whom::Operator(name.to_owned()), entry);
        };
        for at in 0..1000 {
            call("mallory", at);
        }
        call("alice", 7);
        let due = refusals.due(Instant::now(), false);
        let of = |name: &str| due.iter().filter(|one| one.entry.peer == name).map(|one| one.count).collect::<Vec<_>>();
        assert_eq!((of("alice"), of("mallory").len()), (vec![1], OPERATORS.of_one + 1));
        assert_eq!(of("mallory").iter().sum::<u64>(), 1000, "each is counted");
        let rest = due.iter().find(|one| one.entry.peer == "mallory" && one.entry.code == Some("others")).unwrap();
        assert_eq!((rest.entry.event, rest.count), ("admin.call", 1000 - OPERATORS.of_one as u64));
    }
}
