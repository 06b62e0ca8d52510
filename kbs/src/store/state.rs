//! Looks at every row, names everything that is wrong with them, and mends what can be mended without giving anybody more than
//! they had.
//!
//! [`Store::verify_state`] changes nothing, and works beside a running server. [`Store::repair`] writes the record of changes anew
//! from the rows that are believed, and gives up what is damaged: a reference or key that admits somebody is taken off the
//! list, a secret whose head is lost counts as deleted, a manifest's name is closed for ever. What cannot be given up
//! without forgetting a refusal stays damaged and keeps refusing.
//! Trusts: the root key. Never: makes a damaged row into a believed one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use coffer_verifier::abi::WorkloadDigest;

use super::{
    Archive, AuditEntry, AuditFault, BROKER, StateFault, StoreError, StoredManifest, StoredPolicy,
    admins::There,
    audit::{check_trail, previous_of},
    checkpoint::{CheckpointKeeper, Witness},
    head::{Entry, Head, Live},
    known::every,
    ledger::{Ledger, Store, line_is_there, opened},
    lost_lines::Losses,
    marker::chained,
    record::{Record as _, RowKey},
    revocations,
    rows::{Intent, Kind, Row, Rows, Transaction as _},
    secrets,
};
use crate::keys::{KeyError, RootKey, RowKind};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    /// What, for people; the words of log and trail.
    pub what: String,
    /// What `repair` would do about it.
    pub repair: &'static str,
    /// True if something is lost by that.
    pub loses: bool,
}

/// Everything that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct StateSummary {
    /// Epoch.
    pub epoch: u64,
    /// Lines of the audit trail, those that are archived among them.
    pub lines: u64,
    /// Up to which line it is archived; 0: nothing is.
    pub archived: u64,
    /// Changes so far.
    pub changes: u64,
    /// Rows that count.
    pub rows: u64,
    /// What is wrong, in order.
    pub faults: Vec<Fault>,
    /// Lines of decisions whose policy's input should be kept and is gone. It decided nothing, and nothing brings it back: no fault,
    /// and yet somebody took it away, or a repair did.
    pub inputs_gone: Vec<u64>,
}

/// What a repair may give up beside what takes nothing but rights away: each only where somebody says so by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forget {
    /// Numbers of revocation lists: older lists are believed again until a newer one is seen.
    pub crl_numbers: bool,
    /// Lines of the audit trail: others say in their place that they are lost.
    pub audit_lines: bool,
    /// Keys of tenants: what hangs from them is lost, and new ones are made when they are next asked for.
    pub tenant_keys: bool,
    /// Generation counters: they begin at nothing again, and older sealed data is not told from newer.
    pub generations: bool,
}

/// What is to be done about a row.
enum Mend {
    /// Taken off: it admits or holds nothing any more.
    Remove,
    /// Its content is in its name.
    Rewrite(Vec<u8>),
    /// Something that refuses takes its place.
    Replace(Vec<u8>),
    /// It refused something, and refuses it no more: only where somebody says so by name.
    Forget,
    /// Not ours, and never counted.
    Discard,
    /// Without its content nobody can know what it refused.
    Leave,
}

