//! The helper process: takes orders on descriptor 3, reports on 4, waits for the program, exits with its status.
//!
//! Never: lets a program of the workload at the file it was started from, which no one can change or run again.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use rustix::{
    fs::MemfdFlags,
    process::{DumpableBehavior, WaitOptions},
};

use super::{
    Cause, Orders, Place, Program, Report, STATUS_OURS, Users, exec_failure, exit_status,
    first::{self, Side},
    own, place, rights, terminal,
    users::Mapping,
};
use crate::{
    secret_env::SecretEnv,
    sys::{
        own_binary,
        process::{self, BINARY_FD, Forked, ORDERS_FD, STATUS_FD},
    },
};

/// First argument that makes the binary a helper.
pub const STAGE: &str = "start-program";

/// Search path of a program whose environment has none, as in Docker.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What went wrong.
#[derive(Debug)]
struct Failure {
    cause: Cause,
    what: String,
    error: io::Error,
}

/// Adds what was being done to an error; our own failure unless said otherwise.
trait While<T> {
    fn during(self, what: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> While<T> for Result<T, E> {
    fn during(self, what: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| Failure { cause: Cause::Ours, what: what.into(), error: error.into() })
    }
}

/// Runs as the helper; the binary's `main` calls it before it starts any thread.
pub fn run() -> ExitCode {
    let Ok(status) = process::take_descriptor(STATUS_FD) else { return exit(STATUS_OURS) };
    let mut status = File::from(status);
    match start(&mut status) {
        Ok(code) => exit(code),
        Err(failure) => {
            let _ = report(&mut status, &failure.report());
            exit(failure.cause.status())
        }
    }
}

fn exit(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

impl Failure {
    fn report(&self) -> Report {
        Report::Failed {
            cause: self.cause,
            what: self.what.clone(),
            errno: self.error.raw_os_error().unwrap_or_default(),
        }
    }
}

fn report(status: &mut File, line: &Report) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    status.write_all(&text) // one write below PIPE_BUF, so the two halves never mix
}

fn join(orders: &Orders) -> Result<(), Failure> {
    let Some(folder) = &orders.control_group else { return Ok(()) };
    std::fs::write(folder.join("cgroup.procs"), "0").during("join the workload's control group")
}

fn start(status: &mut File) -> Result<i32, Failure> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).during("hide from tracing")?;
    process::take_descriptor(BINARY_FD).and_then(own_binary::forbid_execution).during("put our own file away")?;
    let (orders, secrets) = read_orders().during("read orders")?;
    // A program of the agent's own joins once it is there: a group that is full refuses a fork, and lets in whoever comes.
    if orders.program.own.is_none() {
        join(&orders)?;
    }
    let beside = match &orders.place {
        Place::New { .. } => {
            process::new_process_ids().during("make namespaces")?;
            None
        }
        Place::Beside { workload } => Some(
            place::Namespaces::open_and_enter_pid(*workload, orders.users).during("enter the workload's namespaces")?,
        ),
    };
    // A user namespace that the workload has is made by who becomes its first program, and mapped by the other half.
    let mapping =
        (orders.users == Users::Own && beside.is_none()).then(Mapping::new).transpose().during("make pipes")?;
    match process::fork().during("fork")? {
        Forked::Child => {
            let joined = if orders.program.own.is_some() { join(&orders) } else { Ok(()) };
            // While the agent's own view of the files is there.
            let layers = joined.and_then(|()| own::Layers::of(orders.program.own.as_ref()).during("open the layers"));
            let prepared = layers.and_then(|layers| prepare(&orders, beside.as_ref(), mapping).map(|()| layers));
            let failure = match (prepared, &orders.program.own) {
                (Ok(layers), Some(own)) => {
                    drop(secrets);
                    // The agent hears by the pipe's end that it runs.
                    let none = rustix::fs::memfd_create("none", MemfdFlags::CLOEXEC);
                    *status = none.during("let go of the status pipe")?.into();
                    return Ok(own::run(own, layers.as_ref()));
                }
                (Ok(_), None) if orders.program.init => {
                    let mut kept = Some(secrets);
                    let split = first::split(orders.program.terminal.is_some(), || {
                        drop(kept.take());
                        // The agent hears by the pipe's end that the program runs, and by the streams' that it is done with them.
                        *status = File::open("/dev/null")?;
                        release_stdio()
                    });
                    match split.during("start an init") {
                        Ok(Side::Program) => execute(&orders.program, &kept.unwrap_or_default()),
                        Ok(Side::Init(code)) => return Ok(code),
                        Err(failure) => failure,
                    }
                }
                (Ok(_), None) => execute(&orders.program, &secrets),
                (Err(failure), _) => failure,
            };
            let _ = report(status, &failure.report());
            Ok(failure.cause.status())
        }
        Forked::Parent(pid) => {
            report(status, &Report::Forked { pid }).during("report")?;
            drop((orders, secrets));
            if let Some(mapping) = mapping {
                mapping.write(pid).during("map the workload's user ids")?;
            }
            release_stdio().during("release the program's standard streams")?;
            // The pipe must end when the program has started, so this half lets go of it.
            *status = File::open("/dev/null").during("release the status pipe")?;
            wait_for(pid).during("wait for the program")
        }
    }
}

/// The agent's end of [`read_orders`]: u32 little-endian length, the orders as JSON, the secrets of the environment.
///
/// # Errors
/// The file's.
pub fn write_orders(mut file: impl Write, orders: &Orders, secrets: &SecretEnv) -> io::Result<()> {
    let text = serde_json::to_vec(orders)?;
    file.write_all(&u32::try_from(text.len()).map_err(io::Error::other)?.to_le_bytes())?;
    file.write_all(&text)?;
    secrets.write_to(file)
}

