use rusqlite::ffi;

use super::*;
use crate::boxes::tests::options;

fn home() -> (tempfile::TempDir, Home) {
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
        options: options(),
        timings: Timings::default(),
    }
}

fn made(home: &Home, name: &str) -> BoxRecord {
    let record = record(name);
    crate::home::private_folder(&home.box_folder(&record.id)).unwrap();
    record
}

fn started(state: &State, record: &BoxRecord, now: i64) {
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
    assert!(state.set_options(&record.id, &record.options).is_err(), "it is up");
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
    state.ended(&record.id, 3, None, 7).unwrap();
    state.reconcile(&home, 9).unwrap();
    let found = state.find("done").unwrap();
    assert_eq!((found.exit_code, found.finished, found.error), (Some(3), Some(7), None));
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
    assert!(failure.message.contains("version 2"), "{failure}");
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
