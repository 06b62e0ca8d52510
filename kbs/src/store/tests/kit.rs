//! The rollback kit: what whoever writes to the database file can do, row by row and column by column.
//!
//! Kinds come from [`Kind::ALL`] and columns from the table itself, so that a new one is covered the day it is made.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use rusqlite::{Connection, types::Value};

use super::super::record::RowKey;
use super::*;

type Table = Vec<Vec<Value>>;

/// A store in a file with rows of every kind, and the file in the hand of somebody else.
struct Kit {
    folder: tempfile::TempDir,
    /// Runs while the file is written beneath it.
    running: Store,
    attacker: Connection,
    columns: Vec<String>,
    /// What counts under each key.
    present: BTreeMap<RowKey, Vec<u8>>,
    now: Table,
    old: Table,
    old_checkpoint: Vec<u8>,
    now_checkpoint: Vec<u8>,
    /// Every line that was written, as the log printed it.
    log: Vec<String>,
}

impl Kit {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("kbs.db");
        let running = Store::create_file(&database, root(), Self::witness(&folder)).await.unwrap();
        let attacker = Connection::open(&database).unwrap();
        attacker.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
        attacker.execute_batch("PRAGMA synchronous = OFF").unwrap();
        let tables: i64 = attacker
            .query_row("SELECT count(*) FROM sqlite_schema WHERE type = 'table'", [], |row| row.get(0))
            .unwrap();
        assert_eq!(tables, 1, "a table that this kit does not know");
        let columns = {
            let mut all = attacker.prepare("SELECT name FROM pragma_table_info('rows')").unwrap();
            all.query_map([], |row| row.get(0)).unwrap().collect::<Result<Vec<String>, _>>().unwrap()
        };
        let mut kit = Self {
            folder,
            running,
            attacker,
            columns,
            present: BTreeMap::new(),
            now: Table::new(),
            old: Table::new(),
            old_checkpoint: Vec::new(),
            now_checkpoint: Vec::new(),
            log: Vec::new(),
        };
        kit.round("old").await;
        (kit.old, kit.old_checkpoint) = (kit.dump(), std::fs::read(kit.checkpoint()).unwrap());
        kit.round("new").await;
        (kit.now, kit.now_checkpoint) = (kit.dump(), std::fs::read(kit.checkpoint()).unwrap());
        let kinds: BTreeSet<Kind> = kit.now.iter().filter_map(|row| kind_of(row)).collect();
        assert!(kinds.into_iter().eq(bound().collect::<BTreeSet<_>>()), "a kind without a row");
        kit
    }

    fn witness(folder: &tempfile::TempDir) -> Witness {
        Witness::Kept(Arc::new(FileCheckpoint::new(folder.path().join("checkpoint"))))
    }

    fn checkpoint(&self) -> PathBuf {
        self.folder.path().join("checkpoint")
    }

    /// Two rows of every kind that decides, in a new form, and a line for each kind.
    async fn round(&mut self, form: &str) {
        for kind in Kind::ALL.into_iter().filter(|kind| kind.decides()) {
            let mut ledger = self.running.write().await.unwrap();
            for name in ["a", "b"] {
                let key = RowKey::of(kind, &tenant(), &[name.as_bytes()]);
                let body = format!("{form} form of {} {name}", kind.name()).into_bytes();
                ledger.write(key.clone(), Some(body.clone())).await.unwrap();
                self.present.insert(key, body);
            }
            let entry = AuditEntry { event: "test", outcome: "done", id: kind.name().into(), ..AuditEntry::default() };
            self.log.push(ledger.append_audit(&entry, 1000).await.unwrap());
            ledger.commit().await.unwrap();
        }
    }

    fn dump(&self) -> Table {
        let mut all = self.attacker.prepare("SELECT * FROM rows ORDER BY kind, key").unwrap();
        let width = self.columns.len();
        let rows = all.query_map([], |row| (0..width).map(|at| row.get(at)).collect()).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }

    /// Makes the file hold these rows. Of two with one key the later counts.
    fn put(&self, rows: &[Vec<Value>]) {
        let places = vec!["?"; self.columns.len()].join(", ");
        self.attacker.execute_batch("BEGIN IMMEDIATE; DELETE FROM rows").unwrap();
        {
            let insert = format!("INSERT OR REPLACE INTO rows VALUES ({places})");
            let mut insert = self.attacker.prepare_cached(&insert).unwrap();
            for row in rows {
                insert.execute(rusqlite::params_from_iter(row)).unwrap();
            }
        }
        self.attacker.execute_batch("COMMIT").unwrap();
    }

    async fn opened(&self) -> Result<Store, StoreError> {
        let path = self.folder.path().join("kbs.db");
        Store::open_file(&path, root(), Upgrade::Refused, Self::witness(&self.folder)).await
    }

    /// Looks at everything after an attack. `touched`: keys whose rows were changed. Gives what `state verify` says.
    async fn judge(&self, touched: &BTreeSet<RowKey>, attack: &str) -> Vec<String> {
        let fresh = self.opened().await;
        for store in [Some(&self.running), fresh.as_ref().ok()].into_iter().flatten() {
            // A head that is not ours or is older stops everything: nothing is released then.
            let Ok(mut ledger) = store.read().await else { continue };
            for (key, body) in &self.present {
                match ledger.read(key).await {
                    Ok(Some(found)) if found == *body => {}
                    Err(StoreError::Tampered { what, .. }) if touched.contains(key) => assert_eq!(what, key.what()),
                    other => panic!("{attack}: {} is read as {other:?}", key.what()),
                }
            }
        }
        match fresh {
            Ok(store) => {
                let StateSummary { faults, .. } = store.verify_state().await.unwrap();
                faults.into_iter().map(|fault| fault.what).collect()
            }
            Err(error) => vec![format!("not served: {error}")],
        }
    }
}