impl Mend {
    const fn said(&self, kind: Kind) -> (&'static str, bool) {
        match (self, kind) {
            (Self::Replace(_), Kind::SecretVersion) => {
                ("this version of the secret is lost, and counts as destroyed; put it again", true)
            }
            (Self::Forget, Kind::TenantKey) => (
                "the key is lost, with all that was sealed under it and each certificate and token it signed; a new one is made when it is next asked for",
                true,
            ),
            (Self::Forget, Kind::Generation) => {
                ("the counter begins at nothing again: what was sealed before cannot be told from what is newer", true)
            }
            (Self::Forget, _) => {
                ("revocation lists of this root are believed again whatever their number, until one is seen", true)
            }
            (Self::Remove, _) => ("it is taken off the list; add it again", true),
            (Self::Rewrite(_), _) => ("it is written again from its name", false),
            (Self::Replace(_), Kind::Manifest) => ("its name is closed for ever; sign under another name", true),
            (Self::Replace(_), Kind::AuditArchive) => {
                ("which file it is is forgotten; its lines are known by their chain all the same", true)
            }
            (Self::Replace(_), Kind::Policy) => ("it refuses everything until it is put again", true),
            (Self::Replace(_), _) => ("the secret counts as deleted; put it again", true),
            (Self::Discard, _) => ("it is thrown away; it never counted", false),
            (Self::Leave, Kind::CrlNumber) => {
                ("nothing: it goes on refusing; restore a backup, or say --believe-older-revocation-lists", true)
            }
            (Self::Leave, Kind::TenantKey) => {
                ("nothing: it goes on refusing; restore a backup, or say --lose-damaged-tenant-keys", true)
            }
            (Self::Leave, Kind::Generation) => {
                ("nothing: it goes on refusing; restore a backup, or say --begin-damaged-generations-again", true)
            }
            (Self::Leave, _) => ("nothing: it goes on refusing; restore a backup", true),
        }
    }
}

impl Store {
    /// Looks at every row, the record of changes, the audit trail and the head. Changes nothing.
    ///
    /// # Errors
    /// What stops it from looking at all: rows that cannot be read, a head that is not ours.
    pub async fn verify_state(&self) -> Result<StateSummary, StoreError> {
        let mut ledger = self.read().await?;
        let mut faults: Vec<Fault> =
            ledger.damage(Forget::default()).await?.into_iter().map(|(fault, ..)| fault).collect();
        for number in ledger.known.damaged.clone() {
            faults.push(Fault {
                what: StateFault::Entry { number }.to_string(),
                repair: "the record of changes is written anew, with every row that is as it was",
                loses: false,
            });
        }
        if let Err(fault) = check_trail(&mut ledger).await? {
            faults.push(ledger.losses().await?.fault(&fault));
        }
        let head = ledger.head;
        let (rows, archived) = (ledger.known.rows.len() as u64, ledger.trail_start().archived);
        let inputs_gone = ledger.inputs_that_are_gone().await?;
        let Head { epoch, lines, changes, .. } = head;
        Ok(StateSummary { epoch, lines, archived, changes, rows, faults, inputs_gone })
    }

    /// Mends what can be mended, in one transaction, with a line in the trail that says all of it.
    ///
    /// # Errors
    /// As [`Store::write`]; then nothing has changed.
    pub async fn repair(&self, forget: Forget, now_unix: i64) -> Result<StateSummary, StoreError> {
        let mut ledger = self.write_alone().await?;
        let mut lost = Vec::new();
        let mut given_up = None;
        if forget.audit_lines
            && let Err(fault) = check_trail(&mut ledger).await?
        {
            // The checkpoint may end with a line that goes.
            self.shared.follower.keep(&ledger.root, &ledger.head).await?;
            let losses = ledger.losses().await?;
            given_up = Some(Fault { repair: ACCEPTED, loses: true, ..losses.fault(&fault) });
            lost = ledger.accept(losses, now_unix).await?;
        }
        let damage = ledger.damage(forget).await?;
        let mut faults: Vec<Fault> = damage.iter().map(|(fault, ..)| fault.clone()).collect();
        let mut left = BTreeSet::new();
        for (_, key, bytes, mend) in damage {
            match mend {
                Mend::Remove | Mend::Forget => ledger.write(key, None).await?,
                Mend::Rewrite(body) | Mend::Replace(body) => ledger.write(key, Some(body)).await?,
                Mend::Discard => ledger.transaction.remove(key.kind, &bytes).await?,
                Mend::Leave => {
                    left.insert(key);
                }
            }
        }
        for number in ledger.known.damaged.clone() {
            faults.push(Fault {
                what: StateFault::Entry { number }.to_string(),
                repair: "the record of changes was written anew",
                loses: false,
            });
        }
        if !ledger.known.damaged.is_empty() {
            ledger.record_anew(&left).await?;
        }
        faults.extend(given_up);
        if !faults.is_empty() {
            let entry = AuditEntry {
                event: "state.repair",
                outcome: "done",
                peer: BROKER.into(),
                reasons: faults.iter().map(|fault| format!("{}: {}", fault.what, fault.repair)).collect(),
                lost,
                ..AuditEntry::default()
            };
            ledger.append_audit(&entry, now_unix).await?;
        }
        let (head, archived) = (ledger.head, ledger.trail_start().archived);
        ledger.commit().await?;
        let mut known = self.shared.known();
        known.damaged.clear();
        let rows = known.rows.len() as u64;
        self.shared.publish(known);
        let Head { epoch, lines, changes, .. } = head;
        Ok(StateSummary { epoch, lines, archived, changes, rows, faults, inputs_gone: Vec::new() })
    }
}

