//! Refusals of strangers, and of operators that ask for what they may not: summed by whoever asked and cause, so that nobody
//! floods the trail and every cause stands in it, with an id.
//!
//! The first of a cause is written within a second, that of an operator before it is answered; the rest of a minute as one line with
//! their number. Adding one takes no lock of the ledger and costs no commit; all that wait are committed at once. What somebody chose
//! freely, a path, a name, a tenant that is not there, makes no cause of its own.
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
    store::{AuditEntry, Claimed, Store, StoreError},
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
/// From one time that somebody who reads has new causes written to the next.
const READ: Duration = Duration::from_secs(1);
/// Times in a second that the cause of an id is written because somebody asks for it.
const ASKED: u32 = 10;
/// From the first refusal to its line.
const PAUSE: Duration = Duration::from_millis(500);

/// What was refused and does not stand in the trail yet.
pub struct Refusals {
    sums: Mutex<BTreeMap<Cause, Sum>>,
    told: Notify,
    /// One writer at a time; when it last wrote because somebody read, or asked for an id, and how often in that second.
    turn: tokio::sync::Mutex<Asked>,
    store: Arc<Store>,
    log: AuditLog,
    clock: Clock,
}

/// What was written for those who read.
#[derive(Default)]
struct Asked {
    read: Option<Instant>,
    ids: Option<(Instant, u32)>,
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
    /// What they are about is not kept apart any more.
    others: bool,
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

/// What those of one cause need not have in common.
#[derive(PartialEq, Eq)]
struct Shown {
    peer: String,
    path: Option<String>,
    name: Option<String>,
    claimed_tenant: Option<Claimed>,
}

impl Sum {
    /// A line says of all it stands for only what all of them showed.
    fn differs_from(&mut self, shown: &Shown) {
        let AuditEntry { peer, path, name, claimed_tenant, .. } = &mut self.entry;
        if *peer != shown.peer {
            peer.clear();
        }
        if *path != shown.path {
            *path = None;
        }
        if *name != shown.name {
            *name = None;
        }
        if *claimed_tenant != shown.claimed_tenant {
            *claimed_tenant = None;
        }
    }
}

/// What is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// Causes that have no line yet, and those whose minute is over.
    Due,
    /// Causes that have no line yet.
    New,
    /// The same, for somebody who reads: at most once a second, however many do.
    Read,
    /// The cause that this id was summed in.
    Of(String),
    /// Everything that waits.
    All,
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

    /// Adds one, and waits until its cause has a line. What cannot be written goes on waiting without whoever asks.
    pub async fn add_and_write(self: Arc<Self>, whom: Whom, entry: AuditEntry) {
        let has_a_line = self.sum(whom, entry);
        if has_a_line {
            self.told.notify_one();
        } else {
            self.write(Which::New).await;
        }
    }

    /// True if its cause has a line already.
    fn sum(&self, whom: Whom, mut entry: AuditEntry) -> bool {
        let mut sums = self.sums();
        let of_operators = matches!(whom, Whom::Operator(_));
        let most = if of_operators { OPERATORS } else { STRANGERS };
        let mut cause = Cause { of_operators, whom: Some(whom), others: false, words: words(&entry, of_operators) };
        if !sums.contains_key(&cause) {
            let of_kind = || sums.keys().filter(|one| one.of_operators == of_operators && !one.others);
            let of_all = of_kind().count() >= most.all_told;
            if of_all || of_kind().filter(|one| one.whom == cause.whom).count() >= most.of_one {
                // Of events and methods there are few.
                let method = entry.name.as_deref().filter(|_| of_operators).unwrap_or_default();
                let whom = cause.whom.filter(|_| !of_all);
                cause = Cause { of_operators, whom, others: true, words: format!("{} {method}", entry.event) };
                entry = others(entry, &cause);
            }
        }
        if let Some(Whom::Stranger(source)) = cause.whom {
            entry.source = Some(source_name(source));
        }
        let id = entry.id.clone();
        let shown = Shown {
            peer: entry.peer.clone(),
            path: entry.path.clone(),
            name: entry.name.clone(),
            claimed_tenant: entry.claimed_tenant.clone(),
        };
        let sum = sums.entry(cause).or_insert_with(|| Sum {
            entry,
            waiting: 0,
            ids: Vec::new(),
            in_flight: 0,
            written: None,
        });
        if sum.waiting == 0 {
            // Those of the line before are said.
            let Shown { peer, path, name, claimed_tenant } = shown;
            sum.entry = AuditEntry { peer, claimed_tenant, path, name, ..sum.entry.clone() };
        } else {
            sum.differs_from(&shown);
        }
        sum.waiting += 1;
        if sum.ids.len() - sum.in_flight <= IDS {
            sum.ids.push(id);
        }
        sum.written.is_some()
    }