/// Every kind whose rows are answered for. What policies saw of decisions decides nothing and is bound to nothing: the line of each names
/// its digest, and whoever reads one compares it.
fn bound() -> impl Iterator<Item = Kind> {
    Kind::ALL.into_iter().filter(|kind| *kind != Kind::DecisionInput)
}

fn kind_of(row: &[Value]) -> Option<Kind> {
    match &row[0] {
        Value::Text(name) => Kind::from_name(name),
        _ => None,
    }
}

fn key_of(row: &[Value]) -> Option<RowKey> {
    match (kind_of(row)?, &row[1]) {
        (kind, Value::Blob(key)) if kind.decides() => RowKey::from_bytes(kind, key),
        _ => None,
    }
}

/// Another value of the same type.
fn edited(value: &Value) -> Value {
    match value {
        Value::Blob(bytes) if bytes.is_empty() => Value::Blob(vec![0]),
        Value::Blob(bytes) => {
            let mut bytes = bytes.clone();
            let end = bytes.len() - 1;
            bytes[end] ^= 1;
            Value::Blob(bytes)
        }
        Value::Text(name) => {
            let at = Kind::ALL.iter().position(|kind| kind.name() == name).unwrap();
            Value::Text(Kind::ALL[(at + 1) % Kind::ALL.len()].name().into())
        }
        other => panic!("a column of another type: {other:?}"),
    }
}

