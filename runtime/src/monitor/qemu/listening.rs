//! Whether a program listens at its socket already: between making one and listening there is a moment in which whoever connects is
//! refused.
//!
//! Source: proc_pid_fd(5), /proc/net/unix in unix(7) and the kernel's net/unix/af_unix.c. Never: connects, which would be the program's
//! one connection.

use std::collections::HashSet;
use std::fs;

/// Flag of a socket that listens (`__SO_ACCEPTCON`).
const LISTENS: u32 = 1 << 16;

/// The process has a Unix socket of this name, as it was bound, that listens.
pub fn listens(process: u32, name: &str) -> bool {
    let own = sockets(process);
    let all = fs::read_to_string(format!("/proc/{process}/net/unix")).unwrap_or_default();
    all.lines().any(|line| listening(line).is_some_and(|(inode, bound)| bound == name && own.contains(inode)))
}

/// The numbers of a process's sockets.
fn sockets(process: u32) -> HashSet<String> {
    let open = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let targets = open.filter_map(|entry| fs::read_link(entry.path()).ok()?.into_os_string().into_string().ok());
    targets.filter_map(|target| Some(target.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())).collect()
}

/// Number and name of a socket that listens, of a line `Num RefCount Protocol Flags Type St Inode Path`.
fn listening(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_ascii_whitespace();
    let flags = u32::from_str_radix(words.nth(3)?, 16).ok()?;
    let (inode, name) = (words.nth(2)?, words.next()?);
    (flags & LISTENS != 0).then_some((inode, name))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};

    use super::*;

    #[test]
    fn a_socket_that_is_only_bound_does_not_listen_yet() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("it");
        let name = path.to_str().unwrap();
        let own = std::process::id();
        let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        assert!(path.exists() && !listens(own, name));
        assert!(std::os::unix::net::UnixStream::connect(&path).is_err(), "as whoever connects finds");
        listen(&socket, 1).unwrap();
        assert!(listens(own, name));
        assert!(!listens(own, "it"), "a name as it was bound");
    }

    #[test]
    fn another_processs_socket_is_not_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("it");
        let _listener = UnixListener::bind(&path).unwrap();
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(!listens(other.id(), path.to_str().unwrap()));
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(!listens(other.id(), path.to_str().unwrap()), "nor one that is gone");
    }
}
