use coffer_rim::{Class, Failure, Reason};
use rusqlite::ffi;

use super::schema::STEPS;
use super::*;
use crate::boxes::BoxOptions;
use crate::boxes::tests::options;

pub(crate) fn home() -> (tempfile::TempDir, Home) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::open(dir.path().join("home").as_path()).unwrap();
    (dir, home)
}

/// A box that was made and never started.
pub(crate) fn record(name: &str) -> BoxRecord {
    BoxRecord {
        id: BoxId::random(),
        name: name.into(),
        image: "busybox".into(),
        state: BoxState::Created,
        supervisor_pid: None,
        vmm_pid: None,
        created: 1,
        started: None,
        finished: None,
        exit_code: None,
        error: None,
        restarts: 0,
        stopped_by_hand: false,
        reason: None,
        options: options(),
        timings: Timings::default(),
    }
}

pub(crate) fn made(home: &Home, name: &str) -> BoxRecord {
    let record = record(name);
    crate::home::private_folder(&home.box_folder(&record.id)).unwrap();
    record
}

pub(crate) fn started(state: &State, record: &BoxRecord, now: i64) {
    state.started(&record.id, 1, Some(2), &Timings::default(), now).unwrap();
}

/// From here on nothing more is recorded of this home's boxes, as on a full disk.
pub(crate) fn fill_disk(home: &Home) {
    let full = "create trigger full before update on boxes begin select raise(fail, 'database or disk is full'); end";
    State::open(home).unwrap().db.execute_batch(full).unwrap();
}

/// Undoes [`fill_disk`].
pub(crate) fn free_disk(home: &Home) {
    State::open(home).unwrap().db.execute_batch("drop trigger full").unwrap();
}

#[test]
fn finds_a_box_by_name_id_and_unique_prefix() {
    let (_dir, home) = home();
    let state = State::open(&home).unwrap();
    let first = made(&home, "first");
    let second = made(&home, "second");
    state.add(&first).unwrap();
    state.add(&second).unwrap();
    assert_eq!(state.find("first").unwrap(), first);
    assert_eq!(state.find("/second").unwrap(), second);
    assert_eq!(state.find(second.id.as_str()).unwrap(), second);
    assert_eq!(state.find(&second.id.as_str()[..20]).unwrap(), second);
    assert!(matches!(state.find("third"), Err(StateError::Unknown(_))));
    assert!(matches!(state.find(""), Err(StateError::Unknown(_))));
}

#[test]
fn refuses_a_name_in_use_and_names_its_holder() {
    let (_dir, home) = home();
    let state = State::open(&home).unwrap();
    let first = made(&home, "web");
    state.add(&first).unwrap();
    let error = state.add(&made(&home, "web")).unwrap_err();
    assert!(error.to_string().contains(first.id.as_str()), "{error}");
    assert!(matches!(error, StateError::NameInUse { .. }));
}

#[test]
fn a_box_without_a_lock_holder_has_exited_with_137() {
    let (_dir, home) = home();
    let state = State::open(&home).unwrap();
    let (alive, died) = (made(&home, "alive"), made(&home, "died"));
    for record in [&alive, &died] {
        state.add(record).unwrap();
        started(&state, record, 5);
    }
    let _lock = BoxLock::take(&home.box_folder(&alive.id)).unwrap();
    state.reconcile(&home, 9).unwrap();
    assert_eq!(state.find("alive").unwrap().state, BoxState::Running);
    let died = state.find("died").unwrap();
    assert_eq!((died.state, died.exit_code, died.finished), (BoxState::Exited, Some(137), Some(9)));
    assert_eq!(died.error.as_deref(), Some("supervisor died"));
}

#[test]
fn only_what_runs_is_paused_and_a_paused_box_without_a_lock_holder_has_exited() {
    let (_dir, home) = home();
    let state = State::open(&home).unwrap();
    let record = made(&home, "held");
    state.add(&record).unwrap();
    assert!(state.set_paused(&record.id, true).is_err());
    started(&state, &record, 5);
    assert!(state.set_paused(&record.id, false).is_err());
    state.set_paused(&record.id, true).unwrap();
    assert!(state.set_paused(&record.id, true).is_err());
    assert_eq!(state.find("held").unwrap().state, BoxState::Paused);
    state.reconcile(&home, 9).unwrap();
    assert_eq!(
        (state.find("held").unwrap().state, state.find("held").unwrap().exit_code),
        (BoxState::Exited, Some(137))
    );
}

#[test]
fn a_dead_box_made_with_rm_leaves_nothing() {
    let (_dir, home) = home();
    let state = State::open(&home).unwrap();
    let mut record = made(&home, "gone");
    record.options.remove = true;
    state.add(&record).unwrap();
    started(&state, &record, 5);
    state.reconcile(&home, 9).unwrap();
    assert!(state.all().unwrap().is_empty());
    assert!(!home.box_folder(&record.id).exists());
}

#[test]
fn an_orderly_end_is_not_overwritten() {
    let (_dir, home) = home();
    let state = State::open(&home).unwrap();
    let record = made(&home, "done");
    state.add(&record).unwrap();
    started(&state, &record, 5);
    state.ended(&record.id, &Ending { exit_code: 3, ..Ending::default() }, 7).unwrap();
    state.reconcile(&home, 9).unwrap();
    let found = state.find("done").unwrap();
    assert_eq!((found.exit_code, found.finished, found.error), (Some(3), Some(7), None));
}

