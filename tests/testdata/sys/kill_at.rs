//! Runs a program, and kills the process of its that is about to make its Nth change of the file system: with SIGKILL, before that
//! change. Counts over all of its processes and threads. Needs nothing but libc.
//!
//! usage: `kill_at LOG N PROGRAM [WORD]...`. LOG gets a line for each change, `NUMBER CALL PATH`; N = 0 kills nobody. Ends as PROGRAM does.

use std::{
    env,
    ffi::{CString, OsString, c_char, c_int, c_long, c_uint, c_void},
    fs::{self, File},
    io::{self, Write as _},
    os::unix::{ffi::OsStringExt as _, fs::FileExt as _},
    process::exit,
};

unsafe extern "C" {
    fn ptrace(request: c_uint, pid: c_int, address: usize, data: usize) -> c_long;
    fn fork() -> c_int;
    fn raise(signal: c_int) -> c_int;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn execv(path: *const c_char, words: *const *const c_char) -> c_int;
}

const CONT_TO_SYSCALL: c_uint = 24; // PTRACE_SYSCALL
const SEIZE: c_uint = 0x4206;
const SYSCALL_INFO: c_uint = 0x420e; // PTRACE_GET_SYSCALL_INFO
/// TRACESYSGOOD, TRACEFORK, TRACEVFORK, TRACECLONE, TRACEEXEC.
const OPTIONS: usize = 1 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4;
const WALL: c_int = 0x4000_0000;
const WUNTRACED: c_int = 2;
const SIGKILL: c_int = 9;
const SIGTRAP: c_int = 5;
const SIGCONT: c_int = 18;
const SIGSTOP: c_int = 19;

/// `struct ptrace_syscall_info` at the entry of a call.
#[repr(C)]
#[derive(Default)]
struct Info {
    op: u8,
    _pad: [u8; 3],
    _arch: u32,
    _pointers: [u64; 2],
    number: u64,
    arguments: [u64; 6],
    _rest: [u64; 2],
}

const ENTRY: u8 = 1;

/// What is changed: by a path and what it starts from, at these arguments, or an open file at this one.
enum What {
    Path(usize),
    At(usize, usize),
    File(usize),
    /// Where its flags, at this argument, say that it makes or empties a file.
    Open(usize, usize, usize),
}

/// Numbers of x86-64. What follows no path, such as `fsync`, changes nothing that a killed process leaves.
const CHANGES: &[(u64, &str, What)] = &[
    (1, "write", What::File(0)),
    (18, "pwrite64", What::File(0)),
    (20, "writev", What::File(0)),
    (40, "sendfile", What::File(0)),
    (76, "truncate", What::Path(0)),
    (77, "ftruncate", What::File(0)),
    (82, "rename", What::Path(1)),
    (83, "mkdir", What::Path(0)),
    (84, "rmdir", What::Path(0)),
    (86, "link", What::Path(1)),
    (87, "unlink", What::Path(0)),
    (88, "symlink", What::Path(1)),
    (90, "chmod", What::Path(0)),
    (91, "fchmod", What::File(0)),
    (93, "fchown", What::File(0)),
    (2, "open", What::Open(usize::MAX, 0, 1)),
    (257, "openat", What::Open(0, 1, 2)),
    (258, "mkdirat", What::At(0, 1)),
    (259, "mknodat", What::At(0, 1)),
    (260, "fchownat", What::At(0, 1)),
    (263, "unlinkat", What::At(0, 1)),
    (264, "renameat", What::At(2, 3)),
    (265, "linkat", What::At(2, 3)),
    (266, "symlinkat", What::At(1, 2)),
    (268, "fchmodat", What::At(0, 1)),
    (285, "fallocate", What::File(0)),
    (296, "pwritev", What::File(0)),
    (316, "renameat2", What::At(2, 3)),
    (326, "copy_file_range", What::File(2)),
    (328, "pwritev2", What::File(0)),
];

/// O_CREAT, O_TRUNC, the bit of O_TMPFILE that is its own.
const MAKES: u64 = 0o100 | 0o1000 | 0o20_000_000;
const HERE: u64 = (-100_i64).cast_unsigned(); // AT_FDCWD

/// A text in the memory of a process.
fn text(pid: c_int, at: u64) -> Option<String> {
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut found = Vec::new();
    while found.len() < 4096 {
        let mut byte = [0];
        memory.read_exact_at(&mut byte, at + found.len() as u64).ok()?;
        if byte == [0] {
            break;
        }
        found.extend(byte);
    }
    Some(String::from_utf8_lossy(&found).into_owned())
}

