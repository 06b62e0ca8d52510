//! Programs of the agent's own in the workload's place: what `coffer cp`, `top`, `diff`, `export` and `commit` ask for.
//!
//! They run as a program of the workload does: its namespaces, its root's user, no more rights, no secret in their environment.
//! Trusts: nothing it finds there. What it says on standard error names paths of the workload's, for whoever asked.

mod layers;
mod pax;
mod tree;

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use coffer_rim::{
    carry::{ABSENT, Bounds, Keep, Source, pack, unpack},
    chain,
};
pub(super) use layers::Layers;
use serde_json::json;
use tree::{Lines, Tar};

use super::Own;

/// What comes in is its owner's; the disk ends before this does.
const BOUNDS: Bounds = Bounds { entries: 100_000_000, bytes: u64::MAX };
/// Bytes of a command line that are shown.
const COMMAND: u64 = 4096;
/// Bytes of the streams' buffers.
const BUFFER: usize = 64 * 1024;

/// Runs it; gives its exit status.
pub(super) fn run(own: &Own, layers: Option<&Layers>) -> i32 {
    let (words, status) = match act(own, layers) {
        Ok(said) => (said, 0),
        Err(Failed { why, absent: true }) => (why, ABSENT),
        Err(Failed { why, absent: false }) => (why, 1),
    };
    if !words.is_empty() {
        let _ = io::stderr().write_all(format!("{words}\n").as_bytes());
    }
    status
}

/// Why it failed, and whether what was named is not there.
struct Failed {
    why: String,
    absent: bool,
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self { why: error.to_string(), absent: error.kind() == io::ErrorKind::NotFound }
    }
}

impl Failed {
    fn while_doing(self, what: impl std::fmt::Display) -> Self {
        Self { why: format!("{what}: {}", self.why), ..self }
    }
}

/// What is to be said besides.
fn act(own: &Own, layers: Option<&Layers>) -> Result<String, Failed> {
    match own {
        Own::ReadFiles { path, follow } => {
            let path = Path::new(OsStr::from_bytes(path));
            let packed = output().and_then(|mut stream| pack(path, *follow, &mut stream));
            let packed = packed
                .map_err(|error| Failed::from(error).while_doing(format_args!("cannot read {}", path.display())))?;
            Ok(match packed.left_out {
                0 => String::new(),
                count => format!("{count} devices, sockets, pipes or endless files were left out"),
            })
        }
        Own::ReadRoot | Own::ReadChanges { .. } => {
            let read = || {
                let layers = layers.ok_or(io::ErrorKind::NotFound)?;
                match own {
                    Own::ReadChanges { contents: false } => layers.changes(Lines(output()?)),
                    Own::ReadChanges { contents: true } => layers.changes(Tar::new(output()?)),
                    _ => layers.root(Tar::new(output()?)),
                }
            };
            let left_out =
                read().map_err(|error| Failed::from(error).while_doing("cannot read the root file system"))?;
            Ok(match left_out {
                0 => String::new(),
                count => format!("{count} devices, sockets or files with names of whiteouts were left out"),
            })
        }
        Own::WriteFiles { to, name, contents, owners } => {
            let stdin = rustix::io::dup(rustix::stdio::stdin()).map_err(io::Error::from)?;
            let source = Source { name: name.clone(), contents: *contents };
            let keep = Keep { owners: *owners, special_bits: true };
            let mut stream = BufReader::with_capacity(BUFFER, File::from(stdin));
            let made = unpack(&mut stream, &source, to, keep, BOUNDS);
            made.map_err(|error| Failed { why: chain(&error), absent: error.is_absent() })?;
            Ok(String::new())
        }
        Own::ListPrograms => {
            let listed = output().and_then(|mut stream| list(Path::new("/proc"), &mut stream));
            listed.map_err(|error| Failed::from(error).while_doing("cannot list programs"))?;
            Ok(String::new())
        }
    }
}

fn output() -> io::Result<BufWriter<File>> {
    Ok(BufWriter::with_capacity(BUFFER, rustix::io::dup(rustix::stdio::stdout())?.into()))
}

/// Every process but this one.
fn list(proc: &Path, to: &mut impl Write) -> io::Result<()> {
    let this = std::process::id();
    let names = fs::read_dir(proc)?;
    let mut pids: Vec<u32> = names.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    for pid in pids.into_iter().filter(|pid| *pid != this) {
        // One that has ended meanwhile is not there.
        if let Some(line) = described(&proc.join(pid.to_string()), pid) {
            writeln!(to, "{line}")?;
        }
    }
    to.flush()
}

/// Source: proc_pid_stat(5), proc_pid_status(5), proc_pid_cmdline(5).
fn described(folder: &Path, pid: u32) -> Option<serde_json::Value> {
    let stat = fs::read(folder.join("stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // The name may hold anything, a parenthesis too.
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let ticks = number(11)?.saturating_add(number(12)?);
    let status = fs::read(folder.join("status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    let uid: u32 =
        status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?.parse().ok()?;
    let mut command = Vec::new();
    File::open(folder.join("cmdline")).ok()?.take(COMMAND).read_to_end(&mut command).ok()?;
    while command.last() == Some(&0) {
        command.pop();
    }
    let command = match command.as_slice() {
        [] => format!("[{name}]"),
        words => String::from_utf8_lossy(words).replace('\0', " "),
    };
    Some(json!({
        "pid": pid,
        "parent": number(1)?,
        "uid": uid,
        "state": fields.first()?,
        "milliseconds": ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second().max(1),
        "resident": number(21)?.saturating_mul(rustix::param::page_size() as u64),
        "command": command,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("7");
        fs::create_dir(&at).unwrap();
        let stat = "7 (a) R 9 () S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 1 0 99 4096 2 0";
        fs::write(at.join("stat"), stat).unwrap();
        fs::write(at.join("status"), "Name:\ta\nUid:\t1000\t1\t2\t3\n").unwrap();
        fs::write(at.join("cmdline"), "sh\0-c\0a b\0").unwrap();
        fs::create_dir(folder.path().join("8")).unwrap();
        fs::create_dir(folder.path().join("self")).unwrap();
        let mut lines = Vec::new();
        list(folder.path(), &mut lines).unwrap();
        let line: serde_json::Value = serde_json::from_slice(&lines).unwrap();
        let (page, command) = (rustix::param::page_size(), "sh -c a b");
        let times = json!({ "state": "S", "milliseconds": 2000, "resident": 2 * page, "command": command });
        let mut told = json!({ "pid": 7, "parent": 1, "uid": 1000 });
        told.as_object_mut().unwrap().extend(times.as_object().unwrap().clone());
        assert_eq!(line, told);
        fs::write(at.join("cmdline"), "").unwrap();
        assert_eq!(described(&at, 7).unwrap()["command"], "[a) R 9 (]");
    }
}
