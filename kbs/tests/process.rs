//! The program itself: what it prints, where it refuses, and that it stops when told to.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

fn coffer_kbs(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coffer-kbs"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    coffer_kbs(arguments).output().unwrap()
}

fn made() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state").display().to_string();
    let any = "127.0.0.1:0";
    assert!(run(&["init", "--state", &state, "--listen", any, "--admin-listen", any]).status.success());
    (folder, state)
}

/// A running server, and the line with which it said so.
struct Serving(Child, serde_json::Value);

impl Serving {
    fn start(state: &str, ready: &Path) -> Self {
        let ready = ready.display().to_string();
        let mut child = coffer_kbs(&["--json", "serve", "--state", state, "--ready-file", &ready])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self(child, serde_json::from_str(&line).unwrap())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn tells_its_real_addresses_holds_its_folder_and_stops_on_sigterm() {
    let (folder, state) = made();
    let ready = folder.path().join("ready.json");
    let mut serving = Serving::start(&state, &ready);
    let written: serde_json::Value = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
    assert_eq!(written, serving.1);
    let pin: serde_json::Value = serde_json::from_slice(&run(&["--json", "pin", "--state", &state]).stdout).unwrap();
    assert_eq!(written["pin"], pin["pin"]);
    let address = written["listen"].as_str().unwrap();
    assert!(!address.ends_with(":0"));

    let second = run(&["serve", "--state", &state]);
    assert_eq!(second.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use by another coffer-kbs"));

    let (_other, other_state) = made();
    let taken = run(&["serve", "--state", &other_state, "--listen", address]);
    assert_eq!(taken.status.code(), Some(3));
    let message = String::from_utf8_lossy(&taken.stderr).into_owned();
    assert!(message.contains(address) && message.contains("hint: another program has that port"), "{message}");

    assert!(run(&["audit", "verify", "--state", &state]).status.success(), "also beside a running server");
    assert!(Command::new("kill").args(["-TERM", &serving.0.id().to_string()]).status().unwrap().success());
    assert_eq!(serving.0.wait().unwrap().code(), Some(0));
}

#[test]
fn init_overwrites_nothing() {
    let (_folder, state) = made();
    let before = run(&["pin", "--state", &state]).stdout;
    let again = run(&["--json", "init", "--state", &state]);
    assert_eq!(again.status.code(), Some(3));
    let error: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(error["error"]["class"], "config");
    assert_eq!(run(&["pin", "--state", &state]).stdout, before);
}

#[test]
fn each_mistake_of_a_configuration_has_a_line_and_an_entry() {
    let (_folder, state) = made();
    let path = Path::new(&state).join("config.toml");
    std::fs::write(&path, "listen = 4480\nskip_checks = true\n[limits]\nconnections = \"all\"\n").unwrap();
    let said = String::from_utf8(run(&["serve", "--state", &state]).stderr).unwrap();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], "coffer-kbs: configuration has 4 mistakes", "{said}");
    let listed: serde_json::Value =
        serde_json::from_slice(&run(&["--json", "serve", "--state", &state]).stdout).unwrap();
    let found: serde_json::Value =
        serde_json::from_slice(&run(&["--json", "doctor", "--state", &state]).stdout).unwrap();
    for road in ["admin_listen is missing", "listen: ", "skip_checks: ", "limits.connections: "] {
        let own = |line: &&&str| line.strip_prefix("  ").is_some_and(|line| line.starts_with(road));
        assert_eq!(lines.iter().filter(own).count(), 1, "{road}: {said}");
        let entries = listed["error"]["mistakes"].as_array().unwrap();
        assert_eq!(entries.iter().filter(|one| one.as_str().unwrap().starts_with(road)).count(), 1, "{listed}");
        assert!(found.to_string().contains(&format!("\"configuration: {road}")), "{found}");
    }
}

#[test]
fn wrong_use_is_answered_with_the_documented_codes() {
    assert_eq!(run(&["serve"]).status.code(), Some(2));
    let missing = run(&["serve", "--state", "/nonexistent"]);
    assert_eq!(missing.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("coffer-kbs init"));
    let (_folder, state) = made();
    let anchor = run(&["serve", "--state", &state, "--allow-simulated", "no-such-file", "--tenant", "a"]);
    assert_eq!(anchor.status.code(), Some(3));
    assert_eq!(run(&["serve", "--state", &state, "--allow-simulated", "00"]).status.code(), Some(2));
}

#[test]
fn with_json_whatever_comes_of_a_line_is_one_document() {
    let (folder, state) = made();
    let out = folder.path().join("out").display().to_string();
    for (words, code, says) in [
        (&["serve"][..], 2, "--state <DIR>"),
        (&["nosuch"], 2, "unrecognized subcommand 'nosuch'"),
        (&["srve"], 2, "unrecognized subcommand 'srve'"),
        (&["backup", "--state", &state], 2, "--out <FILE>"),
        (&["audit"], 2, "a command is missing"),
        (&[], 2, "a command is missing"),
        (&["init", "--state", &out, "--listen", "localhost:4480"], 2, "expected IP:PORT"),
        (&["server-key", "next", "--state", &state, "--listener", "nobody"], 2, "'nobody'"),
        (&["server-key", "switch", "--state", &state, "--listener", "guests"], 3, "no next key waits"),
        (&["pin", "--state", "/nonexistent"], 3, "/nonexistent"),
    ] {
        let answer = run(&[&["--json"], words].concat());
        assert_eq!(answer.status.code(), Some(code), "{words:?}");
        let document: serde_json::Value = serde_json::from_slice(&answer.stdout).expect("one document");
        let error = &document["error"];
        assert_eq!(error["class"], if code == 2 { "usage" } else { "config" }, "{words:?}: {document}");
        assert!(error["message"].as_str().unwrap().contains(says), "{words:?}: {document}");
        assert!(error["hint"].is_string(), "{words:?}: {document}");
        // The same line without it is for people, and says nothing on standard output.
        let text = run(words);
        assert_eq!((text.status.code(), text.stdout.len()), (Some(code), 0), "{words:?}");
        assert!(!text.stderr.is_empty(), "{words:?}");
    }
    let near: serde_json::Value = serde_json::from_slice(&run(&["--json", "srve"]).stdout).unwrap();
    assert!(near["error"]["hint"].as_str().unwrap().contains("'serve'"), "{near}");
    for words in [&["--json", "--help"][..], &["serve", "--help", "--json"], &["--json", "help", "audit", "verify"]] {
        let help = run(words);
        assert!(help.status.success(), "{words:?}");
        let help: serde_json::Value = serde_json::from_slice(&help.stdout).expect("one document");
        assert!(help["help"].as_str().unwrap().contains("Examples:"), "{words:?}: {help}");
    }
    let version: serde_json::Value = serde_json::from_slice(&run(&["--json", "--version"]).stdout).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn a_listeners_key_is_made_shown_and_switched_to_by_command() {
    let (folder, state) = made();
    let json = |words: &[&str]| {
        let answer = run(&[&["--json"], words, &["--state", &state]].concat());
        assert!(answer.status.success(), "{words:?}: {}", String::from_utf8_lossy(&answer.stderr));
        serde_json::from_slice::<serde_json::Value>(&answer.stdout).expect("one document")
    };
    let doctor = || String::from_utf8(run(&["doctor", "--state", &state]).stdout).unwrap();
    let before = json(&["server-key", "show"]);
    assert_eq!(
        (&before["guests"]["present"], &before["guests"]["next"]),
        (&json(&["pin"])["pin"], &serde_json::Value::Null)
    );
    assert!(!doctor().contains("a next key waits"));
    for whose in ["guests", "operators"] {
        let made = json(&["server-key", "next", "--listener", whose]);
        assert_eq!(made["present"], before[whose]["present"]);
        assert_eq!(
            json(&["server-key", "show"])[whose],
            serde_json::json!({ "present": made["present"], "next": made["next"] })
        );
        let waits = format!("a next key waits for the {whose}' listener: {}", made["next"].as_str().unwrap());
        assert!(doctor().contains(&waits), "{}", doctor());
        let again = run(&["server-key", "next", "--state", &state, "--listener", whose]);
        assert_eq!(again.status.code(), Some(3));
        assert!(String::from_utf8_lossy(&again.stderr).contains("a next key waits already"));
    }
    let waiting = json(&["server-key", "show"]);
    assert_eq!(json(&["pin"])["next"], waiting["guests"]["next"]);

    // A backup that makes a whole folder has the keys that somebody may pin already.
    let (recovery, out) =
        (folder.path().join("recovery.key").display().to_string(), folder.path().join("out").display().to_string());
    let again = folder.path().join("again").display().to_string();
    assert!(run(&["recovery-key", "--out", &recovery]).status.success());
    let public = format!("{recovery}.pub");
    assert!(run(&["backup", "--state", &state, "--out", &out, "--recovery-key", &public]).status.success());
    let restore = ["restore", "--state", &again, "--from", &out, "--recovery-key", &recovery, "--accept-rollback"];
    assert!(run(&restore).status.success());
    let restored = run(&["--json", "server-key", "show", "--state", &again]);
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&restored.stdout).unwrap(), waiting);

