//! Programs that keep logins, spoken to as Docker does: an act as their argument, what it is about on standard input.
//!
//! One has [`LIMIT`] to do what it was asked, and says [`MOST`] at most. No error has a word of what it was told or said.

use std::io::{self, Read, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::error::HelperError;
use super::login::Login;

/// Long enough for somebody to be asked for what unlocks it.
const LIMIT: Duration = Duration::from_mins(2);
/// A login has some kilobytes at most.
const MOST: u64 = 64 << 10;
/// Between two looks at whether it has ended.
const LOOK: Duration = Duration::from_millis(5);

/// The name a program has for users who put it into a configuration file.
pub(crate) fn program(name: &str) -> String {
    format!("docker-credential-{name}")
}

/// The login that one has for a registry, if any.
///
/// # Errors
/// [`HelperError`].
pub(crate) fn get(name: &str, registry: &str) -> Result<Option<Login>, HelperError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let Some(said) = ask(name, "get", registry.as_bytes(), LIMIT)? else { return Ok(None) };
    let answer: Answer = serde_json::from_slice(&said).map_err(|_| HelperError::Answer { helper: program(name) })?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Login::Identity(answer.secret.into()),
        _ => Login::Basic(answer.username, answer.secret.into()),
    }))
}

/// Has one keep a login.
///
/// # Errors
/// [`HelperError`].
pub(crate) fn store(name: &str, document: &[u8]) -> Result<(), HelperError> {
    ask(name, "store", document, LIMIT).map(drop)
}

/// Has one forget a registry, also where it never knew it.
///
/// # Errors
/// [`HelperError`].
pub(crate) fn erase(name: &str, registry: &str) -> Result<(), HelperError> {
    ask(name, "erase", registry.as_bytes(), LIMIT).map(drop)
}

/// What one says; `None` where it has no login for what it is asked about. Its errors go where ours go, unless they say that.
fn ask(name: &str, act: &'static str, input: &[u8], limit: Duration) -> Result<Option<Vec<u8>>, HelperError> {
    if name.is_empty() || name.contains('/') {
        return Err(HelperError::Name { found: name.to_owned() });
    }
    let helper = program(name);
    let failed = |reason: String| HelperError::Failed { helper: helper.clone(), act, reason };
    // One that is to keep something tells a person what is wrong with it. The other acts have a "no" that is none.
    let errors = if act == "store" { Stdio::inherit() } else { Stdio::piped() };
    let mut command = Command::new(&helper);
    let mut child = command
        .arg(act)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .map_err(|source| HelperError::Start { helper: helper.clone(), source })?;
    let end = Instant::now() + limit;
    let said = child.stdout.take().map(heard);
    let errors = child.stderr.take().map(heard);
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_vec();
        // One that does not want to know ends by itself, and its status says how.
        thread::spawn(move || drop(stdin.write_all(&input)));
    }
    let status = ended(&mut child, end).map_err(|error| failed(error.to_string()))?;
    // What it started may hold its pipes for longer than it is there itself.
    let slow = || HelperError::Slow { helper: helper.clone(), act, seconds: limit.as_secs() };
    let status = status.ok_or_else(slow)?;
    let left = |heard: Option<mpsc::Receiver<Vec<u8>>>| match heard {
        Some(heard) => heard.recv_timeout(end.saturating_duration_since(Instant::now())).map_err(|_| slow()),
        None => Ok(Vec::new()),
    };
    let (said, errors) = (left(said)?, left(errors)?);
    if status.success() {
        return Ok(Some(said));
    }
    if [&said, &errors].iter().any(|text| String::from_utf8_lossy(text).contains(HAS_NONE)) {
        return Ok(None);
    }
    Err(failed(status.to_string()))
}

/// Every helper says so in these words.
const HAS_NONE: &str = "credentials not found";

/// Waits until `end`, and ends what has not ended by then: `None`.
fn ended(child: &mut Child, end: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(LOOK);
    }
}

/// The beginning of what comes out of a pipe, once it is closed or that long.
fn heard(pipe: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        if pipe.take(MOST).read_to_end(&mut text).is_ok() {
            let _ = send.send(text);
        }
    });
    receive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_does_not_end_is_ended_and_named() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        assert!(ended(&mut child, Instant::now()).unwrap().is_none());
        assert!(child.try_wait().unwrap().is_some(), "nothing of it is left");
        let slow = HelperError::Slow { helper: program("pass"), act: "get", seconds: 120 };
        assert!(slow.to_string().contains("docker-credential-pass did not end within 120 s"), "{slow}");
    }

    #[test]
    fn one_that_is_not_there_is_named_and_one_with_a_path_is_none() {
        let absent = ask("coffer-nosuch", "get", b"SECRET", LIMIT).unwrap_err();
        assert!(
            matches!(absent, HelperError::Start { .. }) && absent.to_string().contains("coffer-nosuch"),
            "{absent}"
        );
        assert!(absent.hint().contains("install docker-credential-coffer-nosuch"), "{}", absent.hint());
        assert!(matches!(ask("../../bin/true", "get", b"", LIMIT), Err(HelperError::Name { .. })));
    }

    #[test]
    fn a_pipe_without_end_is_heard_up_to_a_bound() {
        let zeros = std::fs::File::open("/dev/zero").unwrap();
        assert_eq!(heard(zeros).recv().unwrap().len() as u64, MOST);
    }
}
