//! One stream: its credit in both directions, and what waits for a Unix socket that takes no more.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

use vm_memory::{ReadVolatile as _, VolatileSlice, WriteVolatile as _};

use super::packet::{Header, NO_MORE_READING, NO_MORE_WRITING, Operation, Ports};
use crate::virtio::chain::Buffers;

/// Bytes we keep for a stream: what a guest may send before the host's end reads.
pub const ROOM: u32 = 256 << 10;
/// Most bytes of a packet to the guest. What Linux's driver has buffers for.
pub const MOST_DATA: usize = 64 << 10;
/// Most packets the guest was sent and did not say it read. Linux counts each by more than its bytes and resets a stream
/// with many small ones; meanwhile more bytes gather in the socket and become one packet.
const MOST_UNREAD_PACKETS: usize = 64;

/// How far a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The host asked the guest for it.
    Asked,
    /// Both ends have it.
    Open,
}

/// One stream.
#[derive(Debug)]
pub struct Stream {
    /// Its ports.
    pub ports: Ports,
    /// How far it is.
    pub phase: Phase,
    /// The host's end.
    pub socket: UnixStream,
    /// The socket may have something to read.
    pub readable: bool,
    /// The host's end is closed, not only done writing.
    pub gone: bool,
    /// It stands in the line of those that may have bytes for the guest.
    pub queued: bool,
    waiting: VecDeque<u8>,
    /// Bytes passed on to the socket, in all.
    forwarded: u32,
    told_forwarded: u32,
    /// Bytes sent to the guest, in all.
    sent: u32,
    /// Ends of the packets the guest did not say it read.
    unread: VecDeque<u32>,
    asked_for_credit: bool,
    peer_buffer: u32,
    peer_forwarded: u32,
    /// The guest writes no more.
    guest_done: bool,
    /// The guest reads no more.
    guest_deaf: bool,
    /// The host's end writes no more, and the guest was told.
    host_done: bool,
}

/// What becomes of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Lives,
    /// It is over; the guest is told.
    Reset,
}

impl Stream {
    /// A stream over this socket, which does not block.
    pub fn new(ports: Ports, phase: Phase, socket: UnixStream) -> Self {
        Self {
            ports,
            phase,
            socket,
            readable: true,
            gone: false,
            queued: false,
            waiting: VecDeque::new(),
            forwarded: 0,
            told_forwarded: 0,
            sent: 0,
            unread: VecDeque::new(),
            asked_for_credit: false,
            peer_buffer: 0,
            peer_forwarded: 0,
            guest_done: false,
            guest_deaf: false,
            host_done: false,
        }
    }

    /// A packet of this stream without bytes.
    pub fn header(&mut self, operation: Operation) -> Header {
        self.told_forwarded = self.forwarded;
        Header { ports: self.ports, operation, length: 0, flags: 0, buffer: ROOM, forwarded: self.forwarded }
    }

    /// Takes what every packet says about the guest's room.
    pub fn credit(&mut self, header: &Header) {
        // One question for each step forward: a guest whose program reads nothing would be asked for ever.
        if (header.buffer, header.forwarded) != (self.peer_buffer, self.peer_forwarded) {
            self.asked_for_credit = false;
        }
        self.peer_buffer = header.buffer;
        self.peer_forwarded = header.forwarded;
        let read = |end: &u32| header.forwarded.wrapping_sub(*end) < u32::MAX / 2;
        while self.unread.front().is_some_and(read) {
            self.unread.pop_front();
        }
    }

    /// Bytes the guest has room for.
    fn room(&self) -> usize {
        let in_flight = self.sent.wrapping_sub(self.peer_forwarded);
        self.peer_buffer.saturating_sub(in_flight) as usize
    }

    /// There may be bytes for the guest, and it may be sent some.
    pub fn can_send(&self) -> bool {
        self.phase == Phase::Open
            && self.readable
            && !self.host_done
            && !self.guest_deaf
            && self.room() > 0
            && self.unread.len() < MOST_UNREAD_PACKETS
    }

    /// The guest has to be asked for its room, or nothing goes on. True once.
    pub fn must_ask(&mut self) -> bool {
        let stuck = self.phase == Phase::Open && self.readable && !self.host_done && !self.can_send();
        let ask = stuck && !self.guest_deaf && !self.asked_for_credit;
        self.asked_for_credit |= ask;
        ask
    }

