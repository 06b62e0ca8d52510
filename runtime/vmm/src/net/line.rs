//! The socket to the peer: frames behind their lengths, in both directions, bounded and without waiting.

use std::io::{ErrorKind, Read as _};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::SendFlags;

/// Shortest frame: an Ethernet header.
pub const SHORTEST: usize = 14;
/// Longest frame: the longest IP packet, behind an Ethernet header.
pub const LONGEST: usize = 65_550;
/// Bytes of a length.
const PREFIX: usize = 4;
/// Bytes that are sent in one go. With one more frame, the most that waits for the peer.
const BATCH: usize = 64 << 10;
/// How long the guest's frames wait for a peer that takes none.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Why there is no peer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// It closed the socket, or it failed.
    #[error("its other end is gone")]
    Gone,
    /// What it sends is no sequence of frames.
    #[error("its other end said a frame of {0} bytes, and a frame has {SHORTEST} to {LONGEST}")]
    Length(u32),
}

/// What the peer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// A frame.
    Now,
    /// Nothing at the moment.
    Later,
    /// Nothing, and for so long that frames are dropped.
    Nothing,
}

/// The socket, what was heard from it and what is to be said.
#[derive(Debug)]
pub struct Line {
    socket: UnixStream,
    heard: Box<[u8]>,
    /// The part of `heard` that holds bytes.
    start: usize,
    end: usize,
    said: Vec<u8>,
    /// Bytes of `said` that are sent.
    sent: usize,
    stuck_since: Option<Instant>,
    lost: Option<Lost>,
}

impl Line {
    /// The line over this socket.
    ///
    /// # Errors
    /// If the kernel does not make it one that never waits.
    pub fn new(socket: UnixStream) -> std::io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            heard: vec![0; 2 * (PREFIX + LONGEST)].into(),
            start: 0,
            end: 0,
            said: Vec::with_capacity(BATCH + PREFIX + LONGEST),
            sent: 0,
            stuck_since: None,
            lost: None,
        })
    }

    /// The socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Why there is no peer, if there is none.
    pub const fn lost(&self) -> Option<Lost> {
        self.lost
    }

    /// Since when the peer takes nothing.
    pub const fn stuck_since(&self) -> Option<Instant> {
        self.stuck_since
    }

    /// The next frame of the peer, if it is whole. It stays the next until it is [taken](Self::take).
    pub fn frame(&mut self) -> Option<&[u8]> {
        loop {
            if let Some(length) = self.next_length() {
                if !(SHORTEST..=LONGEST).contains(&(length as usize)) {
                    self.lose(Lost::Length(length));
                    return None;
                }
                let whole = PREFIX + length as usize;
                if self.end - self.start >= whole {
                    return Some(&self.heard[self.start + PREFIX..self.start + whole]);
                }
            }
            if !self.hear() {
                return None;
            }
        }
    }

    /// Goes on behind the frame that is the next one.
    pub fn take(&mut self) {
        if let Some(length) = self.next_length() {
            self.start = self.end.min(self.start + PREFIX + length as usize);
        }
    }

    fn next_length(&self) -> Option<u32> {
        self.heard[self.start..self.end].first_chunk().map(|length| u32::from_be_bytes(*length))
    }

    /// Reads on, and says whether there was anything. There is room for the rest of a frame whenever one is not whole.
    fn hear(&mut self) -> bool {
        if self.heard.len() - self.start < PREFIX + LONGEST || self.start == self.end {
            self.heard.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        while self.lost.is_none() {
            match self.socket.read(&mut self.heard[self.end..]) {
                Ok(0) => self.lose(Lost::Gone),
                Ok(count) => {
                    self.end += count;
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(_) => self.lose(Lost::Gone),
            }
        }
        false
    }

    /// What the peer takes now.
    pub fn takes(&mut self) -> Takes {
        if self.said.len() >= BATCH {
            self.flush();
        }
        match self.stuck_since {
            _ if self.lost.is_some() => Takes::Nothing,
            Some(since) if now().duration_since(since) >= PATIENCE => Takes::Nothing,
            Some(_) => Takes::Later,
            None => Takes::Now,
        }
    }

    /// Says a frame of `length` bytes to a peer that takes one; `fill` puts them in place.
    pub fn say(&mut self, length: usize, fill: impl FnOnce(&mut [u8])) {
        self.said.extend((length as u32).to_be_bytes());
        let at = self.said.len();
        self.said.resize(at + length, 0);
        fill(&mut self.said[at..]);
    }

    /// Sends what waits, as far as the peer takes it.
    pub fn flush(&mut self) {
        while self.lost.is_none() && self.sent < self.said.len() {
            match rustix::net::send(&self.socket, &self.said[self.sent..], SendFlags::NOSIGNAL) {
                Ok(count) => {
                    self.sent += count;
                    self.stuck_since = None;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.stuck_since.get_or_insert_with(now);
                    return;
                }
                Err(_) => self.lose(Lost::Gone),
            }
        }
        self.said.clear();
        (self.sent, self.stuck_since) = (0, None);
    }

    /// Tells the peer too.
    fn lose(&mut self, why: Lost) {
        self.lost.get_or_insert(why);
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// The time by which the devices of a network wait and forget.
#[cfg(not(test))]
pub fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
pub use clock::now;

/// The time of tests: it stands still until it is moved, however long the machine lets a test wait.
#[cfg(test)]
pub mod clock {
    use std::cell::Cell;
    use std::time::{Duration, Instant};

    thread_local! {
        static NOW: Cell<Instant> = Cell::new(Instant::now());
    }

    pub fn now() -> Instant {
        NOW.get()
    }

    pub fn pass(time: Duration) {
        NOW.set(now() + time);
    }
}
