//! Programs that keep logins, spoken to as Docker does: an act as their argument, what it is about on standard input.

use std::io::{self, Write as _};
use std::process::{Command, Stdio};

/// The name a program has for users who put it into a configuration file.
pub(crate) fn program(name: &str) -> String {
    format!("docker-credential-{name}")
}

/// Has one do something. Its errors go where ours go.
///
/// # Errors
/// Where it cannot be run, or says no; the text says nothing of what it was told.
pub(crate) fn run(name: &str, act: &str, input: &[u8]) -> io::Result<()> {
    let failed = |reason: String| io::Error::other(format!("{} {act}: {reason}", program(name)));
    // A path would be another program than the one that the name stands for.
    if name.is_empty() || name.contains('/') {
        return Err(failed("that is no name of a helper".to_owned()));
    }
    let mut command = Command::new(program(name));
    let mut child = command
        .arg(act)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    // One that does not want to know ends by itself, and its status says how.
    let told = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input));
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        return Err(failed(status.to_string()));
    }
    told.map_err(|error| failed(error.to_string()))
}

/// Whether it failed because it has no login for this registry. Every helper says so in these words.
pub(crate) fn has_none(stdout: &str, stderr: &str) -> bool {
    [stdout, stderr].iter().any(|said| said.contains("credentials not found"))
}
