//! A monitor that was taken over: a stand-in closes the jail as the monitor does, and then tries what an attacker would.
//!
//! Each attempt is a process of its own. It may end by the kernel's hand (a system call no thread of its kind makes), or say
//! what it was refused with; "reached" is a hole. Without the harness of other tests, whose threads the kernel would not let
//! leave the user namespace.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;

use coffer_vmm::jail;
use coffer_vmm::jail::filters::{Thread, limit};
use rustix::fs::{FallocateFlags, MemfdFlags};

type Attempt = (&'static str, fn() -> io::Result<()>);

/// What is tried with the filters of a thread, and what without them: the layers below have to hold by themselves.
const ATTEMPTS: &[Attempt] = &[
    ("read a file of the host", || File::open("/etc/passwd").map(drop)),
    ("read a file of the box", || File::open("secret").map(drop)),
    ("write into the box", || File::create("planted").map(drop)),
    ("list a folder", || std::fs::read_dir("/").map(drop)),
    ("read another process", || File::open("/proc/1/environ").map(drop)),
    ("open the hypervisor", || File::open("/dev/kvm").map(drop)),
    ("connect to the host's network", || {
        let port: u16 = std::env::var("PORT").unwrap_or_default().parse().unwrap_or(1);
        TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).map(drop)
    }),
    ("listen on the network", || TcpListener::bind(("127.0.0.1", 0)).map(drop)),
    ("start a program", || Command::new("/bin/true").status().map(drop)),
    ("end its parent", || {
        let parent = rustix::process::getppid().ok_or(io::ErrorKind::NotFound)?;
        Ok(rustix::process::test_kill_process(parent)?)
    }),
    ("become root again", || Ok(rustix::thread::set_thread_uid(rustix::process::Uid::ROOT)?)),
    ("mount something", || Ok(rustix::mount::mount("none", "/", "tmpfs", rustix::mount::MountFlags::empty(), None)?)),
    ("reach the socket of another box", || UnixStream::connect(std::env::var("OTHER").unwrap_or_default()).map(drop)),
];

/// What has to go on working, or no guest's stream would arrive.
const ALLOWED: &[Attempt] = &[("reach a listener of this box", || UnixStream::connect("v_1").map(drop))];

/// What every kind of thread does without asking for it. The C library's allocator makes system calls of its own.
const ORDINARY: &[Attempt] = &[("give memory back", || {
    // Below what the allocator maps for itself, and together more than it keeps.
    let blocks: Vec<Vec<u8>> = (0..16).map(|byte| vec![byte; 60 << 10]).collect();
    assert_eq!(std::hint::black_box(&blocks).len(), 16);
    Ok(())
})];

/// An attempt, and the threads that may.
type Filtered = (&'static str, fn() -> io::Result<()>, &'static [&'static str]);

/// Freeing a part of a file is done by an SEV-SNP guest's processors (pages that change hands) and by disks (blocks the guest
/// discards), and by no other thread. Making one longer is none's.
const FILTERED: &[Filtered] = &[
    ("free memory of a file", || fallocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE), &["snp", "disk"]),
    ("make a file longer", || fallocate(FallocateFlags::empty()), &[]),
];

/// A file that is open before the filters are there.
static HELD: OnceLock<OwnedFd> = OnceLock::new();

fn fallocate(flags: FallocateFlags) -> io::Result<()> {
    Ok(rustix::fs::fallocate(HELD.get().ok_or(io::ErrorKind::NotFound)?, flags, 0, 4096)?)
}

/// What only filters stand against where a host offers neither namespaces nor Landlock.
const UNSHADED: &[&str] = &["end its parent", "listen on the network", "become root again"];

fn main() {
    let words: Vec<_> = std::env::args().collect();
    if words.iter().any(|word| word == "--list") {
        if !words.iter().any(|word| word == "--ignored") {
            out("a_monitor_that_is_taken_over_reaches_nothing: test\n");
        }
    } else if let [_, stand_in, index, thread] = words.as_slice()
        && stand_in == "stand-in"
    {
        stand_in_for(index, thread);
    } else {
        a_monitor_that_is_taken_over_reaches_nothing();
    }
}

fn out(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

fn all() -> impl Iterator<Item = &'static Attempt> {
    ATTEMPTS.iter().chain(ALLOWED).chain(ORDINARY)
}

/// Number of the first of them, behind all others.
const FIRST_FILTERED: usize = ATTEMPTS.len() + ALLOWED.len() + ORDINARY.len();

fn names() -> impl Iterator<Item = &'static str> {
    Thread::ALL.iter().map(|(name, _)| *name)
}

