//! The trail of a home: what commands write there, twenty at once, killed at any point, and what is found when it was touched.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coffer"));
        command.args(words).env("COFFER_HOME", self.dir.path().join("home")).stdin(Stdio::null());
        command
    }

    fn coffer(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn lines(&self, words: &[&str]) -> Vec<Value> {
        let output = self.coffer(&[&["--json", "audit"], words].concat());
        let Value::Array(lines) = serde_json::from_slice(&output.stdout).unwrap() else { panic!("{output:?}") };
        lines
    }

    fn verify(&self) -> (Option<i32>, String) {
        let output = self.coffer(&["audit", "verify"]);
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    }

    fn part(&self) -> PathBuf {
        let folder = self.dir.path().join("home/trail");
        let mut parts = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        parts.find(|path| path.extension().is_some()).unwrap()
    }
}

fn acts(lines: &[Value]) -> Vec<(String, String)> {
    let text = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    lines.iter().map(|line| (text(line, "action"), text(line, "outcome"))).collect()
}

#[test]
fn a_command_has_a_line_before_it_and_one_that_says_what_came_of_it() {
    let world = World::new();
    assert_eq!(world.lines(&[]), [] as [Value; 0]);
    assert!(world.coffer(&["volume", "create", "data"]).status.success());
    assert!(!world.coffer(&["rm", "nosuch"]).status.success());
    assert!(!world.coffer(&["volume", "rm", "data", "nosuch"]).status.success());
    world.coffer(&["ps"]);
    let lines = world.lines(&[]);
    let said = acts(&lines);
    let said: Vec<_> = said.iter().map(|(act, outcome)| (act.as_str(), outcome.as_str())).collect();
    let wanted = [
        ("volume create", "begun"),
        ("volume create", "done"),
        ("rm", "begun"),
        ("rm", "not-found"),
        ("volume rm", "begun"),
        ("volume rm", "not-found"),
    ];
    assert_eq!(said, wanted);
    assert_eq!(lines[1]["names"], serde_json::json!(["data"]));
    assert_eq!(lines[1]["details"]["began"], lines[0]["number"]);
    assert_eq!(lines[0]["uid"], rustix::process::getuid().as_raw());
    assert_eq!(world.lines(&["--action", "volume"]).len(), 4);
    assert_eq!(world.lines(&["--action", "volume rm", "--outcome", "begun"]).len(), 1);
    // A volume is no box, whatever it is called.
    assert_eq!(world.lines(&["--box", "nosuch", "--outcome", "not-found"]).len(), 1);
    assert_eq!(world.lines(&["--since", "0s"]).len(), 0);
    assert_eq!(world.lines(&["--since", "10m"]).len(), 6);
    assert_eq!(world.coffer(&["audit", "--outcome", "fine"]).status.code(), Some(2));
    assert!(String::from_utf8(world.coffer(&["audit"]).stdout).unwrap().starts_with("NUMBER"));
}

