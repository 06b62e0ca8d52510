//! The workload: started once, its output kept, its end awaited.

use std::{
    fs::File,
    io::Read,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use coffer_guest_proto::Stream;
use coffer_spec::WorkloadSpec;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use tokio::task::JoinHandle;

use crate::{
    container::{Bind, Orders, Place, Program, TerminalSize, Users},
    host::Host,
    lines::{Output, Wanted, Ways, start_with_lines},
    log_ring::LogRing,
    passwd::{self, Identity, UserError},
    reaper::Reaper,
    secret_env::SecretEnv,
    spawn::{StartError, Started},
};

/// Bytes of passwd or group that are read.
const ACCOUNTS_LIMIT: u64 = 1024 * 1024;

/// Where the workload's files are, as the agent sees them.
#[derive(Debug, Clone)]
pub struct Places {
    /// This program.
    pub binary: PathBuf,
    /// The workload's root.
    pub root: PathBuf,
    /// Its `/run/secrets`.
    pub secrets: PathBuf,
    /// Its `/run/coffer`.
    pub sockets: PathBuf,
    /// What else appears in it.
    pub volumes: Vec<Bind>,
    /// Folder of the control group of its programs, if there is one.
    pub control_group: Option<PathBuf>,
    /// Whose user ids its programs have.
    pub users: Users,
    /// How the host is reached.
    pub host: Host,
}

/// Resolves a user and further groups in the image's own account files, wherever links in the image lead.
///
/// # Errors
/// [`UserError`].
pub fn resolve_user(root: &Path, user: &str, groups: &[String]) -> Result<Identity, UserError> {
    passwd::resolve(user, groups, &read_inside(root, "etc/passwd"), &read_inside(root, "etc/group"))
}

fn read_inside(root: &Path, path: &str) -> String {
    let open = || -> std::io::Result<String> {
        let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file: OwnedFd = openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?;
        let mut bytes = Vec::new();
        File::from(file).take(ACCOUNTS_LIMIT).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    open().unwrap_or_default() // an image need not have one
}

/// What the workload runs: the spec's process.
pub fn program(spec: &WorkloadSpec, identity: Identity) -> Program {
    let process = &spec.process;
    let mut env = process.env.clone();
    if !env.iter().any(|entry| entry.starts_with("HOSTNAME=")) {
        env.insert(0, format!("HOSTNAME={}", process.hostname));
    }
    Program {
        argv: process.argv.clone(),
        env,
        cwd: process.cwd.clone(),
        identity,
        rights: process.rights.clone(),
        terminal: None,
        own: None,
    }
}

/// Gives a program a terminal of this size, and what says so in its environment, unless that says something else.
pub fn at_terminal(program: &mut Program, size: TerminalSize) {
    program.terminal = Some(size);
    if !program.env.iter().any(|entry| entry.starts_with("TERM=")) {
        program.env.push("TERM=xterm".into());
    }
}

/// A running workload and the tasks that read its output.
pub struct Running {
    /// Process and exit status.
    pub started: Started,
    /// The ways to it.
    pub ways: Ways,
    outputs: Vec<JoinHandle<()>>,
}

impl Running {
    /// Waits for what is still in the pipes, but not for ever: something may have kept them open.
    pub async fn drain(self) {
        for output in self.outputs {
            let abort = output.abort_handle();
            if tokio::time::timeout(Duration::from_secs(1), output).await.is_err() {
                abort.abort();
            }
        }
    }
}

/// Starts the workload in a place of its own, with the terminal and the input that its spec gives it; its output goes into `logs`.
///
/// # Errors
/// [`StartError`].
pub async fn start_workload(
    places: &Places,
    reaper: &Reaper,
    spec: &WorkloadSpec,
    mut program: Program,
    secrets: &SecretEnv,
    logs: &Arc<LogRing>,
) -> Result<Running, StartError> {
    if spec.process.tty {
        // Whoever attaches says how large it is.
        at_terminal(&mut program, TerminalSize { rows: 0, columns: 0 });
    }
    let wanted = if spec.process.stdin_open { Wanted::All } else { Wanted::Outputs };
    let place = Place::New {
        root: places.root.clone(),
        secrets: places.secrets.clone(),
        agent: places.sockets.clone(),
        hostname: spec.process.hostname.to_string(),
        read_only: spec.root.read_only,
        shm_bytes: spec.shm_bytes,
        tmpfs: spec.mounts.clone(),
        volumes: places.volumes.clone(),
        network: spec.network.clone().map(Box::new),
    };
    start_read(places, reaper, place, program, secrets, (wanted, logs)).await
}

/// Starts a program without input; its output goes into `logs`.
///
/// # Errors
/// [`StartError`].
pub async fn start_kept(
    places: &Places,
    reaper: &Reaper,
    place: Place,
    program: Program,
    secrets: &SecretEnv,
    logs: &Arc<LogRing>,
) -> Result<Running, StartError> {
    start_read(places, reaper, place, program, secrets, (Wanted::Outputs, logs)).await
}

async fn start_read(
    places: &Places,
    reaper: &Reaper,
    place: Place,
    program: Program,
    secrets: &SecretEnv,
    (wanted, logs): (Wanted, &Arc<LogRing>),
) -> Result<Running, StartError> {
    let orders = Orders { place, program, control_group: places.control_group.clone(), users: places.users };
    let (started, lines) = start_with_lines(&places.binary, reaper, &orders, secrets, wanted).await?;
    let (outputs, ways) = lines.split(started.process);
    let keep = |(stream, output)| tokio::spawn(keep(output, stream, logs.clone()));
    Ok(Running { started, ways, outputs: outputs.into_iter().map(keep).collect() })
}

async fn keep(mut output: Output, stream: Stream, logs: Arc<LogRing>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = output.read(&mut buffer).await {
        logs.push(stream, unix_nanos(), &buffer[..count]).await;
    }
}

/// This guest's clock.
pub fn unix_nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_files_are_read_inside_the_image_only() {
        let image = tempfile::tempdir().unwrap();
        let etc = image.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        std::os::unix::fs::symlink("/real", etc.join("passwd")).unwrap();
        std::fs::write(image.path().join("real"), "app:x:5:6::/home:/bin/sh\n").unwrap();
        assert_eq!(resolve_user(image.path(), "app", &[]).unwrap().uid, 5);
        std::fs::remove_file(image.path().join("real")).unwrap();
        assert!(resolve_user(image.path(), "root", &[]).is_err(), "the machine's own passwd is not consulted");
        assert_eq!(resolve_user(image.path(), "", &[]).unwrap().uid, 0);
    }
}
