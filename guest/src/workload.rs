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
use coffer_spec::{Process, Resource, WorkloadSpec};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    container::{Bind, Orders, Place, Program, TerminalSize, Users},
    host::Host,
    lines::{Outflow, Wanted, Ways, start_with_lines},
    log_ring::{self, LogRing},
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

/// Another name for root in the image's accounts, with a bound on programs that the kernel does not hold root's to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the spec limits nproc, and its user {user} is root in this image, whose programs that does not bind; limit programs"
)]
pub struct Unbound {
    user: String,
}

/// Whether what the spec limits binds this user. Root by its own name or number no spec has with such a limit.
///
/// # Errors
/// [`Unbound`].
pub fn check_limits(process: &Process, user: &Identity) -> Result<(), Unbound> {
    let nproc = process.rights.limits.iter().any(|limit| limit.of == Resource::Nproc);
    if nproc && user.uid == 0 { Err(Unbound { user: process.user.clone() }) } else { Ok(()) }
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
        init: false,
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
    outputs: JoinSet<()>,
    ended: watch::Sender<bool>,
}

impl Running {
    /// Once it has ended: waits for what is still in the pipes. Those who read it may be slow, but not for ever.
    pub async fn drain(mut self) {
        self.ended.send_replace(true);
        while self.outputs.join_next().await.is_some() {}
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
    program.init = spec.process.init;
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
        domainname: spec.process.domainname.as_ref().map(ToString::to_string),
        read_only: spec.root.read_only,
        shm_bytes: spec.shm_bytes,
        sysctls: spec.sysctls.clone(),
        tmpfs: spec.mounts.clone(),
        volumes: places.volumes.clone(),
        network: spec.network.clone().map(Box::new),
    };
    start_read(places, reaper, place, program, secrets, (wanted, logs)).await
}

/// Starts a program without input; its output goes into `logs`. `secrets` are read before this returns.
///
/// # Errors
/// [`StartError`].
pub fn start_kept(
    places: &Places,
    reaper: &Reaper,
    place: Place,
    program: Program,
    secrets: &SecretEnv,
    logs: &Arc<LogRing>,
) -> impl Future<Output = Result<Running, StartError>> + Send + use<> {
    start_read(places, reaper, place, program, secrets, (Wanted::Outputs, logs))
}

fn start_read(
    places: &Places,
    reaper: &Reaper,
    place: Place,
    program: Program,
    secrets: &SecretEnv,
    (wanted, logs): (Wanted, &Arc<LogRing>),
) -> impl Future<Output = Result<Running, StartError>> + Send + use<> {
    let orders = Orders { place, program, control_group: places.control_group.clone(), users: places.users };
    let starting = start_with_lines(&places.binary, reaper, &orders, secrets, wanted);
    let logs = logs.clone();
    async move {
        let (started, lines) = starting.await?;
        let (outflows, ways) = lines.split(started.process);
        let (ended, mut outputs) = (watch::Sender::new(false), JoinSet::new());
        for (stream, output) in outflows {
            let outflow = Outflow::new(output, ended.subscribe());
            outputs.spawn(keep(outflow, stream, logs.clone(), (ended.subscribe(), HELD_UP)));
        }
        Ok(Running { started, ways, outputs, ended })
    }
}

/// How long those who read the output may hold up the end of a workload, all told.
const HELD_UP: Duration = Duration::from_secs(10);

async fn keep(
    mut outflow: Outflow,
    stream: Stream,
    logs: Arc<LogRing>,
    (mut ended, held_up): (watch::Receiver<bool>, Duration),
) {
    let mut buffer = vec![0; log_ring::PIECE];
    let late = async move {
        let _ = ended.wait_for(|ended| *ended).await;
        tokio::time::sleep(held_up).await;
    };
    tokio::pin!(late);
    let mut is_late = false;
    while let Ok(count @ 1..) = outflow.read(&mut buffer).await {
        let (now, bytes) = (unix_nanos(), &buffer[..count]);
        if !is_late {
            tokio::select! {
                biased;
                () = logs.push(stream, now, bytes) => continue,
                () = &mut late => is_late = true,
            }
        }
        // Whoever loses something by it is told how much.
        logs.push_at_once(stream, now, bytes);
    }
}

/// This guest's clock.
pub fn unix_nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::lines::{Output, output_pipe};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_a_follower_does_not_read_in_time_at_the_end_is_counted() {
        // A piece of it, and no more.
        let logs = Arc::new(LogRing::new(16 << 10));
        let (mut stands_still, mut looks) = (logs.follow(0), logs.follow_new());
        let (ours, theirs) = output_pipe().unwrap();
        File::from(theirs).write_all(&vec![b'x'; 60 << 10]).unwrap();
        let (ended, flag) = watch::channel(true);
        let outflow = Outflow::new(Output::Pipe(ours), flag.clone());
        let kept = keep(outflow, Stream::Stdout, logs.clone(), (flag, Duration::ZERO));
        tokio::time::timeout(Duration::from_mins(1), kept).await.expect("it waits for nobody");
        logs.end();
        drop(ended);
        for follower in [&mut stands_still, &mut looks] {
            let (mut shown, mut lost) = (0, 0);
            while let Some(entry) = follower.next().await {
                lost += follower.lost();
                shown += entry.data.len() as u64;
            }
            assert_eq!(shown + lost + follower.lost(), 60 << 10);
            assert!(lost > 0);
        }
    }

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

    #[test]
    fn a_bound_on_a_users_programs_is_refused_where_the_image_calls_root_otherwise() {
        let mut process = coffer_spec::sample::workload(coffer_spec::Tee::None).process;
        let user = |passwd: &str| passwd::resolve("toor", &[], passwd, "").unwrap();
        let (root, other) = (user("toor:x:0:0::/:/bin/sh\n"), user("toor:x:7:0::/:/bin/sh\n"));
        process.user = "toor".into();
        check_limits(&process, &root).unwrap();
        process.rights.limits = vec![coffer_spec::ResourceLimit { of: Resource::Nproc, soft: Some(5), hard: Some(5) }];
        assert!(check_limits(&process, &root).unwrap_err().to_string().contains("toor"));
        check_limits(&process, &other).unwrap();
    }
}