    for whose in ["guests", "operators"] {
        let switched = json(&["server-key", "switch", "--listener", whose]);
        assert_eq!((&switched["former"], &switched["present"]), (&waiting[whose]["present"], &waiting[whose]["next"]));
    }
    assert!(!doctor().contains("a next key waits"));
    let serving = Serving::start(&state, &folder.path().join("ready.json"));
    assert_eq!(serving.1["pin"], waiting["guests"]["next"]);
}

#[test]
fn a_tenant_that_a_flag_or_the_configuration_mistypes_is_not_made() {
    let (folder, state) = made();
    let anchor = "ab".repeat(32);
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let typo = run(&["serve", "--state", &state, "--allow-simulated", &anchor, "--tenant", "defualt"]);
    assert_eq!(typo.status.code(), Some(3), "{}", said(&typo));
    let text = said(&typo);
    assert!(text.contains("--tenant: there is no tenant defualt; there are: default"), "{text}");
    assert!(text.contains("coffer kbs tenant add"), "{text}");

    let config = Path::new(&state).join("config.toml");
    let written = std::fs::read_to_string(&config).unwrap();
    let socket = format!("{written}\n[admin_socket]\nrole = \"operator\"\ntenant = \"amce\"\n");
    std::fs::write(&config, &socket).unwrap();
    let typo = run(&["serve", "--state", &state]);
    assert_eq!(typo.status.code(), Some(3));
    assert!(said(&typo).contains("admin_socket.tenant: there is no tenant amce"), "{}", said(&typo));
    let examined = run(&["doctor", "--state", &state]);
    assert_eq!(examined.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&examined.stdout).contains("no tenant amce"));
    std::fs::write(&config, format!("{socket}\n[tenants.amce]\n")).unwrap();
    assert!(served_once(&state, folder.path()).success(), "one that is listed is there");
}

