//! The process that holds a box in namespaces: it makes them as root of the host, starts init in them, and stays as the one
//! that ends them.
//!
//! ```text
//! holder (root of the host) ── user ids, images, tap ── fork ─▶ PID 1 (root of the host, host's files gone) ── ids ─▶ init (nobody here)
//! ```
//!
//! Trusts: the files of the box folder, and the line to the supervisor. Never: reads what the box says, or lets it have a
//! descriptor, a folder or an id of the host's but those it is made of.
//! Source: namespaces(7), pid_namespaces(7), user_namespaces(7).

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use coffer_machine::namespaces::{IDS, PROCESSES};
use coffer_rim::{Class, Classify as _, Failure};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, set_parent_process_death_signal, waitpid,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::card::Card;
use super::group::Group;
use super::inside::{Made, enter_and_become_init};
use super::kept_init;
use super::order::{Folder, Order, word};
use crate::boxes::files;
use crate::home::private_folder;
use crate::sys::namespaces::{Forked, Spaces, fork, mount_folder, mount_image, read_only, spaces, unshare};

/// What a signal's number is added to where a status says it.
pub const SIGNALLED: u8 = 128;

/// Holds the box whose order comes on standard input, in whose folder this process runs, and gives init's status. `line`: standard
/// input.
///
/// # Errors
/// Class `platform`: what this host does not let us do.
pub fn hold(line: OwnedFd) -> Result<u8, Failure> {
    // The line says when the supervisor is gone, and then the box is to be ended, not this process alone: the kernel ends only
    // an init that has not undone it.
    set_parent_process_death_signal(None).map_err(io::Error::from)?;
    let line = UnixStream::from(line);
    let order = Order::read(&line)?;

    let ids =
        Ids::claim(Path::new(TAKEN)).map_err(|failure| failure.while_doing("cannot choose user ids for the box"))?;
    let group = Group::make(&order.limits)?;
    let listener = UnixListener::bind(files::VSOCK).class_while(Class::Config, "cannot listen for the box")?;
    let lines = lines_of_the_host(ids.first)?;
    let Spaces { users, network } = spaces(ids.first, IDS, PROCESSES)
        .class_while(Class::Platform, "cannot make a user namespace (it takes root of this machine)")?;
    let init = kept_init::open(Path::new(kept_init::KEPT), &order.initrd)?;
    let card = order.card.as_ref().map(|card| Card::plug(card, &network)).transpose()?;
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
    let mut folders = Vec::with_capacity(order.folders.len());
    for Folder { serial, path, writes } in &order.folders {
        let what = format!(
            "cannot mount {} for the box: its file system has to map users (ext4, xfs and btrfs do)",
            path.display()
        );
        folders.push((serial.clone(), mount_folder(path, *writes, &users).class_while(Class::Platform, what)?));
    }
    let (mut failed, says) = UnixStream::pair()?;
    unshare(UnshareFlags::NEWPID).class_while(Class::Platform, "cannot make a process id namespace")?;
    let child = match fork().class_while(Class::Platform, "cannot start init")? {
        Forked::Child => {
            drop((failed, line, card));
            let made =
                Made { order, init, listener, lines, users, network, images, folders, parent: says.try_clone()? };
            let joined = group.as_ref().map_or(Ok(()), Group::join);
            let failure = match joined.and_then(|()| enter_and_become_init(made)) {
                Ok(never) => match never {},
                Err(failure) => failure,
            };
            // The group is the holder's to remove.
            std::mem::forget(group);
            // Or the holder would take the end of the line for a start.
            (&says).write_all(&[1])?;
            return Err(failure);
        }
        Forked::Parent(child) => child,
    };
    drop((order, init, listener, lines, users, network, images, folders, says));
    if let Some(card) = card {
        // Children were to be of another namespace, and a thread is of its process's. No fork follows, which takes that there is one.
        let own = File::open("/proc/self/ns/pid")?;
        move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::ProcessID)).map_err(io::Error::from)?;
        card.carry()?;
    }
    if !may_begin(&line, &failed)? {
        end(child)?;
        return Err(Failure::new(Class::Platform, "nobody wants the box any more"));
    }
    // Fails where it ended meanwhile, which the next line hears.
    let _ = failed.write_all(&[word::BEGIN]);
    if failed.read(&mut [0])? != 0 {
        waitpid(Some(child), WaitOptions::empty()).map_err(io::Error::from)?;
        return Err(Failure::new(Class::Platform, "init was not started"));
    }
    (&line).write_all(&[word::RUNS])?;
    let status = wait_for(child, &line);
    drop((group, ids));
    status.map_err(Failure::from)
}

/// Waits until init may run, or was not started (`failed` says it). False: nobody wants it any more.
fn may_begin(line: &UnixStream, failed: &UnixStream) -> io::Result<bool> {
    let mut either = [PollFd::new(line, PollFlags::IN), PollFd::new(failed, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut either, None))?;
    if !either[1].revents().is_empty() {
        return Ok(true);
    }
    let mut byte = [0];
    Ok(rustix::io::read(line.as_fd(), &mut byte)? == 1 && byte[0] == word::BEGIN)
}

/// Ends the box before it began.
fn end(child: Pid) -> io::Result<()> {
    pidfd_send_signal(pidfd_open(child, PidfdFlags::empty())?, Signal::KILL)?;
    waitpid(Some(child), WaitOptions::empty())?;
    Ok(())
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
        let socket = super::inside::detached(&name)?;
        read_only(&socket)?;
        lines.push((port.to_owned(), socket));
    }
    Ok(lines)
}

/// User ids that no other box of this host has while this one runs.
struct Ids {
    first: u32,
    /// Locked: nobody else has them while this process lives.
    _taken: File,
}

/// The ids boxes get, as ranges of [`IDS`]. They lie above those of people, of the ranges that containers of theirs get by
/// default, and of services.
const FIRST_RANGE: u32 = 0x4000_0000 / IDS;
const RANGES: u32 = 4096;
/// A file for each range that some box had. Root's, so that nobody else takes ranges away.
const TAKEN: &str = "/run/coffer-ids";

impl Ids {
    fn claim(folder: &Path) -> Result<Self, Failure> {
        private_folder(folder).class(Class::Platform)?;
        // Anywhere, so that boxes seldom meet; any that is free will do.
        let start = std::process::id();
        for step in 0..RANGES {
            let range = FIRST_RANGE + start.wrapping_add(step) % RANGES;
            let file = File::options().create(true).truncate(false).write(true).open(folder.join(range.to_string()))?;
            match file.try_lock() {
                Ok(()) => return Ok(Self { first: range * IDS, _taken: file }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
        }
        Err(Failure::new(Class::Platform, format!("all {RANGES} ranges of user ids are taken by boxes")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_boxes_never_have_an_id_in_common() {
        let folder = tempfile::tempdir().unwrap();
        let claim = || Ids::claim(folder.path()).unwrap();
        let (one, other) = (claim(), claim());
        assert!(one.first.abs_diff(other.first) >= IDS);
        for ids in [&one, &other] {
            assert!(ids.first >= 0x4000_0000 && ids.first % IDS == 0 && ids.first.checked_add(IDS).is_some());
        }
        let first = one.first;
        drop(one);
        assert_eq!(claim().first, first, "free again with the box that had them");
    }
}
