//! Audit archives: made while the broker serves, looked at with it, edited, mixed up, and killed at any moment.

use crate::common;
use std::{
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::common::{Guest, Kbs, PATH, VALUE, ask, refused};
use coffer_kbs::{AuditEntry, State, open_store};
use coffer_kbs_client::AuditQuery;

fn run(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_coffer-kbs")).args(words).stdin(Stdio::null()).output().unwrap()
}

fn good(words: &[&str]) -> String {
    let output = run(words);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Fails with this code and word.
fn bad(words: &[&str], code: i32, word: &str) {
    let output = run(words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
    assert!(said.contains(word), "{words:?}: {said}");
}

/// In the background, while this process serves.
async fn beside(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let task = tokio::task::spawn_blocking(move || good(&words.iter().map(String::as_str).collect::<Vec<_>>()));
    task.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_lines_go_into_files_while_the_broker_serves_and_all_of_it_holds_together() {
    let kbs = Kbs::start().await;
    let admin = kbs.admin().await;
    let guest = Guest::usual();
    kbs.put(PATH, true).await;
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let client = kbs.connect(guest).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    let old = refused(ask(&client, "kbs:///default/app/none").await);
    let state = kbs.state().display().to_string();
    let file = |name: &str| kbs.folder.path().join(name).display().to_string();
    let (one, two) = (file("one.jsonl"), file("two.jsonl"));

    // Others write meanwhile.
    let serving = async {
        for _ in 0..10 {
            kbs.put("kbs:///default/app/other", false).await;
            assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
        }
    };
    let words = ["--json", "audit", "archive", "--state", &state, "--keep", "0", "--out", &one];
    let (made, ()) = tokio::join!(beside(&words), serving);
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let first_end = made["last"].as_u64().unwrap();
    assert!(made["first"] == 1 && first_end >= 4 && made["inputs"].as_u64() >= Some(1), "{made}");
    let text = std::fs::read_to_string(&one).unwrap();
    assert!(text.contains("input_of") && !text.contains("correct horse"));
    bad(&["audit", "archive", "--state", &state, "--keep", "0", "--out", &one], 3, "archive");
    assert_eq!(std::fs::read_to_string(&one).unwrap(), text, "one that is there stays");
    for _ in 0..3 {
        kbs.put(PATH, true).await;
    }
    beside(&["audit", "archive", "--state", &state, "--keep", "2", "--out", &two]).await;

    // The broker knows where older lines are, and goes on releasing.
    let found = admin.audit_find(&AuditQuery { newest: true, ..AuditQuery::default() }, 1000).await.unwrap();
    assert!(found.lines.last().unwrap().contains("secret.put"), "two lines were kept: {:?}", found.lines);
    let said: Vec<_> = found.archived.iter().map(ToString::to_string).collect();
    assert_eq!(said[0], format!("lines 1 to {first_end} in one.jsonl"));
    assert!(said.len() == 2 && said[1].ends_with("in two.jsonl"), "{said:?}");
    assert_eq!(admin.decision_found(None, &old).await.unwrap().unwrap_err().len(), 2);
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    let page = admin.audit_page(&AuditQuery::default(), 1000).await.unwrap();
    assert!(page.start > first_end && page.lines[0].contains(&hex::encode(&page.previous)));

    let verify = ["audit", "verify", "--state", &state];
    let alone = beside(&verify).await;
    assert!(alone.contains(&format!("lines 1 to {} are archived", page.start - 1)), "{alone}");
    let all = beside(&[&verify[..], &["--archive", &two, &one]].concat()).await;
    assert!(all.contains("are in 2 archives, each as it was written"), "{all}");
    assert!(beside(&["state", "verify", "--state", &state]).await.contains("are archived"));
    let log = file("log");
    std::fs::write(&log, kbs.lines.lock().unwrap().join("\n") + "\n").unwrap();
    bad(&[&verify[..], &["--log", &log]].concat(), 3, "are archived, and were not compared");
    let compared = beside(&[&verify[..], &["--log", &log, "--archive", &one, &two]].concat()).await;
    let count = kbs.lines.lock().unwrap().len();
    assert!(compared.contains(&format!("{count} lines of")) && !compared.contains("not compared"), "{compared}");
    let folder = kbs.stop().await;
    State::open(&folder.path().join("state")).await.unwrap();
}

async fn with_lines(state: &Path, count: usize) {
    let store = open_store(state).await.unwrap();
    let mut ledger = store.write().await.unwrap();
    for number in 0..count {
        let entry =
            AuditEntry { event: "test", outcome: "done", id: format!("{number:016x}"), ..AuditEntry::default() };
        ledger.append_audit(&entry, 86_400 * i64::try_from(number).unwrap()).await.unwrap();
    }
    ledger.commit().await.unwrap();
    store.settle().await.unwrap();
}

fn folder_with(name: &str, folder: &Path) -> String {
    let state = folder.join(name).display().to_string();
    good(&["init", "--state", &state, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    state
}

#[tokio::test]
async fn an_archive_that_is_missing_edited_mixed_up_or_anothers_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (state, other) = (folder_with("state", folder.path()), folder_with("other", folder.path()));
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (one, two, foreign) = (file("one"), file("two"), file("foreign"));
    with_lines(Path::new(&other), 4).await;
    with_lines(Path::new(&state), 20).await;
    bad(&["audit", "archive", "--state", &state, "--before", "1969-01-01", "--out", &one], 3, "nothing to archive");
    bad(&["audit", "archive", "--state", &state, "--keep", "20", "--out", &one], 3, "nothing to archive");
    assert!(!Path::new(&one).exists());
    // Line 6 is of the sixth day.
    good(&["audit", "archive", "--state", &state, "--before", "1970-01-06", "--out", &one]);
    good(&["audit", "archive", "--state", &state, "--before", "1970-01-09T12:00:00Z", "--out", &two]);
    good(&["audit", "archive", "--state", &other, "--keep", "0", "--out", &foreign]);
    let ends = |file: &str| std::fs::read_to_string(file).unwrap().lines().last().unwrap().to_owned();
    assert!(
        ends(&one).contains("\"lines\":5,") && ends(&two).starts_with("{\"first\":6,"),
        "{} {}",
        ends(&one),
        ends(&two)
    );

    fn with<'a>(state: &'a str, files: &[&'a str]) -> Vec<&'a str> {
        [&["audit", "verify", "--state", state, "--archive"], files].concat()
    }
    let (copy, log) = (file("copy"), file("log"));
    good(&with(&state, &[&one, &two]));
    good(&with(&state, &[&two, &one]));
    bad(&with(&state, &[&one]), 5, "the archive of lines 6 to 9 is missing: it was written as two");
    bad(&with(&state, &[&one, &one, &two]), 3, "given twice");
    bad(&with(&state, &[&one, &foreign]), 5, "no archive that this database knows");
    let whole = std::fs::read_to_string(&two).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let forms = [
        (whole.replacen("\"outcome\":\"done\"", "\"outcome\":\"gone\"", 1), "does not hold"),
        ([lines[1], lines[0], lines[2], lines[3], lines[4]].join("\n") + "\n", "does not hold"),
        (lines[1..].join("\n") + "\n", "does not hold"),
        (lines[..4].join("\n") + "\n", "does not hold"),
        ([&lines[..3], &lines[4..]].concat().join("\n") + "\n", "does not hold"),
        (whole.trim_end().to_owned(), "is not as it was written"),
        ("x".repeat(2 << 20), "archive"),
    ];
    for (form, word) in forms {
        std::fs::write(&two, form).unwrap();
        bad(&with(&state, &[&one, &two]), if word == "archive" { 3 } else { 5 }, word);
    }
    // Two archives under each other's names are still these two; a later one in place of an earlier is not.
    std::fs::write(&two, &whole).unwrap();
    std::fs::copy(&two, &copy).unwrap();
    bad(&with(&state, &[&two, &copy]), 3, "given twice");
    // An archive made from another history of the same lines.
    std::fs::write(&log, whole.replacen("\"outcome\":\"done\"", "\"outcome\":\"gone\"", 1)).unwrap();
    bad(&[&with(&state, &[&one, &two])[..], &["--log", &log]].concat(), 5, "of the log is not in the archives");
    bad(&["audit", "verify", "--state", &state, "--log", &log], 3, "give the archives too");
}

#[tokio::test]
async fn killed_at_any_moment_every_line_is_in_the_database_or_in_an_archive() {
    let seed = common::seed();
    let mut random = common::random(seed);
    let folder = tempfile::tempdir().unwrap();
    let state = folder_with("state", folder.path());
    let path = Path::new(&state);
    with_lines(path, 3000).await;
    let file = |number: usize| folder.path().join(format!("a{number}")).display().to_string();
    let began = Instant::now();
    good(&["audit", "archive", "--state", &state, "--keep", "1500", "--out", &file(0)]);
    let whole = began.elapsed();
    let (mut known, mut cut_off) = (vec![file(0)], 0);
    for round in 1..=common::rounds(25) {
        with_lines(path, 1500).await;
        let words = ["audit", "archive", "--state", &state, "--keep", "1500", "--out", &file(round)];
        let mut child =
            Command::new(env!("CARGO_BIN_EXE_coffer-kbs")).args(words).stdout(Stdio::null()).spawn().unwrap();
        let micros = usize::try_from(whole.as_micros()).unwrap() * 11 / 10;
        tokio::time::sleep(Duration::from_micros(random(micros) as u64)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let said = |error| panic!("round {round} of seed {seed}: {error:?}");
        let store = open_store(path).await.unwrap_or_else(said);
        let recorded = store.read().await.unwrap().archives().await.unwrap().len();
        let here = store.verify_audit().await.unwrap();
        assert_eq!(store.verify_state().await.unwrap().faults, [], "round {round} of seed {seed}");
        if recorded > known.len() {
            known.push(file(round));
        } else {
            cut_off += 1;
        }
        assert_eq!(recorded, known.len());
        assert_eq!(here.lines, 3000 + 1500 * round as u64 + recorded as u64, "round {round} of seed {seed}");
        if round % 5 == 0 {
            drop(State::open(path).await.unwrap());
        }
    }
    // What was cut off is made good by the next.
    let last = file(999);
    good(&["audit", "archive", "--state", &state, "--keep", "10", "--out", &last]);
    known.push(last);
    let archives: Vec<&str> = known.iter().map(String::as_str).collect();
    good(&[&["audit", "verify", "--state", &state, "--archive"], &archives[..]].concat());
    let store = open_store(path).await.unwrap();
    assert_eq!(store.read().await.unwrap().audit_lines(1, 10_000).await.unwrap().len(), 11);
    eprintln!("{} archived, {cut_off} cut off before", known.len());
}

#[tokio::test]
async fn a_gap_in_the_trail_stops_archives_and_backups_until_an_owner_accepts_it() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder_with("state", folder.path());
    with_lines(Path::new(&state), 6).await;
    let file = |name: &str| folder.path().join(name).display().to_string();
    let database = rusqlite::Connection::open(Path::new(&state).join("kbs.db")).unwrap();
    let lines: i64 =
        database.query_row("SELECT count(*) FROM rows WHERE kind = 'audit-line'", [], |row| row.get(0)).unwrap();
    assert!(lines >= 6);
    let remove = "DELETE FROM rows WHERE kind = 'audit-line' AND key IN (x'0000000000000002', x'0000000000000003')";
    assert_eq!(database.execute(remove, []).unwrap(), 2);
    drop(database);
    let (one, two) = (file("one.jsonl"), file("kbs.backup"));
    let archived = ["audit", "archive", "--state", &state, "--keep", "1", "--out", &one];
    let backed_up = ["backup", "--state", &state, "--out", &two];
    bad(&archived, 5, "line 2 is missing");
    bad(&backed_up, 5, "lost: lines 2 to 3");
    let repair = ["state", "repair", "--state", &state, "--give-up-what-is-damaged"];
    bad(&repair, 5, "1 thing is left");
    bad(&["state", "verify", "--state", &state], 5, "");
    let said = run(&["state", "verify", "--state", &state]);
    assert!(String::from_utf8_lossy(&said.stdout).contains("--accept-lost-audit-lines"));
    let said = good(&[&repair[..], &["--accept-lost-audit-lines"]].concat());
    assert!(said.contains("lines 2 to 3"), "{said}");
    let verified = good(&["audit", "verify", "--state", &state]);
    assert!(verified.contains("2 of them are lost"), "{verified}");
    good(&backed_up);
    good(&archived);
    good(&["audit", "verify", "--state", &state, "--archive", &one]);
    let whole = std::fs::read_to_string(&one).unwrap();
    assert!(whole.contains("\"event\":\"audit.lost\"") && whole.contains("\"stands_for\""), "{whole}");
    // With its record the SHA-256 of the file is gone: what lies before the gap hangs from nothing in the file.
    let record = "UPDATE rows SET mac = zeroblob(32) WHERE kind = 'audit-archive'";
    assert_eq!(rusqlite::Connection::open(Path::new(&state).join("kbs.db")).unwrap().execute(record, []).unwrap(), 1);
    good(&repair);
    bad(&["audit", "verify", "--state", &state, "--archive", &one], 5, "stands in the place of one that is lost");
}