#[test]
fn audit_verify_tells_a_changed_trail() {
    let (_folder, state) = made();
    let database = rusqlite::Connection::open(Path::new(&state).join("kbs.db")).unwrap();
    assert_eq!(database.execute("UPDATE rows SET body = zeroblob(88) WHERE kind = 'head'", []).unwrap(), 1);
    let found = run(&["audit", "verify", "--state", &state]);
    assert_eq!(found.status.code(), Some(5));
}

/// What somebody does to the database between two runs of the server.
fn database(state: &str) -> std::path::PathBuf {
    Path::new(state).join("kbs.db")
}

/// Serves once, so that the trail grows by nothing but the database is closed well.
fn served_once(state: &str, folder: &Path) -> std::process::ExitStatus {
    let mut serving = Serving::start(state, &folder.join("ready.json"));
    assert!(Command::new("kill").args(["-TERM", &serving.0.id().to_string()]).status().unwrap().success());
    serving.0.wait().unwrap()
}

#[test]
fn a_whole_older_database_is_refused_until_somebody_accepts_it_by_name() {
    let (folder, state) = made();
    let older = std::fs::read(database(&state)).unwrap();
    let kept = std::fs::read(Path::new(&state).join("checkpoint")).unwrap();
    // Something happens: an older state is accepted, although it is the newest, which is a change like any other.
    assert!(run(&["restore", "--state", &state, "--accept-rollback"]).status.success());
    assert!(served_once(&state, folder.path()).success());
    std::fs::write(database(&state), &older).unwrap();
    for words in [
        &["serve", "--state", &state][..],
        &["state", "verify", "--state", &state],
        &["audit", "verify", "--state", &state],
    ] {
        let refused = run(words);
        assert_eq!(refused.status.code(), Some(5), "{words:?}");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            said.contains("older than its checkpoint") && said.contains("restore --state DIR --accept-rollback"),
            "{said}"
        );
    }
    let accepted = run(&["--json", "restore", "--state", &state, "--accept-rollback"]);
    let accepted: serde_json::Value = serde_json::from_slice(&accepted.stdout).unwrap();
    assert_eq!((accepted["epoch"].as_u64(), accepted["seen"]["epoch"].as_u64()), (Some(3), Some(2)));
    assert!(served_once(&state, folder.path()).success());
    assert!(run(&["state", "verify", "--state", &state]).status.success());
    // The checkpoint of then does not fit either: nobody lowers it by putting an old one back.
    std::fs::write(Path::new(&state).join("checkpoint"), &kept).unwrap();
    assert_eq!(run(&["serve", "--state", &state]).status.code(), Some(5));
    std::fs::remove_file(Path::new(&state).join("checkpoint")).unwrap();
    let missing = run(&["serve", "--state", &state]);
    assert_eq!(missing.status.code(), Some(3));
    assert!(run(&["state", "verify", "--state", &state, "--no-checkpoint"]).status.success());
    assert_eq!(run(&["restore", "--state", &state]).status.code(), Some(2), "not without the word");
}