fn stand_in_for(index: &str, thread: &str) {
    let index: usize = index.parse().unwrap();
    let attempt = match index.checked_sub(FIRST_FILTERED) {
        Some(filtered) => FILTERED[filtered].1,
        None => all().nth(index).unwrap().1,
    };
    HELD.set(rustix::fs::memfd_create("held", MemfdFlags::CLOEXEC).unwrap()).unwrap();
    let layers = jail::close(64).unwrap();
    let limits = Thread::ALL.iter().find(|(name, _)| *name == thread).map(|(_, kind)| *kind);
    // In a thread of its own, as the monitor's are: its allocations are not the first thread's.
    let tried = std::thread::spawn(move || {
        if let Some(kind) = limits {
            limit(kind).unwrap();
        }
        attempt()
    });
    let word = match tried.join().unwrap() {
        Ok(()) => "reached".to_string(),
        Err(error) => format!("refused: {error}"),
    };
    out(&format!("{word} namespaces={} landlock={}\n", layers.namespaces, layers.landlock));
}

fn try_it(index: usize, thread: &str, folder: &Path, other: &Path, port: u16) -> (ExitStatus, String) {
    let me = std::env::current_exe().unwrap();
    let mut command = Command::new(me);
    command.args(["stand-in", &index.to_string(), thread]).current_dir(folder);
    let output = command.env("OTHER", other).env("PORT", port.to_string()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status, said)
}

fn a_monitor_that_is_taken_over_reaches_nothing() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(one.path().join("secret"), "secret").unwrap();
    let _here = UnixListener::bind(one.path().join("v_1")).unwrap();
    let other = two.path().join("v_1");
    let _there = UnixListener::bind(&other).unwrap();
    let network = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = network.local_addr().unwrap().port();
    let mut holes = Vec::new();
    for (index, (what, _)) in all().enumerate() {
        let allowed = index >= ATTEMPTS.len();
        let ordinary = index >= ATTEMPTS.len() + ALLOWED.len();
        for thread in names().chain(["none"]) {
            if allowed && !ordinary && !["none", "vsock"].contains(&thread) {
                continue;
            }
            let (status, said) = try_it(index, thread, one.path(), &other, port);
            let reached = said.starts_with("reached");
            let stopped = status.signal() == Some(libc::SIGSYS) || said.starts_with("refused");
            let bare = thread == "none" && said.contains("namespaces=false") && said.contains("landlock=false");
            let excused = thread == "none" && UNSHADED.contains(what) || bare;
            if if allowed { !reached } else { reached && !excused || !reached && !stopped } {
                holes.push(format!("{what}, thread {thread}: {status}, {said}"));
            }
            out(&format!("{what}, thread {thread}: {status}, {said}\n"));
        }
    }
    for (index, (what, _, may)) in (FIRST_FILTERED..).zip(FILTERED) {
        for thread in names() {
            let (status, said) = try_it(index, thread, one.path(), &other, port);
            let stopped = status.signal() == Some(libc::SIGSYS);
            let reached = said.starts_with("reached");
            if if may.contains(&thread) { !reached } else { !stopped } {
                holes.push(format!("{what}, thread {thread}: {status}, {said}"));
            }
            out(&format!("{what}, thread {thread}: {status}, {said}\n"));
        }
    }
    assert!(holes.is_empty(), "{holes:#?}");
    assert!(!one.path().join("planted").exists());
}