#[test]
fn twenty_at_once_and_some_of_them_killed_leave_one_chain() {
    let world = World::new();
    for round in 0..6_u32 {
        let start = |number: u32| {
            let mut command = world.command(&["volume", "create", &format!("v{round}-{number}")]);
            (number, command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
        };
        for (number, mut child) in (0..20).map(start).collect::<Vec<_>>() {
            if number % 3 == 0 {
                std::thread::sleep(Duration::from_millis(u64::from(round * 3 + number % 5)));
                child.kill().unwrap();
            }
            child.wait().unwrap();
        }
        assert!(world.coffer(&["volume", "create", "after"]).status.success());
        let (code, said) = world.verify();
        assert_eq!(code, Some(0), "{said}");
    }
    let lines = world.lines(&["--action", "volume create"]);
    let of = |outcome: &str| -> BTreeSet<String> {
        let fitting = lines.iter().filter(|line| line["outcome"] == outcome);
        fitting.map(|line| line["names"][0].as_str().unwrap().to_owned()).collect()
    };
    assert!(of("done").len() > 6 * 13, "{}", of("done").len());
    assert!(of("begun").is_superset(&of("done")));
    let listed: Value = serde_json::from_slice(&world.coffer(&["--json", "volume", "ls"]).stdout).unwrap();
    for volume in listed.as_array().unwrap() {
        assert!(of("begun").contains(volume["name"].as_str().unwrap()), "made without a line: {volume}");
    }
}

#[test]
fn what_somebody_did_to_the_trail_is_named_with_exit_5() {
    let write = |path: &Path, lines: &[String]| fs::write(path, lines.join("\n") + "\n").unwrap();
    let read = |path: &Path| -> Vec<String> { fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect() };
    type Change = fn(&mut Vec<String>);
    let cases: [(Change, &str); 4] = [
        (|lines| lines[2] = lines[2].replace("begun", "done"), "line 3 is not what it was"),
        (|lines| drop(lines.remove(2)), "line 3 is missing"),
        (|lines| lines.swap(1, 2), "line 2 is missing: line 3"),
        (|lines| drop(lines.pop()), "lines 6 to 6 are missing at the end"),
    ];
    for (change, wanted) in cases {
        let world = World::new();
        for name in ["a", "b", "c"] {
            world.coffer(&["volume", "create", name]);
        }
        let (code, said) = world.verify();
        assert!(code == Some(0) && said.starts_with("lines 1 to 6 follow"), "{said}");
        let mut lines = read(&world.part());
        change(&mut lines);
        write(&world.part(), &lines);
        let (code, said) = world.verify();
        assert!(code == Some(5) && said.contains(wanted), "{wanted}: {said}");
        let output = world.coffer(&["--json", "audit", "verify"]);
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["error"]["class"], "not-authentic");
    }
    let world = World::new();
    world.coffer(&["volume", "create", "a"]);
    let text = fs::read(world.part()).unwrap();
    fs::write(world.part(), [&text[..], b"{\"number\":3,\"ti"].concat()).unwrap();
    let (code, said) = world.verify();
    assert!(code == Some(0) && said.contains("was never finished (15 bytes)"), "{said}");
    let output = world.coffer(&["volume", "create", "b"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("mended"), "{output:?}");
    assert_eq!(world.lines(&["--action", "audit.mended"])[0]["details"]["half_line_bytes"], 15);
    let (code, said) = world.verify();
    assert!(code == Some(5) && said.contains("line 3 says how it was found (half_line_bytes=15)"), "{said}");
    assert!(said.contains("--accept-mended-to 3"), "{said}");
    assert!(String::from_utf8(world.coffer(&["audit"]).stderr).unwrap().contains("the trail was mended"));
    assert_eq!(world.coffer(&["audit", "verify", "--accept-mended-to", "2"]).status.code(), Some(5));
    let output = world.coffer(&["--json", "audit", "verify", "--accept-mended-to", "3"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((document["last"].as_u64(), &document["mended"]), (Some(5), &serde_json::json!([3])));
}

#[test]
fn an_end_that_was_cut_off_is_not_healed_by_taking_the_head_away() {
    let world = World::new();
    for name in ["a", "b", "c"] {
        world.coffer(&["volume", "create", name]);
    }
    let text = fs::read_to_string(world.part()).unwrap();
    let kept: String = text.split_inclusive('\n').take(3).collect();
    fs::write(world.part(), kept).unwrap();
    fs::remove_file(world.dir.path().join("home/trail/head")).unwrap();
    assert!(world.coffer(&["volume", "create", "d"]).status.success());
    let (code, said) = world.verify();
    assert!(code == Some(5) && said.contains("line 4 says how it was found (head=missing)"), "{said}");
}

#[test]
fn audit_and_verify_say_the_same_of_a_part_that_somebody_put_before_the_oldest() {
    let world = World::new();
    for name in ["a", "b"] {
        world.coffer(&["volume", "create", name]);
    }
    // As if the part with the first two lines had gone.
    let (part, head) = (world.part(), world.dir.path().join("home/trail/head"));
    let text = fs::read_to_string(&part).unwrap();
    let at = text.match_indices('\n').nth(1).unwrap().0 + 1;
    let (gone, kept) = text.split_at(at);
    let mut said: Value = serde_json::from_slice(&fs::read(&head).unwrap()).unwrap();
    let oldest: Value = serde_json::from_str(kept.lines().next().unwrap()).unwrap();
    for (key, value) in [
        ("part", 3.into()),
        ("first", 3.into()),
        ("size", kept.len().into()),
        ("before_first", oldest["previous"].clone()),
    ] {
        said[key] = value;
    }
    fs::remove_file(&part).unwrap();
    fs::write(part.with_file_name(format!("{:020}.jsonl", 3)), kept).unwrap();
    fs::write(&head, format!("{:<511}\n", said.to_string())).unwrap();
    let (code, said) = world.verify();
    assert!(code == Some(0) && said.starts_with("lines 3 to 4 follow"), "{said}");
    // The one that was there, and another.
    for (text, code, word) in [
        (gone.to_owned(), Some(0), ""),
        (gone.replace("\"a\"", "\"x\""), Some(5), "from line 1 on does not lead to line 3"),
    ] {
        fs::write(&part, text).unwrap();
        let (found, said) = world.verify();
        assert!(found == code && said.contains(word), "{said}");
        let output = world.coffer(&["audit"]);
        let (shown, warned) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!((shown.lines().count(), warned.is_empty()), (5, word.is_empty()), "{shown}{warned}");
        assert!(warned.contains(word), "{warned}");
    }
}

#[test]
fn a_pipe_in_place_of_head_or_part_is_refused_and_nobody_waits_for_it() {
    for name in ["head", "00000000000000000001.jsonl", "00000000000000000009.jsonl"] {
        let world = World::new();
        world.coffer(&["volume", "create", "a"]);
        let path = world.dir.path().join("home/trail").join(name);
        let _ = fs::remove_file(&path);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        for words in [&["audit", "verify"][..], &["audit"], &["events", "--since", "1h", "--until", "0s"]] {
            let output = Command::new("timeout")
                .args(["10", env!("CARGO_BIN_EXE_coffer")])
                .args(words)
                .env("COFFER_HOME", world.dir.path().join("home"))
                .output()
                .unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            // Whoever shows lines has no need of the head.
            let fine = words[0] == "events" && name == "head";
            assert!(
                fine || output.status.code() == Some(3) && said.contains("no regular file"),
                "{name} {words:?}: {said}"
            );
        }
    }
}

#[test]
fn an_act_or_a_box_that_is_none_is_refused_and_the_acts_are_named() {
    let world = World::new();
    world.coffer(&["volume", "create", "data"]);
    let output = world.coffer(&["audit", "--action", "volum"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    for act in ["exec.start", "box.die", "audit.mended", "kbs secret put", "volume rm", "no act is called 'volum'"] {
        assert!(said.contains(act), "{act}: {said}");
    }
    assert!(!said.contains("volume ls"), "it only looks: {said}");
    for act in ["exec", "box", "kbs", "kbs secret", "attach.start", "audit"] {
        assert_eq!(world.lines(&["--action", act]), [] as [Value; 0], "{act}");
    }
    world.coffer(&["rm", "gone"]);
    for none in ["nosuch", "data"] {
        let output = world.coffer(&["audit", "--box", none]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    }
    assert_eq!(world.lines(&["--box", "gone", "--action", "exec"]), [] as [Value; 0]);
}

#[test]
fn where_a_line_has_no_room_nothing_is_done_and_nothing_of_it_stays() {
    let world = World::new();
    // As on a disk that is full: no file grows beyond so many blocks of 512 bytes.
    let limited = |blocks: u64, words: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; ulimit -f \"$0\"; exec \"$@\"", &blocks.to_string()]);
        command.arg(env!("CARGO_BIN_EXE_coffer")).args(words).env("COFFER_HOME", world.dir.path().join("home"));
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let refused = said.contains("cannot record what is done");
        assert!(!refused || output.status.code() == Some(3), "{said}");
        refused
    };
    let volumes = || String::from_utf8(world.coffer(&["--json", "volume", "ls"]).stdout).unwrap();
    // The first line of all, whose head has no room either.
    assert!(limited(0, &["volume", "create", "first"]) && !volumes().contains("first"));
    assert!(world.coffer(&["volume", "create", "first"]).status.success());
    assert_eq!(world.verify().0, Some(0));
    // One that has none at all, and one that has room for its half.
    let size = || fs::metadata(world.part()).unwrap().len();
    let before = (size(), fs::read(world.part()).unwrap());
    assert!(limited(size() / 512, &["volume", "create", "second"]) && !volumes().contains("second"));
    assert_eq!((size(), fs::read(world.part()).unwrap()), before);
    let blocks = size() / 512 + 2;
    assert!((0..12).any(|_| limited(blocks, &["volume", "rm", "nosuch"])));
    let text = fs::read_to_string(world.part()).unwrap();
    assert!(text.ends_with("}\n") && size() <= blocks * 512, "{text}");
    assert!(world.coffer(&["volume", "create", "second"]).status.success());
    let (code, said) = world.verify();
    assert!(code == Some(0), "{said}");
}

#[test]
fn what_cannot_be_recorded_is_not_done() {
    let world = World::new();
    world.coffer(&["volume", "ls"]);
    fs::write(world.dir.path().join("home/trail"), "in the way").unwrap();
    let output = world.coffer(&["volume", "create", "data"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(3) && said.contains("cannot record what is done"), "{said}");
    assert!(!String::from_utf8(world.coffer(&["volume", "ls"]).stdout).unwrap().contains("data"));
}

#[test]
fn events_come_from_the_same_lines_also_those_of_yesterday() {
    let world = World::new();
    world.coffer(&["volume", "create", "data"]);
    world.coffer(&["network", "create", "app"]);
    world.coffer(&["volume", "rm", "nosuch"]);
    world.coffer(&["volume", "rm", "data"]);
    let told = |words: &[&str]| {
        let output = world.coffer(&[&["events", "--until", "0s"], words].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let format = "{{.Type}} {{.Action}} {{.Actor.ID}}";
    let all = "volume create data\nnetwork create app\nvolume destroy data\n";
    assert_eq!(told(&["--since", "10m", "--format", format]), all);
    assert_eq!(told(&["--format", format]), "", "from now on there was none");
    assert_eq!(told(&["--since", "10m", "--format", format, "--filter", "type=network"]), "network create app\n");
    assert_eq!(told(&["--since", "10m", "--filter", "event=destroy"]).lines().count(), 1);
    let after = told(&["--since", "10m", "--format", "{{.timeNano}}"]);
    let after = after.lines().next().unwrap();
    let after = format!("{}.{}", &after[..10], &after[10..]);
    assert_eq!(told(&["--since", &after, "--format", format]), all, "its own moment is within");
    let document: Value =
        serde_json::from_slice(&world.coffer(&["--json", "events", "--since", "10m", "--until", "0s"]).stdout).unwrap();
    assert_eq!(document.as_array().unwrap().len(), 3);
}