#[test]
fn damage_is_named_and_mended_by_command() {
    let (folder, state) = made();
    assert!(run(&["restore", "--state", &state, "--accept-rollback"]).status.success());
    let connection = rusqlite::Connection::open(database(&state)).unwrap();
    connection.execute("DELETE FROM rows WHERE kind = 'head'", []).unwrap();
    drop(connection);
    assert_eq!(run(&["serve", "--state", &state]).status.code(), Some(5));
    let mended = run(&["state", "repair", "--state", &state, "--give-up-what-is-damaged"]);
    assert!(mended.status.success(), "{}", String::from_utf8_lossy(&mended.stderr));
    assert!(run(&["state", "verify", "--state", &state]).status.success());
    let connection = rusqlite::Connection::open(database(&state)).unwrap();
    connection.execute("UPDATE rows SET body = x'00' WHERE kind = 'restored'", []).unwrap();
    drop(connection);
    let found = run(&["--json", "state", "verify", "--state", &state]);
    assert_eq!(found.status.code(), Some(5));
    let found: serde_json::Value = serde_json::from_slice(&found.stdout).expect("one document");
    assert!(found["faults"][0]["what"].as_str().unwrap().contains("record of the last restore"), "{found}");
    assert_eq!((&found["ok"], &found["error"]["class"]), (&false.into(), &"not-authentic".into()), "{found}");
    let plan = run(&["--json", "state", "repair", "--state", &state]);
    assert_eq!(plan.status.code(), Some(5));
    let plan: serde_json::Value = serde_json::from_slice(&plan.stdout).expect("one document");
    assert!(plan["error"]["hint"].as_str().unwrap().contains("--give-up-what-is-damaged"), "{plan}");
    let examined = run(&["--json", "doctor", "--state", &state]);
    assert_eq!(examined.status.code(), Some(3));
    let examined: serde_json::Value = serde_json::from_slice(&examined.stdout).expect("one document");
    assert_eq!((&examined["ok"], &examined["error"]["class"]), (&false.into(), &"config".into()), "{examined}");
    assert!(served_once(&state, folder.path()).success(), "it stops nothing else");
}

#[test]
fn a_schema_that_could_act_on_its_own_is_refused() {
    for (sql, what) in [
        ("CREATE TRIGGER t AFTER INSERT ON rows BEGIN DELETE FROM rows WHERE kind = 'reference'; END", "trigger t"),
        ("CREATE VIEW v AS SELECT * FROM rows", "view v"),
        ("CREATE INDEX i ON rows (mac)", "index i"),
        ("CREATE TABLE extra (a)", "table extra"),
    ] {
        let (_folder, state) = made();
        rusqlite::Connection::open(database(&state)).unwrap().execute_batch(sql).unwrap();
        let refused = run(&["serve", "--state", &state]);
        assert_eq!(refused.status.code(), Some(5));
        assert!(String::from_utf8_lossy(&refused.stderr).contains(what), "{what}");
    }
}

