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