fn open_file(pid: c_int, number: u64) -> Option<String> {
    let link = if number == HERE || number as u32 == HERE as u32 {
        format!("/proc/{pid}/cwd")
    } else {
        format!("/proc/{pid}/fd/{}", number as u32)
    };
    Some(fs::read_link(link).ok()?.to_string_lossy().into_owned())
}

/// Where a call changes the file system; nothing where it does not.
fn change(pid: c_int, info: &Info) -> Option<(&'static str, String)> {
    let (_, name, what) = CHANGES.iter().find(|(number, ..)| *number == info.number)?;
    let at = |from: usize, path: usize| {
        let path = text(pid, info.arguments[path])?;
        if path.starts_with('/') {
            return Some(path);
        }
        let from = info.arguments.get(from).copied().unwrap_or(HERE);
        Some(format!("{}/{path}", open_file(pid, from)?))
    };
    let path = match *what {
        What::Path(path) => at(usize::MAX, path)?,
        What::At(from, path) => at(from, path)?,
        What::Open(from, path, flags) if info.arguments[flags] & MAKES != 0 => at(from, path)?,
        What::Open(..) => return None,
        What::File(file) => open_file(pid, info.arguments[file])?,
    };
    let kept = path.starts_with('/') && !["/dev/", "/proc/", "/memfd:"].iter().any(|folder| path.starts_with(folder));
    kept.then_some((*name, path))
}

/// The process of a thread.
fn process(thread: c_int) -> Option<c_int> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

fn start(words: Vec<OsString>) -> c_int {
    let words: Vec<CString> = words.into_iter().map(|word| CString::new(word.into_vec()).unwrap()).collect();
    let pointers: Vec<_> = words.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect();
    // SAFETY: this process has one thread; the child stops and becomes a program, from memory that is there.
    match unsafe { fork() } {
        0 => {
            unsafe { raise(SIGSTOP) };
            unsafe { execv(pointers[0], pointers.as_ptr()) };
            exit(127);
        }
        child => child,
    }
}

fn wait(pid: c_int, options: c_int) -> Option<(c_int, c_int)> {
    let mut status = 0;
    // SAFETY: `status` lives through the call.
    let who = unsafe { waitpid(pid, &mut status, options) };
    (who > 0).then_some((who, status))
}

fn trace(request: c_uint, pid: c_int, address: usize, data: usize) -> c_long {
    // SAFETY: what the requests used here are given lives through the call; they write nowhere else.
    unsafe { ptrace(request, pid, address, data) }
}

fn main() -> io::Result<()> {
    let mut words = env::args_os().skip(1);
    let mut log = File::create(words.next().unwrap())?;
    let wanted: u64 = words.next().unwrap().to_string_lossy().parse().unwrap();
    let child = start(words.collect());
    wait(child, WUNTRACED).unwrap();
    assert!(trace(SEIZE, child, 0, OPTIONS) == 0, "cannot trace: {}", io::Error::last_os_error());
    // SAFETY: a signal to our child.
    unsafe { kill(child, SIGCONT) };
    let (mut count, mut lines) = (0, String::new());
    let status = loop {
        let Some((who, status)) = wait(-1, WALL) else { break 0 };
        let signal = (status >> 8) & 0xff;
        if status & 0xff != 0x7f {
            if who == child {
                break if status & 0x7f == 0 { signal } else { 128 + (status & 0x7f) };
            }
            continue;
        }
        let mut passed_on = 0;
        if signal == SIGTRAP | 0x80 {
            let mut info = Info::default();
            let at = (&raw mut info).cast::<c_void>() as usize;
            let got = trace(SYSCALL_INFO, who, size_of::<Info>(), at);
            if got > 0 && info.op == ENTRY && let Some((name, path)) = change(who, &info) {
                count += 1;
                lines.push_str(&format!("{count} {name} {path}\n"));
                if count == wanted && let Some(process) = process(who) {
                    // SAFETY: a signal. A call whose caller is to be killed is not made.
                    unsafe { kill(process, SIGKILL) };
                }
            }
        } else if status >> 16 == 0 && signal != SIGTRAP {
            passed_on = signal;
        }
        trace(CONT_TO_SYSCALL, who, 0, usize::try_from(passed_on).unwrap_or_default());
    };
    log.write_all(lines.as_bytes())?;
    // What runs still is let go of.
    exit(status)
}
