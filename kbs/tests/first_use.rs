//! Two programs at once on a folder that is new to both: each does its work or says why not, and nothing is half made.

use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

fn start(arguments: &[&str], state: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_coffer-kbs"))
        .args(arguments)
        .arg("--state")
        .arg(state)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn end(child: Child) -> Output {
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const INIT: [&str; 5] = ["init", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
const SERVE: [&str; 1] = ["serve"];
const VERIFY: [&str; 2] = ["audit", "verify"];

fn made(state: &Path) {
    let output = end(start(&INIT, state));
    assert!(output.status.success(), "{}", said(&output));
}

/// A server that is told where to write that it is ready.
struct Serving {
    child: Option<Child>,
    ready: std::path::PathBuf,
}

impl Serving {
    fn start(state: &Path, ready: &Path) -> Self {
        let child = start(&[&SERVE[..], &["--ready-file", ready.to_str().unwrap()]].concat(), state);
        Self { child: Some(child), ready: ready.to_owned() }
    }

    /// Stops it, if it came to serve; else what it said.
    fn outcome(mut self) -> Result<(), Output> {
        let mut child = self.child.take().unwrap();
        let until = Instant::now() + Duration::from_mins(1);
        while Instant::now() < until {
            if child.try_wait().unwrap().is_some() {
                return Err(end(child));
            }
            if self.ready.exists() {
                child.kill().unwrap();
                child.wait().unwrap();
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        panic!("neither ready nor ended");
    }
}

#[test]
fn fifty_pairs_on_fresh_folders() {
    for round in 0..50 {
        let outer = tempfile::tempdir().unwrap();
        let state = outer.path().join("state");
        match round % 5 {
            0 => {
                let (first, second) = (start(&INIT, &state), start(&INIT, &state));
                let outputs = [end(first), end(second)];
                let good: Vec<_> = outputs.iter().filter(|output| output.status.success()).collect();
                let bad: Vec<_> = outputs.iter().filter(|output| !output.status.success()).collect();
                assert_eq!(good.len(), 1, "{:?}", outputs.each_ref().map(said));
                assert_eq!(bad[0].status.code(), Some(3));
                assert!(said(bad[0]).contains("is a state folder already"), "{}", said(bad[0]));
            }
            1 => {
                if round % 2 == 0 {
                    std::fs::create_dir(&state).unwrap();
                }
                let init = start(&INIT, &state);
                let serving = Serving::start(&state, &outer.path().join("ready"));
                let init = end(init);
                assert!(init.status.success(), "{}", said(&init));
                if let Err(output) = serving.outcome() {
                    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
                    assert!(said(&output).contains("coffer-kbs init"), "{}", said(&output));
                }
            }
            2 => {
                made(&state);
                let serving = Serving::start(&state, &outer.path().join("ready"));
                let verify = end(start(&VERIFY, &state));
                assert!(verify.status.success(), "{}", said(&verify));
                serving.outcome().map_err(|output| said(&output)).unwrap();
            }
            3 => {
                made(&state);
                let first = Serving::start(&state, &outer.path().join("first"));
                let second = Serving::start(&state, &outer.path().join("second"));
                let outcomes = [first.outcome(), second.outcome()];
                let bad: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).map(said).collect();
                // The first may have been stopped before the second came.
                assert!(bad.len() <= 1 && bad.iter().all(|text| text.contains("in use by another")), "{bad:?}");
            }
            _ => {
                made(&state);
                let (first, second) = (start(&VERIFY, &state), start(&VERIFY, &state));
                for output in [end(first), end(second)] {
                    assert!(output.status.success(), "{}", said(&output));
                }
            }
        }
        let verify = end(start(&VERIFY, &state));
        assert!(verify.status.success(), "{}", said(&verify));
        let left: Vec<_> = std::fs::read_dir(outer.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
    }
}