/// What the key broker said, and what the host tells of it.
fn refusal() -> Reason {
    Reason { code: "not-released".into(), denial_id: Some("00000000000000ab".into()) }
}

#[test]
fn why_a_start_was_refused_is_kept_also_of_a_box_that_goes() {
    let (_dir, home) = home();
    let state = State::open(&home).unwrap();
    let (stays, goes) = (made(&home, "stays"), made(&home, "goes"));
    let reason = refusal();
    let how = Ending { exit_code: 125, error: Some("released no secret"), reason: Some(&reason) };
    for record in [&stays, &goes] {
        state.add(record).unwrap();
        started(&state, record, 5);
    }
    state.ended(&stays.id, &how, 7).unwrap();
    state.remove_and_remember(&goes.id, &how, 8).unwrap();
    let found = state.find("stays").unwrap();
    assert_eq!((found.state, found.reason), (BoxState::Exited, Some(refusal())));
    assert!(matches!(state.find("goes"), Err(StateError::Unknown(_))), "it is gone");
    let found = state.find_even_removed(&goes.id.as_str()[..12]).unwrap();
    assert_eq!((found.state, found.exit_code, found.reason), (BoxState::Removed, Some(125), Some(refusal())));
    assert_eq!((found.finished, found.vmm_pid), (Some(8), None));

    // Its name is free, and a box that has it is the one that is meant.
    let again = made(&home, "goes");
    state.add(&again).unwrap();
    assert_eq!(state.find_even_removed("goes").unwrap().id, again.id);
    // The next start begins without the last one's refusal.
    started(&state, &stays, 9);
    assert_eq!(state.find("stays").unwrap().reason, None);
}

#[test]
fn of_boxes_that_went_the_last_hundred_are_known() {
    let (_dir, home) = home();
    let state = State::open(&home).unwrap();
    for at in 0..i64::from(REMEMBERED) + 3 {
        let record = record("fails");
        state.add(&record).unwrap();
        state.remove_and_remember(&record.id, &Ending { exit_code: 125, ..Ending::default() }, at).unwrap();
    }
    let kept = state.removed().unwrap();
    assert_eq!(kept.len(), REMEMBERED as usize);
    assert!(kept.iter().all(|record| record.finished >= Some(3)), "the oldest go first");
}

#[test]
fn a_database_of_the_first_version_is_brought_up_to_date_with_its_boxes() {
    let (_dir, home) = home();
    let db = Connection::open(home.database()).unwrap();
    db.pragma_update(None, "journal_mode", "wal").unwrap();
    db.execute_batch(&format!("{} pragma user_version = 1;", STEPS[0])).unwrap();
    let options = json(&options());
    let old = "insert into boxes values (?1, 'old', 'busybox', 'exited', null, null, 1, 2, 3, 7, null, ?2, '{\"origin_unix_us\":0,\"steps\":[]}')";
    db.execute(old, params![BoxId::random().as_str(), options]).unwrap();
    drop(db);
    let state = State::open(&home).unwrap();
    let found = state.find("old").unwrap();
    assert_eq!((found.exit_code, found.reason), (Some(7), None));
    assert!(state.networks().unwrap().is_empty() && found.options.networks.is_empty());
    state.ended(&found.id, &Ending { exit_code: 125, error: None, reason: Some(&refusal()) }, 9).unwrap();
    assert_eq!(State::open(&home).unwrap().find("old").unwrap().reason, Some(refusal()));
}

#[test]
fn a_full_disk_gets_its_hint_whatever_sqlite_calls_it() {
    for (code, full) in [
        (ffi::SQLITE_FULL, true),
        (ffi::SQLITE_IOERR_SHMSIZE, true),
        (ffi::SQLITE_IOERR, false),
        (ffi::SQLITE_BUSY, false),
    ] {
        let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        let failure = Failure::from(StateError::from(error));
        assert_eq!(failure.hint.is_some(), full, "{code}: {failure}");
        assert_eq!(failure.class, Class::Config);
    }
}

#[test]
fn threads_that_open_a_fresh_home_at_once_all_succeed() {
    for _ in 0..50 {
        let dir = tempfile::tempdir().unwrap();
        let barrier = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for n in 0..4 {
                let (root, barrier) = (dir.path().join("home"), &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let home = Home::open(&root).unwrap();
                    let state = State::open(&home).unwrap();
                    state.add(&made(&home, &format!("box{n}"))).unwrap();
                });
            }
        });
        let home = Home::open(&dir.path().join("home")).unwrap();
        assert_eq!(State::open(&home).unwrap().all().unwrap().len(), 4);
    }
}

#[test]
fn a_database_of_a_later_version_is_refused_by_name_and_left_alone() {
    let (_dir, home) = home();
    State::open(&home).unwrap().db.pragma_update(None, "user_version", VERSION + 1).unwrap();
    let failure = Failure::from(State::open(&home).unwrap_err());
    assert!(failure.message.contains(&format!("version {}", VERSION + 1)), "{failure}");
    assert!(failure.hint.unwrap().contains("--home"));
}

#[test]
fn a_box_recorded_before_isolation_and_launch_form_were_is_one_of_qemu() {
    let mut options = serde_json::to_value(options()).unwrap();
    for later in ["isolation", "launch"] {
        options.as_object_mut().unwrap().remove(later).unwrap();
    }
    let options: BoxOptions = serde_json::from_value(options).unwrap();
    assert_eq!(options.isolation, crate::monitor::Isolation::Qemu);
    assert_eq!(options.launch.word(), "reset-vector");
}
