//! Running programs: what they printed, how they ended, and that they end with us.

use std::{
    ffi::OsStr,
    io::Write,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

/// What a finished program left behind.
#[derive(Debug)]
pub struct Finished {
    /// Exit status, or 128 + signal.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// The command line, for messages.
    pub command: String,
}

impl Finished {
    /// Standard output, if the program ended with 0.
    ///
    /// # Errors
    /// Names the command, its status and what it printed.
    pub fn ok(self) -> Result<String> {
        if self.status == 0 { Ok(self.stdout) } else { bail!("{}", self.describe()) }
    }

    /// The command, its status and what it printed.
    pub fn describe(&self) -> String {
        format!(
            "`{}` ended with {}\n--- stdout\n{}\n--- stderr\n{}",
            self.command, self.status, self.stdout, self.stderr
        )
    }

    /// Both outputs.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// That a program ended so, and printed all these words somewhere.
///
/// # Errors
/// Says what was expected, and what came.
pub fn says(finished: &Finished, status: i32, words: &[&str]) -> Result<()> {
    let text = finished.text();
    let said = finished.status == status && words.iter().all(|word| text.contains(word));
    ensure!(said, "expected {status} and {words:?}\n{}", finished.describe());
    Ok(())
}

/// Runs a command to its end, feeding it `input`.
///
/// # Errors
/// If it cannot be started.
pub fn run(command: &mut Command, input: &[u8]) -> Result<Finished> {
    let text = describe(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{text}`"))?;
    // A program that does not read its input closes the pipe; that is no error of ours.
    let _ = child.stdin.take().context("stdin was piped")?.write_all(input);
    let output = child.wait_with_output()?;
    let status = std::os::unix::process::ExitStatusExt::signal(&output.status)
        .map_or_else(|| output.status.code().unwrap_or(-1), |signal| 128 + signal);
    Ok(Finished {
        status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        command: text,
    })
}

/// A service that is killed when this value is dropped, or when this process dies.
#[derive(Debug)]
pub struct Service(Child);

impl Service {
    /// Starts a program that the kernel kills when we die.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(program: impl AsRef<OsStr>, configure: impl FnOnce(&mut Command)) -> Result<Self> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).stdin(Stdio::null());
        configure(&mut command);
        let text = describe(&command);
        command.spawn().map(Self).with_context(|| format!("cannot start `{text}`"))
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Exit status, if it has ended.
    pub fn ended(&mut self) -> Option<i32> {
        self.0.try_wait().ok().flatten().map(|status| status.code().unwrap_or(-1))
    }

    /// Sends SIGTERM and waits for the end.
    pub fn stop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.0.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if wait_for(Duration::from_secs(5), || self.ended().is_some()).is_err() {
            let _ = self.0.kill();
        }
        let _ = self.0.wait();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits until `done` says so.
///
/// # Errors
/// If `limit` passes first.
pub fn wait_for(limit: Duration, mut done: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !done() {
        if start.elapsed() > limit {
            bail!("not within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A binary of ours: beside this one, or one folder up when this is a test.
///
/// # Errors
/// If it was not built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("an executable lies in a folder")?;
    for candidate in [folder.join(name), folder.join("..").join(name)] {
        if candidate.exists() {
            return Ok(candidate.canonicalize()?);
        }
    }
    bail!("no {name} beside {}; run `make build`", own.display())
}

/// Where `make setup` keeps what it fetched and built.
///
/// # Errors
/// If there is no home.
pub fn cache() -> Result<PathBuf> {
    let named = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let usual = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    Ok(named.or_else(usual).context("no HOME")?.join("coffer"))
}

fn describe(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