    /// Writes what waits until dropped.
    pub async fn keep_writing(self: Arc<Self>) {
        loop {
            // Without news there may still be sums whose minute is over.
            let _ = tokio::time::timeout(WINDOW, self.told.notified()).await;
            tokio::time::sleep(PAUSE).await;
            self.clone().write(Which::Due).await;
        }
    }

    /// Writes some of what waits in one transaction. What cannot be written goes on waiting.
    pub async fn write(self: Arc<Self>, which: Which) {
        // In a task of its own: a caller that goes away changes nothing about it.
        let written = tokio::spawn(async move { self.written(&which).await }).await;
        let error = match written {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(error) => StoreError::interrupted(error),
        };
        tracing::error!(error = %coffer_rim::chain(&error), hint = error.hint(), "refusals are not in the trail yet");
    }

    async fn written(&self, which: &Which) -> Result<(), StoreError> {
        let mut asked = self.turn.lock().await;
        let now = Instant::now();
        let is_recent = |at: Instant| now.saturating_duration_since(at) < READ;
        match which {
            Which::Read if asked.read.is_some_and(is_recent) => return Ok(()),
            Which::Read => asked.read = Some(now),
            Which::Of(_) => match &mut asked.ids {
                Some((at, count)) if is_recent(*at) && *count >= ASKED => return Ok(()),
                Some((at, count)) if is_recent(*at) => *count += 1,
                ids => *ids = Some((now, 1)),
            },
            Which::Due | Which::New | Which::All => {}
        }
        let due = self.due(now, which);
        if due.is_empty() {
            return Ok(());
        }
        self.store.leaves_reserve()?;
        let (mut ledger, now) = (self.store.write().await?, self.clock.now());
        let mut lines = Vec::with_capacity(due.len());
        for one in &due {
            lines.push(ledger.append_audit(&one.entry, now).await?);
        }
        let done = ledger.commit().await;
        if done.as_ref().map_or_else(StoreError::is_committed, |()| true) {
            for line in &lines {
                self.log.write(line);
            }
            self.settle(&due, Instant::now());
        }
        done
    }