#[test]
fn a_checkpoint_that_is_something_else_is_refused_and_never_written_over() {
    let (folder, state) = made();
    let inside = |name: &str| Path::new(&state).join(name);
    let written = std::fs::read_to_string(inside("config.toml")).unwrap();
    std::os::unix::fs::symlink("root.key", inside("link")).unwrap();
    std::fs::hard_link(inside("kbs.db"), folder.path().join("same")).unwrap();
    std::fs::write(folder.path().join("notes"), "not a checkpoint").unwrap();
    let names = [
        "root.key",
        "kbs.db",
        "server.pem",
        "config.toml",
        "lock",
        "kbs.db-wal",
        "link",
        "../same",
        "../notes",
        "/dev/full",
    ];
    for name in names {
        std::fs::write(inside("config.toml"), format!("checkpoint = {name:?}\n{written}")).unwrap();
        let all = ["root.key", "kbs.db", "server.pem", "config.toml", "../notes"]
            .map(|name| std::fs::read(inside(name)).unwrap());
        for words in [
            &["serve", "--state", &state][..],
            &["restore", "--state", &state, "--accept-rollback"],
            &["rotate-root", "--state", &state],
            &["state", "repair", "--state", &state, "--give-up-what-is-damaged"],
        ] {
            let refused = run(words);
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert_eq!(refused.status.code(), Some(3), "{name} {words:?}: {said}");
            assert!(
                said.contains("checkpoint") && said.contains(name.trim_start_matches("../")),
                "{name} {words:?}: {said}"
            );
        }
        assert!(
            !String::from_utf8_lossy(&run(&["doctor", "--state", &state]).stdout).contains("accept-rollback"),
            "{name}"
        );
        let after = ["root.key", "kbs.db", "server.pem", "config.toml", "../notes"]
            .map(|name| std::fs::read(inside(name)).unwrap());
        assert!(all == after, "{name}");
    }
    std::fs::write(inside("config.toml"), written).unwrap();
    assert!(served_once(&state, folder.path()).success());
}

