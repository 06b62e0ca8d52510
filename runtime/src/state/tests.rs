use rusqlite::ffi;

use super::*;
use crate::boxes::tests::options;

fn home() -> (tempfile::TempDir, Home) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::open(dir.path().join("home").as_path()).unwrap();
    (dir, home)
}

fn made(home: &Home, name: &str) -> BoxRecord {
    let id = BoxId::random();
    crate::home::private_folder(&home.box_folder(&id)).unwrap();
    BoxRecord {
        id,
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
        state.supervised(&record.id, 1, 5).unwrap();
    }
    let _lock = BoxLock::take(&home.box_folder(&alive.id)).unwrap();
    state.reconcile(&home, 9).unwrap();
    assert_eq!(state.find("alive").unwrap().state, BoxState::Running);
    let died = state.find("died").unwrap();
    assert_eq!((died.state, died.exit_code, died.finished), (BoxState::Exited, Some(137), Some(9)));
    assert_eq!(died.error.as_deref(), Some("supervisor died"));
}

#[test]
fn a_dead_box_made_with_rm_leaves_nothing() {
    let (_dir, home) = home();
    let state = State::open(&home).unwrap();
    let mut record = made(&home, "gone");
    record.options.remove = true;
    state.add(&record).unwrap();
    state.supervised(&record.id, 1, 5).unwrap();
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
    state.supervised(&record.id, 1, 5).unwrap();
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