    fn due(&self, now: Instant, which: &Which) -> Vec<Due> {
        let over = |sum: &Sum| sum.written.is_none_or(|at| now.saturating_duration_since(at) >= WINDOW);
        let mut sums = self.sums();
        sums.retain(|_, sum| sum.waiting > 0 || !over(sum));
        let is_due = |sum: &Sum| match which {
            Which::Due => over(sum),
            Which::New | Which::Read => sum.written.is_none(),
            Which::Of(id) => sum.ids.contains(id),
            Which::All => true,
        };
        let due = sums.iter_mut().filter(|(_, sum)| sum.waiting > 0 && is_due(sum));
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

/// What makes two refusals one cause. Not who asked: keys of strangers cost nothing; nor for what, which anybody makes up.
fn words(entry: &AuditEntry, of_operators: bool) -> String {
    let AuditEntry { event, code, tenant, claimed_tenant, name, guest, reasons, .. } = entry;
    let claimed = match claimed_tenant {
        Some(Claimed::Tenant(tenant)) => tenant.as_str(),
        Some(Claimed::Word(_)) | None => "",
    };
    let guest = guest.as_ref().map_or("", |guest| guest.report_id.as_str());
    let (tenant, method) = (tenant.as_deref().unwrap_or_default(), name.as_deref().filter(|_| of_operators));
    let (code, method) = (code.unwrap_or_default(), method.unwrap_or_default());
    format!("{event} {code} {tenant} {claimed} {method} {guest} {}", reasons.join("; "))
}

/// More causes than are kept apart: of them event, method and who it was are still said.
fn others(entry: AuditEntry, cause: &Cause) -> AuditEntry {
    AuditEntry {
        event: entry.event,
        outcome: entry.outcome,
        id: entry.id,
        peer: match &cause.whom {
            Some(Whom::Operator(name)) => name.clone(),
            _ => String::new(),
        },
        name: entry.name.filter(|_| cause.of_operators),
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
        refusals.clone().write(Which::Due).await;
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
        refusals.clone().write(Which::Due).await;
        assert_eq!(lines(&refusals).await.len(), 3);
        refusals.clone().write(Which::All).await;
        let last = lines(&refusals).await.pop().unwrap();
        assert_eq!((&last["id"], &last["count"]), (&"0200".into(), &2.into()));
        refusals.clone().write(Which::All).await;
        assert_eq!(lines(&refusals).await.len(), 4, "nothing is said twice");
    }

    #[tokio::test]
    async fn a_source_with_a_thousand_causes_has_seventeen_lines_and_all_have_few() {
        let refusals = refusals().await;
        for id in 0..1000 {
            refusals.add(Whom::Stranger(1), refusal(id, &format!("report-data: {id}")));
        }
        assert_eq!(refusals.due(Instant::now(), &Which::Due).len(), 16 + 1);
        for source in 2..1000 {
            refusals.add(Whom::Stranger(source), refusal(0, "tcb: too old"));
        }
        let due = refusals.due(Instant::now(), &Which::Due);
        assert_eq!(due.len(), 256 + 2, "and what is beyond, of that source and of all");
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
        let written = refusals.due(now, &Which::All);
        for id in 20..40 {
            add(id);
        }
        refusals.settle(&written, now);
        let next = refusals.due(now, &Which::All);
        assert_eq!((next[0].entry.id.as_str(), next[0].count, next[0].entry.ids.len()), ("0020", 20, IDS));
        // One that could not be written is written with what came since, and no more is kept of it.
        for id in 40..100 {
            add(id);
            assert!(refusals.due(now, &Which::All)[0].entry.ids.len() <= IDS);
        }
        let all = refusals.due(now, &Which::All);
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
        let due = refusals.due(Instant::now(), &Which::Due);
        let of = |name: &str| due.iter().filter(|one| one.entry.peer == name).map(|one| one.count).collect::<Vec<_>>();
        assert_eq!((of("alice"), of("mallory").len()), (vec![1], 1000), "of methods there are few");
        assert_eq!(of("mallory").iter().sum::<u64>(), 1000, "each is counted");
        let rest = due.iter().find(|one| one.entry.peer == "mallory" && one.entry.code == Some("others")).unwrap();
        assert!(rest.entry.event == "admin.call" && rest.entry.name.is_some());
    }

    #[tokio::test]
    async fn what_somebody_makes_up_makes_no_causes_and_crowds_nothing_out() {
        let refusals = refusals().await;
        let ask = |at: usize, event: &'static str| AuditEntry {
            event,
            peer: format!("key {}", at / 500),
            path: Some(format!("kbs:///default/app/{at}")),
            name: Some(format!("made-up-{at}")),
            claimed_tenant: Some(Claimed::Word(format!("made-up-{at}"))),
            ..refusal(at, "attestation: there is none on this connection")
        };
        for at in 0..1000 {
            refusals.add(Whom::Stranger(1), ask(at, "secret.release"));
        }
        refusals.add(Whom::Stranger(1), refusal(1000, "tcb: too old"));
        let due = refusals.due(Instant::now(), &Which::Due);
        let counts: Vec<_> = due.iter().map(|one| one.count).collect();
        assert_eq!((due.len(), counts.iter().sum::<u64>()), (2, 1001));
        let many = &due.iter().find(|one| one.count == 1000).unwrap().entry;
        let shown = (many.peer.as_str(), &many.path, &many.name, &many.claimed_tenant);
        assert_eq!(shown, ("", &None, &None, &None), "not what the first alone showed");
        // What they showed is said anew in the next line.
        refusals.clone().write(Which::All).await;
        refusals.add(Whom::Stranger(1), ask(7, "secret.release"));
        let due = refusals.due(Instant::now(), &Which::All);
        assert_eq!((due[0].entry.peer.as_str(), due[0].entry.path.is_some()), ("key 0", true));
        // A tenant that is there is a cause of its own: its auditor reads these lines and no others.
        for tenant in ["acme", "globex"] {
            let claimed_tenant = Some(Claimed::Tenant(tenant.to_owned()));
            refusals.add(Whom::Stranger(2), AuditEntry { claimed_tenant, ..refusal(0, "tcb: too old") });
        }
        let due = refusals.due(Instant::now(), &Which::Due);
        assert_eq!(due.iter().filter(|one| one.entry.claimed_tenant.is_some()).count(), 2);
        // Beyond what is kept apart the event still is.
        for at in 0..100 {
            refusals.add(Whom::Stranger(1), refusal(at, &format!("report-data: {at}")));
        }
        refusals.add(Whom::Stranger(1), ask(1, "sealing-key.release"));
        let due = refusals.due(Instant::now(), &Which::Due);
        let others: Vec<_> = due.iter().filter(|one| one.entry.code == Some("others")).collect();
        let events: Vec<_> = others.iter().map(|one| (one.entry.event, one.entry.source.as_deref())).collect();
        assert_eq!(events.len(), 2, "{events:?}");
        assert!(events.iter().any(|(event, source)| *event == "sealing-key.release" && source.is_some()), "{events:?}");
    }

    #[tokio::test]
    async fn who_reads_writes_new_causes_once_a_second_and_one_by_its_id() {
        let refusals = refusals().await;
        let add = |id, why: &str| refusals.add(Whom::Stranger(1), refusal(id, why));
        add(0, "tcb: too old");
        refusals.clone().write(Which::Read).await;
        assert_eq!(lines(&refusals).await.len(), 1);
        for id in 1..50 {
            add(id, "tcb: too old");
            refusals.clone().write(Which::Read).await;
        }
        add(50, "debug: it is on");
        refusals.clone().write(Which::Read).await;
        assert_eq!(lines(&refusals).await.len(), 1, "whoever reads on and on does not undo the sums");
        refusals.clone().write(Which::Of("0001".into())).await;
        refusals.clone().write(Which::Of("none".into())).await;
        let written = lines(&refusals).await;
        assert_eq!((written.len(), &written[1]["id"], &written[1]["count"]), (2, &"0001".into(), &49.into()));
        for id in 1000..1030 {
            add(id, "tcb: too old");
            refusals.clone().write(Which::Of(format!("{id:04}"))).await;
        }
        let more = lines(&refusals).await.len();
        assert!(more <= 2 + ASKED as usize, "{more} lines for 30 ids");
    }

    #[tokio::test]
    async fn the_first_of_an_operators_cause_has_its_line_before_it_is_answered() {
        let refusals = refusals().await;
        let call = |at| AuditEntry { event: "admin.call", name: Some("PutSecret".into()), ..refusal(at, "role: x") };
        refusals.clone().add_and_write(Whom::Operator("mallory".into()), call(0)).await;
        assert_eq!(lines(&refusals).await.len(), 1);
        for at in 1..10 {
            refusals.clone().add_and_write(Whom::Operator("mallory".into()), call(at)).await;
        }
        assert_eq!(lines(&refusals).await.len(), 1, "the others are summed");
        refusals.clone().write(Which::All).await;
        assert_eq!(lines(&refusals).await.pop().unwrap()["count"], 9);
    }
}