impl Store {
    /// Gives rows that lost their head the one of the checkpoint, with the lines that were written since and are believed.
    ///
    /// # Errors
    /// [`StoreError::Audit`] if the checkpoint is not where the record of changes ends: then only a backup helps.
    pub async fn rebuild_head(
        rows: Arc<dyn Rows>,
        root: RootKey,
        keeper: Arc<dyn CheckpointKeeper>,
        now_unix: i64,
    ) -> Result<Self, StoreError> {
        let (store, mut ledger) = Self::headless(rows, root, keeper).await?;
        let entry = AuditEntry {
            event: "state.repair",
            outcome: "done",
            peer: BROKER.into(),
            reasons: vec!["the end mark was missing or not ours: written again from the checkpoint".into()],
            ..AuditEntry::default()
        };
        ledger.append_audit(&entry, now_unix).await?;
        ledger.commit().await?;
        Ok(store)
    }

    /// What [`Self::rebuild_head`] and a repair after it would find. Nothing of it lasts.
    ///
    /// # Errors
    /// As [`Self::rebuild_head`].
    pub async fn rebuild_plan(
        rows: Arc<dyn Rows>,
        root: RootKey,
        keeper: Arc<dyn CheckpointKeeper>,
    ) -> Result<StateSummary, StoreError> {
        let (_store, mut ledger) = Self::headless(rows, root, keeper).await?;
        let mut faults = vec![Fault {
            what: AuditFault::Head.to_string(),
            repair: "it is written again from the checkpoint",
            loses: false,
        }];
        faults.extend(ledger.damage(Forget::default()).await?.into_iter().map(|(fault, ..)| fault));
        let (rows, archived) = (ledger.known.rows.len() as u64, ledger.trail_start().archived);
        let Head { epoch, lines, changes, .. } = ledger.head;
        Ok(StateSummary { epoch, lines, archived, changes, rows, faults, inputs_gone: Vec::new() })
    }

    /// Rows with the head of the checkpoint, in a transaction that nobody has committed.
    async fn headless(
        rows: Arc<dyn Rows>,
        root: RootKey,
        keeper: Arc<dyn CheckpointKeeper>,
    ) -> Result<(Self, Ledger), StoreError> {
        let store = Self::unread(rows, root, Witness::Kept(keeper));
        let known = store.shared.known();
        let checkpoint = store.checkpoint(&known.root).await?.ok_or(StoreError::Audit(AuditFault::Head))?;
        let mut head = checkpoint.0;
        let mut transaction = store.rows.begin(Intent::Write).await?;
        // An end mark alone was set back, or lost. Where the checkpoint's own line is not there either, a whole older database is, and
        // that somebody accepts by name or not at all.
        if !line_is_there(&mut *transaction, &known.root, &checkpoint).await? {
            return Err(StoreError::Audit(AuditFault::Head));
        }
        let next = (head.changes + 1).to_be_bytes();
        let beyond = transaction.get(Kind::StateEntry, &next).await?;
        if beyond.is_some_and(|row| known.root.check_mac(RowKind::StateEntry, &[&next, &row.body], &row.mac).is_ok()) {
            return Err(StoreError::Audit(AuditFault::Head));
        }
        while let Some(row) = transaction.get(Kind::AuditLine, &(head.lines + 1).to_be_bytes()).await? {
            if previous_of(&known.root, head.lines + 1, &row) != Some(head.line_hash) {
                break;
            }
            let number = head.lines + 1;
            (head.lines, head.line_hash) = (number, chained(&known.root, &number.to_be_bytes(), &row));
        }
        store.shared.publish(opened(&known, &mut *transaction, head, Some(&checkpoint)).await?);
        let ledger = store.over(transaction, head).await;
        Ok((store, ledger))
    }
}

