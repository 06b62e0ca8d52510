//! Standard output that nobody reads, or that has no room.

use std::fs::OpenOptions;
use std::process::{Command, Stdio};

const SAYING_SOMETHING: [&[&str]; 3] = [&["version"], &["sim", "attacks"], &["completion", "bash"]];

#[test]
fn a_reader_who_has_seen_enough_is_no_error() {
    for words in SAYING_SOMETHING {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_coffer")).args(words).stdout(writer).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{words:?}: {output:?}");
    }
}

#[test]
fn output_that_is_lost_is_an_error() {
    for words in SAYING_SOMETHING {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_coffer"));
        let output = command.args(words).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{words:?}: {error}");
        assert!(error.contains("No space left") && !error.contains("panicked"), "{words:?}: {error}");
    }
}

#[test]
fn so_is_output_that_was_closed_before_and_what_says_nothing_needs_none() {
    let closed = |words: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" \"$@\" >&-", env!("CARGO_BIN_EXE_coffer")]).args(words);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for words in SAYING_SOMETHING {
        let (code, error) = closed(words);
        assert_eq!(code, Some(3), "{words:?}: {error}");
        assert!(error.contains("cannot write standard output: Bad file descriptor"), "{words:?}: {error}");
    }
    let home = tempfile::tempdir().unwrap();
    let (code, error) = closed(&["--home", home.path().to_str().unwrap(), "ps", "-q"]);
    assert!(code == Some(0) && error.is_empty(), "{error}");
}

#[test]
fn a_field_that_no_row_has_is_refused_where_there_are_no_rows_and_those_of_the_help_are_not() {
    let home = tempfile::tempdir().unwrap();
    let coffer = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coffer"));
        let output = command.arg("--home").arg(home.path()).args(words).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    for words in [&["ps"][..], &["images"], &["stats", "--no-stream"], &["volume", "ls"]] {
        let with = |format: &str| coffer(&[words, &["--format", format]].concat());
        let (code, _, error) = with("{{.Nope}}");
        assert!(code == Some(1) && error.contains("no field \"Nope\""), "{words:?}: {error}");
        let (_, help, _) = coffer(&[words, &["--help"]].concat());
        let (_, fields) = help.split_once("Fields for --format:").or_else(|| help.split_once("or as `json`:")).unwrap();
        let fields: Vec<_> = fields
            .split("\n\n")
            .next()
            .unwrap()
            .split_whitespace()
            .map_while(|word| {
                word.chars().next().is_some_and(char::is_uppercase).then(|| word.trim_end_matches([',', '.', ';']))
            })
            .collect();
        assert!(fields.len() > 5, "{words:?}: {fields:?}");
        for field in fields {
            let (code, _, error) = with(&format!("{{{{.{field}}}}}"));
            assert_eq!(code, Some(0), "{words:?} {field}: {error}");
        }
    }
}
