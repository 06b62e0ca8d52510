//! The agent's end of a program's terminal.
//!
//! Trusts: nothing that the program writes; its bytes are handed on as they are.

use std::{
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::net::UnixStream},
};

use rustix::{
    io::{read, write},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    termios::tcsetwinsize,
};
use tokio::io::unix::AsyncFd;

use crate::{container::TerminalSize, sys::descriptor::register};

/// A terminal that is to come from a program that starts.
pub(super) struct Awaited(UnixStream);

/// What is written here is typed at the program, and what the program shows is read here.
#[derive(Debug)]
pub struct Terminal(AsyncFd<OwnedFd>);

impl Awaited {
    /// It, and the standard input of the helper that starts the program.
    pub(super) fn new() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self(ours), theirs.into()))
    }

    /// Once the program runs: it was sent before.
    pub(super) fn come(self) -> io::Result<Terminal> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        recvmsg(&self.0, &mut [IoSliceMut::new(&mut byte)], &mut rights, flags)?;
        let descriptor = rights.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        Ok(Terminal(register(descriptor.ok_or(io::ErrorKind::InvalidData)?)?))
    }
}

impl Terminal {
    /// What the program shows next; an error once nothing has the terminal open any more.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(result) = ready.try_io(|terminal| Ok(read(terminal, &mut *buffer)?)) {
                return result;
            }
        }
    }

    /// Types at the program, however long it takes to read.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            if let Ok(result) = ready.try_io(|terminal| Ok(write(terminal, bytes)?)) {
                bytes = bytes.get(result?..).unwrap_or_default();
            }
        }
        Ok(())
    }

    /// Tells the program that its terminal has another size.
    ///
    /// # Errors
    /// The kernel's.
    pub fn resize(&self, size: TerminalSize) -> io::Result<()> {
        Ok(tcsetwinsize(&self.0, size.into())?)
    }
}
