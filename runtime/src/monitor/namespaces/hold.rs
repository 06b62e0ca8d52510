//! The process that holds a box in namespaces: it makes them as root of the host, starts init in them, and stays as the one
//! that ends them.
//!
//! ```text
//! holder (root of the host) ── user ids, images ── fork ─▶ PID 1 (root of the host, host's files gone) ── ids ─▶ init (nobody here)
//! ```
//!
//! Trusts: the files of the box folder, and the line to the supervisor. Never: reads what the box says, or lets it have a
//! descriptor, a folder or an id of the host's but those it is made of.
//! Source: namespaces(7), pid_namespaces(7), user_namespaces(7).

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use coffer_machine::namespaces::IDS;
use coffer_rim::{Class, Classify as _, Failure};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid};
use rustix::thread::UnshareFlags;

use super::inside::{Made, enter_and_become_init};
use super::order::{Order, word};
use crate::boxes::files;
use crate::sys::namespaces::{Forked, fork, mount_image, unshare, user_namespace};

/// Longest order.
const LIMIT: u64 = 1 << 20;
/// What a signal's number is added to where a status says it.
pub const SIGNALLED: u8 = 128;

/// Holds the box whose order comes on standard input, in whose folder this process runs, and gives init's status. `line`: standard
/// input.
///
/// # Errors
/// Class `platform`: what this host does not let us do.
pub fn hold(line: OwnedFd) -> Result<u8, Failure> {
    let line = UnixStream::from(line);
    let mut text = String::new();
    BufReader::new(line.try_clone()?.take(LIMIT)).read_line(&mut text)?;
    let order: Order = serde_json::from_str(&text).class(Class::Internal)?;

    let ids = Ids::claim().class_while(Class::Platform, "cannot choose user ids for the box")?;
    let listener = UnixListener::bind(files::VSOCK).class_while(Class::Config, "cannot listen for the box")?;
    let lines = lines_of_the_host(ids.first)?;
    let users = user_namespace(ids.first, IDS)
        .class_while(Class::Platform, "cannot make a user namespace (it takes root of this machine)")?;
    let mut images = Vec::with_capacity(order.images.len());
    for image in &order.images {
        let file =
            File::open(&image.file).class_while(Class::Config, format!("cannot open {}", image.file.display()))?;
        let mounted = mount_image(&file, &users).class_while(
            Class::Platform,
            "cannot mount an image (it takes root of this machine, loop devices and EROFS)",
        )?;
        images.push((image.serial.clone(), file, mounted));
    }
    let (mut failed, says) = UnixStream::pair()?;
    unshare(UnshareFlags::NEWPID).class_while(Class::Platform, "cannot make a process id namespace")?;
    let child = match fork().class_while(Class::Platform, "cannot start init")? {
        Forked::Child => {
            drop((failed, line));
            let made = Made { order, listener, lines, users, images, parent: says.try_clone()? };
            let failure = match enter_and_become_init(made) {
                Ok(never) => match never {},
                Err(failure) => failure,
            };
            // Or the holder would take the end of the line for a start.
            (&says).write_all(&[1])?;
            return Err(failure);
        }
        Forked::Parent(child) => child,
    };
    drop((order, listener, lines, users, images, says));
    if failed.read(&mut [0])? != 0 {
        waitpid(Some(child), WaitOptions::empty()).map_err(io::Error::from)?;
        return Err(Failure::new(Class::Platform, "init was not started"));
    }
    (&line).write_all(&[word::RUNS])?;
    let status = wait_for(child, &line);
    drop(ids);
    status.map_err(Failure::from)
}

/// Waits for init, and ends it when the supervisor says so or is gone.
fn wait_for(child: Pid, line: &UnixStream) -> io::Result<u8> {
    let init = pidfd_open(child, PidfdFlags::empty())?;
    loop {
        let mut either = [PollFd::new(line, PollFlags::IN), PollFd::new(&init, PollFlags::IN)];
        match poll(&mut either, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        if !either[1].revents().is_empty() {
            break;
        }
        let mut byte = [0];
        match rustix::io::read(line.as_fd(), &mut byte) {
            Ok(1) if byte[0] != word::KILL => {}
            _ => {
                // All of the namespace goes with it. Waiting for it is what tells that all have gone.
                let _ = pidfd_send_signal(&init, Signal::KILL);
                break;
            }
        }
    }
    let Some((_, status)) = waitpid(Some(child), WaitOptions::empty())? else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let number = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    Ok(match (status.exit_status(), status.terminating_signal()) {
        (Some(status), _) => number(status),
        (None, Some(signal)) => SIGNALLED.saturating_add(number(signal)),
        (None, None) => u8::MAX,
    })
}

/// The sockets the supervisor listens on, which init may connect to: its own user's, and no other's.
fn lines_of_the_host(user: u32) -> Result<Vec<(String, OwnedFd)>, Failure> {
    let prefix = format!("{}_", files::VSOCK);
    let mut lines = Vec::new();
    for entry in fs::read_dir(".")? {
        let name = entry?.file_name();
        let Some(port) = name.to_str().and_then(|name| name.strip_prefix(&prefix)) else { continue };
        std::os::unix::fs::chown(&name, Some(user), Some(user))
            .class_while(Class::Platform, "cannot give the box its lines to the host")?;
        lines.push((port.to_owned(), super::inside::detached(&name)?));
    }
    Ok(lines)
}

/// User ids that no other box of this host has while this one runs.
struct Ids {
    first: u32,
    /// Its name says that they are taken: the kernel lets one process have it, and frees it with the process.
    _taken: UnixListener,
}

/// The ids boxes get, as ranges of [`IDS`]. They lie above those of people, of the ranges that containers of theirs get by
/// default, and of services.
const FIRST_RANGE: u32 = 0x4000_0000 / IDS;
const RANGES: u32 = 4096;

impl Ids {
    fn claim() -> io::Result<Self> {
        // Anywhere, so that boxes seldom meet; any that is free will do.
        let start = std::process::id();
        for step in 0..RANGES {
            let range = FIRST_RANGE + start.wrapping_add(step) % RANGES;
            let name = SocketAddr::from_abstract_name(format!("coffer-ids-{range}"))?;
            match UnixListener::bind_addr(&name) {
                Ok(taken) => return Ok(Self { first: range * IDS, _taken: taken }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AddrNotAvailable.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_boxes_never_have_an_id_in_common() {
        let (one, other) = (Ids::claim().unwrap(), Ids::claim().unwrap());
        assert!(one.first.abs_diff(other.first) >= IDS);
        for ids in [&one, &other] {
            assert!(ids.first >= 0x4000_0000 && ids.first % IDS == 0 && ids.first.checked_add(IDS).is_some());
        }
        let first = one.first;
        drop(one);
        assert_eq!(Ids::claim().unwrap().first, first, "free again with the box that had them");
    }
}