fn version_of(key: &RowKey) -> u64 {
    key.part(1).try_into().map_or(0, u64::from_be_bytes)
}

/// Of a row that nothing may take the place of, where the record of changes is written anew.
const LOST: &str = "it is lost: it goes on refusing, and its own row put back afterwards is not believed; put that back, or restore a backup, before you \
                    say this";

/// Of a gap in the trail, where nobody has said that it is accepted, and where somebody has.
const KEPT_GAP: &str = "nothing: the trail keeps its gap, and cannot be archived or backed up; restore a backup, or say --accept-lost-audit-lines";
const ACCEPTED: &str = "other lines say in their place that they are lost, and the trail goes on behind them";

impl Losses {
    /// With what was found first.
    fn fault(&self, first: &AuditFault) -> Fault {
        let what = match self.said() {
            Some(lost) => format!("{first}; lost: {lost}"),
            None => first.to_string(),
        };
        Fault { what, repair: KEPT_GAP, loses: false }
    }
}

type Damage = (Fault, RowKey, Vec<u8>, Mend);

impl Ledger {
    /// Every row that is not as the ledger knows it, and every row it does not know.
    async fn damage(&mut self, forget: Forget) -> Result<Vec<Damage>, StoreError> {
        let mut damage = Vec::new();
        let keys: Vec<RowKey> = self.known.rows.keys().cloned().collect();
        for key in keys {
            match self.read(&key).await {
                Ok(_) => {}
                Err(StoreError::Tampered { what, source }) => {
                    let mend = self.mend(&key, forget);
                    let (repair, loses) = match &mend {
                        // The record is written anew without them, and their own rows are strangers to it afterwards.
                        Mend::Leave if !self.known.damaged.is_empty() => (LOST, true),
                        mend => mend.said(key.kind),
                    };
                    let fault = Fault { what: format!("{what}: {source}"), repair, loses };
                    let bytes = key.to_bytes();
                    damage.push((fault, key, bytes, mend));
                }
                Err(error) => return Err(error),
            }
        }
        for kind in Kind::ALL.into_iter().filter(|kind| kind.decides()) {
            for (bytes, _) in every(&mut self.transaction, kind).await? {
                let key = RowKey::from_bytes(kind, &bytes);
                if key.as_ref().is_some_and(|key| self.known.rows.contains_key(key)) {
                    continue;
                }
                let what = key.as_ref().map_or_else(|| format!("a row of kind {}", kind.name()), RowKey::what);
                let (repair, loses) = Mend::Discard.said(kind);
                let fault = Fault { what: format!("{what}: {}", KeyError::Unknown), repair, loses };
                let key = key.unwrap_or_else(|| RowKey::global(kind, &[]));
                damage.push((fault, key, bytes, Mend::Discard));
            }
        }
        for (kind, what) in [
            (Kind::StateEntry, "a change after the last, which this server did not write"),
            (Kind::Head, "a second end mark, which this server did not write"),
            (Kind::AuditLine, "a line before the first, which this server did not write"),
        ] {
            for (bytes, row) in every(&mut self.transaction, kind).await? {
                if self.may_be_ours(kind, &bytes, &row) {
                    continue;
                }
                let (repair, loses) = Mend::Discard.said(kind);
                let fault = Fault { what: what.into(), repair, loses };
                damage.push((fault, RowKey::global(kind, &[]), bytes, Mend::Discard));
            }
        }
        for (what, bytes) in self.inputs_of_no_line().await? {
            let fault = Fault {
                what: format!("{what}: {}", KeyError::Unknown),
                repair: "it is thrown away; it decided nothing",
                loses: false,
            };
            damage.push((fault, RowKey::global(Kind::DecisionInput, &[]), bytes, Mend::Discard));
        }
        Ok(damage)
    }