#[test]
fn a_pipe_that_the_configuration_names_holds_nobody_up() {
    let (folder, state) = made();
    let config = Path::new(&state).join("config.toml");
    let written = std::fs::read_to_string(&config).unwrap();
    let pipe = folder.path().join("pipe").display().to_string();
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let refused = run(&["serve", "--state", &state, "--config", &pipe]);
    assert_eq!(refused.status.code(), Some(3));
    let mut serving = Serving::start(&state, &folder.path().join("ready.json"));
    for more in [
        ("endorsements = []", format!("endorsements = [{pipe:?}]")),
        ("[policies]", format!("[policies]\nweb = {pipe:?}")),
        ("floor = \"strict\"", format!("floor = {pipe:?}")),
    ] {
        let more = written.replacen(more.0, &more.1, 1);
        assert_ne!(more, written);
        std::fs::write(&config, &more).unwrap();
        let refused = run(&["serve", "--state", &state]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(3) && said.contains("is no regular file"), "{said}");
        assert!(Command::new("kill").args(["-HUP", &serving.0.id().to_string()]).status().unwrap().success());
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(Command::new("kill").args(["-TERM", &serving.0.id().to_string()]).status().unwrap().success());
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while serving.0.try_wait().unwrap().is_none() {
        assert!(std::time::Instant::now() < until, "it waits for somebody to write into a pipe");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn bytes_behind_a_backup_and_keys_that_came_to_nothing_are_named() {
    let (folder, state) = made();
    let out = folder.path().join("backup").display().to_string();
    assert!(run(&["backup", "--state", &state, "--out", &out]).status.success());
    let whole = std::fs::read(&out).unwrap();
    for (bytes, words) in [
        ([&whole[..], b"more"].concat(), "bytes behind the end"),
        (whole[..whole.len() - 1].to_vec(), "the rest of it is missing"),
    ] {
        std::fs::write(&out, bytes).unwrap();
        let refused = run(&["restore", "--state", &state, "--from", &out, "--accept-rollback"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(3) && said.contains(words), "{said}");
    }
    std::fs::write(Path::new(&state).join("root.key.unused-1700000000"), "x").unwrap();
    let examined = run(&["doctor", "--state", &state]);
    assert!(String::from_utf8_lossy(&examined.stdout).contains("root.key.unused-1700000000"));
}

#[test]
fn another_configuration_names_no_other_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state").display().to_string();
    assert!(run(&["init", "--state", &state]).status.success());
    let (other, own) =
        (folder.path().join("other.toml"), std::fs::read_to_string(format!("{state}/config.toml")).unwrap());
    // The last key before any table.
    std::fs::write(&other, format!("checkpoint = \"{}\"\n{own}", folder.path().join("elsewhere").display())).unwrap();
    let refused = run(&["serve", "--state", &state, "--config", &other.display().to_string()]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(3), "{said}");
    assert!(said.contains("elsewhere") && said.contains("give both the same `checkpoint`"), "{said}");
}

#[test]
fn a_ready_file_takes_the_place_of_a_ready_file_and_of_nothing_else() {
    let (folder, state) = made();
    for name in ["root.key", "kbs.db", "config.toml", "checkpoint"] {
        let path = format!("{state}/{name}");
        let before = std::fs::read(&path).unwrap();
        let said = run(&["serve", "--state", &state, "--ready-file", &path]);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.status.success() && text.contains("is no ready file"), "{name}: {text}");
        if name != "kbs.db" {
            assert_eq!(std::fs::read(&path).unwrap(), before, "{name} was touched");
        }
    }
    // Of a server that was killed.
    let ready = folder.path().join("ready.json");
    let mut killed = Serving::start(&state, &ready);
    killed.0.kill().unwrap();
    killed.0.wait().unwrap();
    assert!(ready.exists());
    let next = Serving::start(&state, &ready);
    let written: serde_json::Value = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
    assert_eq!(written, next.1);
}

#[test]
fn nothing_is_written_where_the_broker_will_write() {
    let (_folder, state) = made();
    for (words, name) in [
        (&["audit", "archive", "--keep", "0"][..], "kbs.db-journal"),
        (&["audit", "archive", "--keep", "0"], "root.key.next"),
        (&["backup"], "kbs.db-journal"),
        (&["backup"], "server.pem.next"),
    ] {
        let out = format!("{state}/{name}");
        let said = run(&[words, &["--state", &state, "--out", &out]].concat());
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(
            !said.status.success() && text.contains("name a file outside the state folder"),
            "{words:?} {name}: {text}"
        );
        assert!(!Path::new(&out).exists(), "{name} was written");
    }
}

#[test]
fn a_restore_that_cannot_write_its_checkpoint_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (state, disk, away) = (folder.path().join("state"), folder.path().join("disk"), folder.path().join("away"));
    std::fs::create_dir(&disk).unwrap();
    let (state, checkpoint) = (state.display().to_string(), disk.join("checkpoint").display().to_string());
    let any = "127.0.0.1:0";
    let words = ["init", "--state", &state, "--listen", any, "--admin-listen", any, "--checkpoint", &checkpoint];
    assert!(run(&words).status.success());
    std::fs::rename(&disk, &away).unwrap();
    let refused = run(&["restore", "--state", &state, "--accept-rollback"]);
    assert!(!refused.status.success());
    // The disk is back, and the database is still the one that its checkpoint knows.
    std::fs::rename(&away, &disk).unwrap();
    let holds = run(&["state", "verify", "--state", &state]);
    assert!(holds.status.success(), "{}", String::from_utf8_lossy(&holds.stderr));
}

#[test]
fn an_encrypted_backup_that_goes_on_is_named_by_its_own_path() {
    let (folder, state) = made();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (key, out) = (file("recovery.key"), file("backup"));
    assert!(run(&["recovery-key", "--out", &key]).status.success());
    let public = format!("{key}.pub");
    assert!(run(&["backup", "--state", &state, "--out", &out, "--recovery-key", &public]).status.success());
    let whole = std::fs::read(&out).unwrap();
    std::fs::write(&out, [&whole[..], b"more"].concat()).unwrap();
    let words = ["restore", "--state", &file("other"), "--from", &out, "--recovery-key", &key, "--accept-rollback"];
    let refused = run(&words);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains(&out) && !said.contains(".coffer-kbs-"), "{said}");
}

#[test]
fn a_list_that_is_out_of_date_is_named_by_doctor_and_in_the_log() {
    let (folder, state) = made();
    let list = crate::common::old_crl();
    std::fs::write(Path::new(&state).join("old.crl"), list).unwrap();
    let config = Path::new(&state).join("config.toml");
    let written = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, written.replacen("endorsements = []", "endorsements = [\"old.crl\"]", 1)).unwrap();
    let examined = run(&["doctor", "--state", &state]);
    let said = String::from_utf8_lossy(&examined.stdout).into_owned();
    assert!(said.contains("has been out of date since"), "{said}");
    let config = coffer_kbs::ConfigFile::read(&config).unwrap().resolve(Path::new(&state)).unwrap();
    let cautions = config.cautions(crate::common::unix().try_into().unwrap());
    assert_eq!(cautions.iter().filter(|one| one.contains("out of date")).count(), 1, "{cautions:?}");
    assert_eq!(config.cautions(0).len(), 0, "it was not then");
    drop(folder);
}
