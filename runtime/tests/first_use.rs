//! Two commands at once on a home that nobody used before: neither fails, and both see one result.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

const COFFER: &str = env!("CARGO_BIN_EXE_coffer");
const PAIRS: usize = 50;

fn start(home: &Path, args: &[&str]) -> Child {
    let mut command = Command::new(COFFER);
    command.env("COFFER_HOME", home).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Both at once, in a home of their own below `folder`.
fn pair(folder: &Path, number: usize, args: [&[&str]; 2]) -> [Output; 2] {
    let home = folder.join(format!("home{number}"));
    args.map(|args| start(&home, args)).map(|child| child.wait_with_output().unwrap())
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn fifty_pairs_of_commands_find_or_make_one_database() {
    let dir = tempfile::tempdir().unwrap();
    let commands: [&[&str]; 3] = [&["ps", "-a"], &["--json", "ps"], &["images"]];
    for number in 0..PAIRS {
        for output in pair(dir.path(), number, [commands[number % 3], commands[(number + 1) % 3]]) {
            assert!(output.status.success(), "{}", text(&output));
        }
    }
}

#[test]
fn fifty_pairs_of_commands_make_one_owners_key() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..PAIRS {
        let outputs = pair(dir.path(), number, [&["owner", "init"], &["owner", "init"]]);
        let made: Vec<_> = outputs.iter().filter(|output| output.status.success()).collect();
        let [made] = made[..] else { panic!("{}{}", text(&outputs[0]), text(&outputs[1])) };
        assert!(outputs.iter().any(|output| text(output).contains("is there already")));
        let shown = start(&dir.path().join(format!("home{number}")), &["owner", "show"]).wait_with_output().unwrap();
        assert_eq!(text(&shown), text(made), "the key and its certificate are of one pair");
    }
}

#[test]
fn two_commands_make_one_simulator() {
    let dir = tempfile::tempdir().unwrap();
    let init: &[&str] = &["--json", "sim", "init", "--product", "milan"];
    let [one, other] = pair(dir.path(), 0, [init, init]);
    assert!(one.status.success() && other.status.success(), "{}{}", text(&one), text(&other));
    assert_eq!(text(&one), text(&other));
}