fn read_orders() -> io::Result<(Orders, SecretEnv)> {
    let file = File::from(process::take_descriptor(ORDERS_FD)?);
    // With its room from the start: a buffer that grows leaves copies behind.
    let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(length + 1));
    file.take(length as u64).read_to_end(&mut bytes)?;
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or(io::ErrorKind::InvalidData)?;
    let (text, secrets) =
        rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or(io::ErrorKind::InvalidData)?;
    Ok((serde_json::from_slice(text)?, SecretEnv::read_from(secrets)?))
}

fn release_stdio() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

fn wait_for(pid: i32) -> io::Result<i32> {
    let pid = rustix::process::Pid::from_raw(pid);
    loop {
        match rustix::process::waitpid(pid, WaitOptions::empty()) {
            Ok(Some((_, status))) => return Ok(exit_status(status)),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Makes this process what the program will be, but for its code.
fn prepare(orders: &Orders, beside: Option<&place::Namespaces>, mapping: Option<Mapping>) -> Result<(), Failure> {
    let program = &orders.program;
    // A session of its own: no terminal of ours, and signals to its group reach nothing else.
    rustix::process::setsid().during("start a session")?;
    match (&orders.place, beside) {
        (Place::Beside { .. }, Some(namespaces)) => {
            namespaces.enter().during("enter the workload's namespaces")?;
            std::env::set_current_dir(&program.cwd).during(format!("change to {}", program.cwd))?;
        }
        (new, _) => {
            // Only here: the half that waits keeps its own view of the files.
            process::leave_namespaces().during("make namespaces")?;
            place::build(new, orders.users).map_err(|(cause, what, error)| Failure { cause, what, error })?;
            let no_place = |what: &str| {
                let what = format!("{what} {}", program.cwd);
                move |error| Failure { cause: Cause::Place, what, error }
            };
            std::fs::create_dir_all(&program.cwd).map_err(no_place("make"))?;
            std::env::set_current_dir(&program.cwd).map_err(no_place("change to"))?;
            place::close_root(new).during("make the root read-only")?;
        }
    }
    if let Some(beside) = beside {
        beside.enter_users().during("enter the workload's user namespace")?;
    }
    if let Some(mapping) = mapping {
        mapping.enter().during("make a user namespace")?;
    }
    rights::limit(&program.rights.limits).map_err(|(of, error)| Failure {
        cause: Cause::Limit,
        what: format!("set the limit {of}"),
        error,
    })?;
    rights::give_up(&program.identity, &program.rights).during("give up rights")?;
    if let Some(size) = program.terminal {
        // Here: it is the program's own, as any that it would open itself.
        terminal::take(size).during("open a terminal")?;
    }
    process::close_on_exec_from(3).during("close descriptors")?;
    process::default_signals();
    Ok(())
}

/// Becomes the program, or says why not.
fn execute(program: &Program, secrets: &SecretEnv) -> Failure {
    let Some(name) = program.argv.first() else {
        let error = io::ErrorKind::NotFound.into();
        return Failure { cause: Cause::NotFound, what: "start a program without a name".into(), error };
    };
    let what = format!("start {name}");
    let path = match find_program(name, &program.env) {
        Ok(path) => path,
        Err((cause, error)) => return Failure { cause, what, error },
    };
    let error = command(&path, program, secrets).exec();
    let (cause, more) = exec_failure::explain(&path, &error);
    Failure { cause, what: what + &more, error }
}

fn command(path: &Path, program: &Program, secrets: &SecretEnv) -> Command {
    let mut command = Command::new(path);
    command.env_clear();
    if let Some((name, rest)) = program.argv.split_first() {
        command.arg0(name).args(rest);
    }
    for (name, value) in program.env.iter().filter_map(|entry| entry.split_once('=')) {
        command.env(name, value);
    }
    if !program.env.iter().any(|entry| entry.starts_with("PATH=")) {
        command.env("PATH", DEFAULT_PATH);
    }
    if !program.env.iter().any(|entry| entry.starts_with("HOME=")) {
        command.env("HOME", &program.identity.home);
    }
    secrets.expose(|name, value| {
        command.env(name, value);
    });
    command
}

/// Finds a program as execvp does, in the environment the program will have.
fn find_program(name: &str, env: &[String]) -> Result<PathBuf, (Cause, io::Error)> {
    if name.contains('/') {
        return Ok(name.into());
    }
    let search = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let mut denied = false;
    for folder in search.split(':').filter(|folder| !folder.is_empty()) {
        let candidate = Path::new(folder).join(name);
        match std::fs::metadata(&candidate) {
            Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => return Ok(candidate),
            Ok(_) => denied = true,
            Err(_) => {}
        }
    }
    if denied && !name.is_empty() {
        Err((Cause::NotExecutable, io::Error::from_raw_os_error(libc::EACCES)))
    } else {
        Err((Cause::NotFound, io::Error::from_raw_os_error(libc::ENOENT)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_execvp_finds_them() {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        for (name, mode) in [("run", 0o755), ("plain", 0o644)] {
            std::fs::write(bin.join(name), "").unwrap();
            std::fs::set_permissions(bin.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let env = [format!("PATH=/nonexistent:{}", bin.display())];
        assert_eq!(find_program("run", &env).unwrap(), bin.join("run"));
        assert_eq!(find_program("plain", &env).unwrap_err().0, Cause::NotExecutable);
        assert_eq!(find_program("absent", &env).unwrap_err().0, Cause::NotFound);
        assert_eq!(find_program("./absent", &env).unwrap(), Path::new("./absent"));
    }
}