    /// Reads from the socket into the guest's buffers: the packet they become, or none.
    ///
    /// # Errors
    /// If the host's end is gone.
    pub fn send(&mut self, buffers: &Buffers<'_>) -> io::Result<Option<Header>> {
        let mut left = self.room().min(MOST_DATA);
        let mut count = 0;
        for slice in buffers.slices() {
            let part = slice.len().min(left);
            if part == 0 {
                break;
            }
            let mut part = slice.subslice(0, part).map_err(io::Error::other)?;
            match self.socket.read_volatile(&mut part) {
                Ok(0) => {
                    if count == 0 {
                        self.host_done = true;
                        let mut header = self.header(Operation::Shutdown);
                        header.flags = NO_MORE_WRITING | if self.gone { NO_MORE_READING } else { 0 };
                        return Ok(Some(header));
                    }
                    break;
                }
                Ok(read) => {
                    count += read;
                    left -= read;
                    if read < part.len() {
                        break;
                    }
                }
                Err(error) => match kind(error) {
                    Ok(ErrorKind::Interrupted) => break,
                    Ok(_) => {
                        self.readable = false;
                        break;
                    }
                    Err(error) => return Err(error),
                },
            }
        }
        if count == 0 {
            return Ok(None);
        }
        self.sent = self.sent.wrapping_add(count as u32);
        self.unread.push_back(self.sent);
        let mut header = self.header(Operation::Data);
        header.length = count as u32;
        Ok(Some(header))
    }

    /// Passes the guest's bytes on, and keeps what the socket does not take.
    pub fn receive(&mut self, data: &Buffers<'_>) -> Fate {
        let length = data.len();
        if self.guest_done || self.phase != Phase::Open || self.waiting.len() + length > ROOM as usize {
            return Fate::Reset;
        }
        for slice in data.slices() {
            let Ok(taken) = self.pass_on(slice) else { return Fate::Reset };
            self.forwarded = self.forwarded.wrapping_add(taken as u32);
            let Ok(rest) = slice.offset(taken) else { return Fate::Reset };
            let mut copy = vec![0; rest.len()];
            rest.copy_to(&mut copy);
            self.waiting.extend(copy);
        }
        Fate::Lives
    }

    /// Passes on as much as the socket takes, if nothing waits already.
    fn pass_on(&mut self, slice: &VolatileSlice<'_>) -> io::Result<usize> {
        let mut taken = 0;
        while self.waiting.is_empty() && taken < slice.len() {
            match self.socket.write_volatile(&slice.offset(taken).map_err(io::Error::other)?) {
                Ok(count) => taken += count,
                Err(error) => match kind(error)? {
                    ErrorKind::Interrupted => {}
                    _ => break,
                },
            }
        }
        Ok(taken)
    }

    /// Passes on what waited.
    pub fn flush(&mut self) -> Fate {
        while !self.waiting.is_empty() {
            match self.socket.write(self.waiting.as_slices().0) {
                Ok(count) => {
                    self.waiting.drain(..count);
                    self.forwarded = self.forwarded.wrapping_add(count as u32);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Fate::Lives,
                Err(_) => return Fate::Reset,
            }
        }
        self.waiting.shrink_to(MOST_DATA);
        self.end()
    }

    /// The guest reads or writes no more.
    pub fn shutdown(&mut self, flags: u32) -> Fate {
        self.guest_deaf |= flags & NO_MORE_READING != 0;
        self.guest_done |= flags & NO_MORE_WRITING != 0;
        self.end()
    }

    /// What the ends that are done mean, once nothing waits.
    fn end(&mut self) -> Fate {
        if !self.waiting.is_empty() {
            return Fate::Lives;
        }
        if self.guest_done && self.guest_deaf {
            return Fate::Reset;
        }
        if self.guest_done && self.socket.shutdown(Shutdown::Write).is_err() {
            return Fate::Reset;
        }
        Fate::Lives
    }

    /// The guest knows of so little room that it might stop, though there is more.
    pub fn should_tell(&self) -> bool {
        self.phase == Phase::Open && self.forwarded.wrapping_sub(self.told_forwarded) >= ROOM / 4
    }

    /// Neither end has anything left to say.
    pub fn is_over(&self) -> bool {
        self.host_done && self.guest_done && self.waiting.is_empty()
    }
}

fn kind(error: vm_memory::VolatileMemoryError) -> io::Result<ErrorKind> {
    match error {
        vm_memory::VolatileMemoryError::IOError(error) => match error.kind() {
            kind @ (ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(kind),
            _ => Err(error),
        },
        other => Err(io::Error::other(other)),
    }
}

/// Reads the line with which somebody asks for a port, one byte at a time: what follows is the guest's.
///
/// # Errors
/// If it is no such line, or the other end is gone. `Ok(None)`: it is not whole yet.
pub fn asked_port(socket: &mut UnixStream, line: &mut Vec<u8>) -> io::Result<Option<u32>> {
    loop {
        let mut byte = [0];
        match socket.read(&mut byte) {
            Ok(1) if byte == *b"\n" => break,
            Ok(1) if line.len() < LONGEST_LINE => line.extend(byte),
            Ok(_) => return Err(ErrorKind::InvalidData.into()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let port = line.strip_prefix(b"CONNECT ").and_then(|port| std::str::from_utf8(port).ok()?.parse().ok());
    port.map(Some).ok_or_else(|| ErrorKind::InvalidData.into())
}

/// `CONNECT ` and a number.
const LONGEST_LINE: usize = 32;

/// Connects without waiting: a listener whose backlog is full counts as none.
pub fn connect(name: &Path) -> io::Result<UnixStream> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(name)?)?;
    Ok(UnixStream::from(socket))
}