/// What can be done to one row: a word, the rows as they are then, and the keys that were touched.
fn attacks(kit: &Kit, at: usize) -> Vec<(String, Table, BTreeSet<RowKey>)> {
    let (row, now) = (&kit.now[at], &kit.now);
    let mut found = Vec::new();
    let mut add = |word: String, rows: Table, touched: &[&[Value]]| {
        found.push((word, rows, touched.iter().filter_map(|row| key_of(row)).collect()));
    };
    let replaced = |forms: &[(usize, Vec<Value>)]| {
        let mut rows = now.clone();
        for (at, form) in forms {
            rows[*at].clone_from(form);
        }
        rows
    };
    let mut without = now.clone();
    without.remove(at);
    add("deleted".into(), without, &[row]);
    let mut copy = row.clone();
    copy[1] = edited(&copy[1]);
    let taken = now.iter().any(|other| other[..2] == copy[..2]);
    if !taken {
        let mut more = now.clone();
        more.push(copy);
        add("duplicated".into(), more, &[]);
    }
    // With its neighbour, and with the first row of another kind.
    let others = [(at + 1) % now.len(), now.iter().position(|other| other[0] != row[0]).unwrap()];
    for other in others {
        let (mut one, mut two) = (row.clone(), now[other].clone());
        one[2..].swap_with_slice(&mut two[2..]);
        add(
            format!("swapped with {:?}", now[other][..2].to_vec()),
            replaced(&[(at, one), (other, two)]),
            &[row, &now[other]],
        );
    }
    if let Some(older) = kit.old.iter().find(|older| older[..2] == row[..2] && *older != row) {
        add("set back".into(), replaced(&[(at, older.clone())]), &[row]);
    }
    for (column, name) in kit.columns.iter().enumerate() {
        let mut form = row.clone();
        form[column] = edited(&form[column]);
        // A row that moved onto another's place takes that place.
        let onto = now.iter().find(|other| other[..2] == form[..2] && *other != row).cloned();
        let mut rows = now.clone();
        rows.remove(at);
        rows.push(form);
        add(format!("{name} edited"), rows, &[row, onto.as_deref().unwrap_or(row)]);
    }
    found
}

#[tokio::test]
async fn whatever_is_done_to_one_row_is_named_and_stops_only_that_row() {
    let kit = Kit::new().await;
    assert!(kit.judge(&BTreeSet::new(), "nothing").await.is_empty());
    let mut seen: BTreeMap<Kind, usize> = BTreeMap::new();
    for at in 0..kit.now.len() {
        let kind = kind_of(&kit.now[at]).unwrap();
        let count = seen.entry(kind).or_default();
        *count += 1;
        // Of lines and entries there are many that are alike.
        if *count > 4 {
            continue;
        }
        for (word, rows, touched) in attacks(&kit, at) {
            let attack = format!("{} {:?} {word}", kind.name(), kit.now[at][1]);
            kit.put(&rows);
            let said = kit.judge(&touched, &attack).await;
            assert!(!said.is_empty(), "{attack}: nothing was noticed");
            for key in touched.iter().filter(|_| !said[0].starts_with("not served")) {
                assert!(
                    said.iter().any(|one| one.starts_with(&key.what())),
                    "{attack}: {} is not named in {said:?}",
                    key.what()
                );
            }
        }
    }
    kit.put(&kit.now);
    assert!(kit.judge(&BTreeSet::new(), "nothing").await.is_empty());
    assert_eq!(seen.len(), bound().count());
}

#[tokio::test]
async fn several_things_at_once_are_named_one_by_one() {
    let seed = std::env::var("COFFER_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("COFFER_SEED={seed}");
    let mut random = Random(seed);
    let kit = Kit::new().await;
    let deciding: Vec<usize> = (0..kit.now.len()).filter(|at| key_of(&kit.now[*at]).is_some()).collect();
    for round in 0..60 {
        let mut rows = kit.now.clone();
        let mut touched = BTreeSet::new();
        for _ in 0..=random.below(6) {
            let at = deciding[random.below(deciding.len())];
            let (here, key) = (&kit.now[at], key_of(&kit.now[at]).unwrap());
            let place = rows.iter().position(|row| row[..2] == here[..2]);
            let Some(place) = place.filter(|_| touched.insert(key)) else { continue };
            let older = kit.old.iter().find(|row| row[..2] == here[..2]).unwrap();
            match random.below(4) {
                0 => drop(rows.remove(place)),
                1 => rows[place].clone_from(older),
                2 => rows[place][2] = edited(&here[2]),
                _ => rows[place][3] = edited(&here[3]),
            }
        }
        kit.put(&rows);
        let said = kit.judge(&touched, &format!("round {round} of seed {seed}")).await;
        assert_eq!(said.len(), touched.len(), "round {round} of seed {seed}: {said:?}");
    }
}

/// Which parts of the broker's memory are set back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Rows,
    Entries,
    Head,
    Lines,
    Checkpoint,
}