    /// True where the ledger puts rows of its own. Lines after the last are the trail's to name; one that is archived may still lie
    /// there.
    fn may_be_ours(&self, kind: Kind, key: &[u8], row: &Row) -> bool {
        let number = key.try_into().map(u64::from_be_bytes);
        match kind {
            Kind::Head => key.is_empty(),
            Kind::AuditLine => {
                let archived = self.trail_start().archived;
                number.map_or(key > (archived + 1).to_be_bytes().as_slice(), |number| {
                    number > archived || self.is_left_over(number, row)
                })
            }
            _ => number.is_ok_and(|number| (self.head.base + 1..=self.head.changes).contains(&number)),
        }
    }

    /// What may take the place of a row of this kind: never anything that admits or releases more.
    fn mend(&self, key: &RowKey, forget: Forget) -> Mend {
        match key.kind {
            Kind::SecretVersion => Mend::Replace(secrets::Secret::given_up(version_of(key)).encode()),
            Kind::Reference
            | Kind::Signer
            | Kind::ManifestKey
            | Kind::SealingContext
            | Kind::CertificateProfile
            | Kind::Crl
            | Kind::Admin => Mend::Remove,
            Kind::CrlNumber if forget.crl_numbers => Mend::Forget,
            Kind::TenantKey if forget.tenant_keys => Mend::Forget,
            Kind::Generation if forget.generations => Mend::Forget,
            Kind::ManifestWorkload => Mend::Rewrite(Vec::new()),
            Kind::Tenant => Mend::Rewrite(There(0).encode()),
            // Not removed: another policy of its name must not step in its place.
            Kind::Policy => Mend::Replace(StoredPolicy::that_refuses(key).encode()),
            Kind::Revocation => Mend::Rewrite(revocations::Said::nothing().encode()),
            Kind::SecretHead => Mend::Replace(self.deleted_head(key).encode()),
            Kind::AuditArchive => Mend::Replace(Archive::forgotten()),
            Kind::Manifest => {
                let closed = StoredManifest {
                    name: key.text(0),
                    sequence: u64::MAX,
                    revoked_through: u64::MAX,
                    workload: WorkloadDigest::new([0; 32]),
                    envelope: Vec::new(),
                    added_unix: 0,
                };
                Mend::Replace(closed.encode())
            }
            Kind::Head | Kind::AuditLine | Kind::StateEntry => Mend::Discard,
            _ => Mend::Leave,
        }
    }

    /// A head that is deleted at the highest version anybody ever wrote, so that no number is given twice.
    pub(super) fn deleted_head(&self, key: &RowKey) -> secrets::Head {
        let versions = self.known.rows.keys().filter(|one| one.is_version_of(key));
        let version = versions.map(version_of).max().unwrap_or(0);
        // Whoever takes the deletion back gets no version that may have been too old.
        secrets::Head { minimum_version: version, ..secrets::Head::new(version, Some(0)) }
    }

    /// Writes the record of changes anew: every row that counts gets its MAC at a new change. Those that stay damaged keep
    /// refusing.
    async fn record_anew(&mut self, left: &BTreeSet<RowKey>) -> Result<(), StoreError> {
        for (bytes, _) in every(&mut self.transaction, Kind::StateEntry).await? {
            self.transaction.remove(Kind::StateEntry, &bytes).await?;
        }
        let keys: BTreeMap<RowKey, Entry> = self.live();
        (self.head.base, self.head.state_hash) = (self.head.changes, [0; 32]);
        for key in keys.into_keys() {
            if left.contains(&key) {
                self.condemn(key).await?;
            } else {
                let body = self.read(&key).await?;
                self.write(key, body).await?;
            }
        }
        let live = self.live();
        debug_assert_eq!(self.head.live, Live::of(&self.root, live.iter()));
        Ok(())
    }
}