#[tokio::test]
async fn parts_set_back_together_give_nothing_old_unless_all_of_them_are() {
    let kit = Kit::new().await;
    let parts = [Part::Rows, Part::Entries, Part::Head, Part::Lines, Part::Checkpoint];
    let part_of = |row: &Vec<Value>| match kind_of(row) {
        Some(Kind::Head) => Part::Head,
        Some(Kind::StateEntry) => Part::Entries,
        Some(Kind::AuditLine) => Part::Lines,
        _ => Part::Rows,
    };
    let mut out_of_reach = Vec::new();
    for set in 1..1_u32 << parts.len() {
        let back = |part: Part| set >> parts.iter().position(|one| *one == part).unwrap() & 1 == 1;
        let named: Vec<Part> = parts.into_iter().filter(|part| back(*part)).collect();
        let mut rows: Table = kit.old.iter().filter(|row| back(part_of(row))).cloned().collect();
        rows.extend(kit.now.iter().filter(|row| !back(part_of(row))).cloned());
        kit.put(&rows);
        std::fs::write(
            kit.checkpoint(),
            if back(Part::Checkpoint) { &kit.old_checkpoint } else { &kit.now_checkpoint },
        )
        .unwrap();
        // The broker that runs remembers the newest whatever the files say.
        if let Ok(mut ledger) = kit.running.read().await {
            for (key, body) in &kit.present {
                let read = ledger.read(key).await;
                assert!(matches!(&read, Ok(Some(found)) if found == body) || read.is_err(), "{named:?}: {read:?}");
            }
        }
        let Ok(store) = kit.opened().await else { continue };
        let mut ledger = store.read().await.unwrap();
        let mut old = 0;
        for (key, body) in &kit.present {
            old += usize::from(matches!(ledger.read(key).await, Ok(Some(found)) if found != *body));
        }
        drop(ledger);
        let faults = store.verify_state().await.unwrap().faults;
        let only_the_checkpoint = named == [Part::Checkpoint];
        assert!(old > 0 || only_the_checkpoint || !faults.is_empty(), "{named:?}: served without a word");
        if old > 0 {
            out_of_reach.push((named.clone(), faults.is_empty()));
            // Only a copy of the log that lies elsewhere shows it.
            let missed = store.verify_against(&(kit.log.join("\n") + "\n")).await.unwrap();
            assert!(missed.is_err(), "{named:?}");
        }
    }
    assert_eq!(out_of_reach, [(parts.to_vec(), true)]);
}

/// Numbers that a seed gives again (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % end as u64).unwrap()
    }
}

#[tokio::test]
async fn a_copy_of_the_log_is_compared_line_by_line_or_not_taken() {
    let kit = Kit::new().await;
    let store = kit.opened().await.unwrap();
    let log = kit.log.join("\n") + "\n";
    let of = async |text: &str| store.verify_against(text).await.unwrap();
    let lines = kit.log.len() as u64;
    assert!(lines > 4);
    let here = |lines| Compared { lines, ..Compared::default() };
    assert_eq!(of(&log).await, Ok(here(lines)));
    assert_eq!(of("").await, Ok(here(0)));
    assert_eq!(of("package web\n").await, Ok(here(0)));
    assert_eq!(of(&log.replace('\n', "\r\n")).await, Ok(here(lines)), "as some ways of keeping it write it");
    assert_eq!(of(log.trim_end()).await, Ok(here(lines - 1)), "the last is still being written");
    let second = &kit.log[1];
    let number: serde_json::Value = serde_json::from_str(second).unwrap();
    for changed in [second.replacen("event", "evens", 1), second[..second.len() - 1].to_owned()] {
        assert_ne!(&changed, second);
        assert_eq!(
            of(&log.replace(second, &changed)).await.map_err(|fault| fault.sequence),
            Err(number["sequence"].as_u64().unwrap())
        );
    }
}
