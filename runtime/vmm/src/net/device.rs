//! The device: two queues around the line.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use rustix::event::PollFlags;
use virtio_queue::{Queue, QueueT as _};

use super::line::{LONGEST, Line, Lost, PATIENCE, SHORTEST, Takes};
use crate::Memory;
use crate::virtio::chain::{self, Buffers};
use crate::virtio::{Broken, Device, Interrupt, Waits};

/// virtio-net.
#[derive(Debug)]
pub struct Net {
    line: Line,
    mac: [u8; 6],
    mtu: u16,
    /// A frame may lie in several of the guest's buffers.
    mergeable: bool,
    /// The guest was told that the link is down.
    told_down: bool,
    /// The first of the guest's buffers that are too few for the next frame.
    held: Option<u16>,
    /// Frames of the guest wait for the peer.
    waiting: bool,
    /// There is more than one call may take, or more came meanwhile.
    again: bool,
    traffic: Arc<Traffic>,
}

/// What became of the guest's traffic, for whoever runs the guest.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Frames of the guest that were dropped: no frames, or nobody took them.
    pub dropped_from_guest: AtomicU64,
    /// Frames for the guest that were dropped: longer than its MTU, or than its buffers ever hold.
    pub dropped_to_guest: AtomicU64,
    /// Why the link went down.
    pub lost: OnceLock<Lost>,
}

impl Net {
    /// The card with this address, behind this socket. `mtu`: bytes of the longest packet.
    ///
    /// # Errors
    /// If the kernel does not make the socket one that never waits.
    pub fn new(socket: UnixStream, mac: [u8; 6], mtu: u16) -> io::Result<Self> {
        Ok(Self {
            line: Line::new(socket)?,
            mac,
            mtu,
            mergeable: false,
            told_down: false,
            held: None,
            waiting: false,
            again: false,
            traffic: Arc::default(),
        })
    }

    /// What becomes of its traffic.
    pub fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    /// Takes what the guest sends, and says whether it wants to hear of that.
    fn listen(&mut self, memory: &Memory, queue: &mut Queue) -> Result<bool, Broken> {
        let mut told = false;
        self.line.flush();
        for _ in 0..MOST_FRAMES {
            let takes = self.line.takes();
            self.waiting = takes == Takes::Later;
            if self.waiting {
                return Ok(told);
            }
            let Some(request) = chain::take(queue, memory)? else {
                self.line.flush();
                return Ok(told);
            };
            if !self.send(request.readable, takes)? {
                self.traffic.dropped_from_guest.fetch_add(1, Ordering::Relaxed);
            }
            told |= chain::give_back_together(queue, memory, &[(request.head, 0)])?;
        }
        self.line.flush();
        self.again = true;
        Ok(told)
    }

    /// Says a frame of the guest to the peer, unless it is none or nobody takes it.
    fn send(&mut self, mut frame: Buffers<'_>, takes: Takes) -> Result<bool, Broken> {
        let [flags, segments, ..] = frame.read::<HEADER>()?;
        let length = frame.len();
        // A frame that somebody else is to finish: not agreed on.
        let whole = flags & NEEDS_CHECKSUM == 0 && segments == 0;
        let sent = whole && takes == Takes::Now && (SHORTEST..=LONGEST).contains(&length);
        if sent {
            self.line.say(length, |to| {
                frame.copy_to(to);
            });
        }
        Ok(sent)
    }

    /// Gives the guest the peer's frames, as long as it has buffers, and says whether it wants to hear.
    fn speak(&mut self, memory: &Memory, queue: &mut Queue) -> Result<bool, Broken> {
        let mut told = false;
        for _ in 0..MOST_FRAMES {
            let longest = usize::from(self.mtu) + LINK_HEADER;
            let Some(frame) = self.line.frame() else { return Ok(told) };
            let delivery =
                if frame.len() > longest { Delivery::TooLong } else { deliver(frame, memory, queue, self.mergeable)? };
            match delivery {
                Delivery::Done(wants_to_hear) => told |= wants_to_hear,
                Delivery::TooLong => {
                    self.traffic.dropped_to_guest.fetch_add(1, Ordering::Relaxed);
                }
                Delivery::NoRoom { first } => {
                    self.held = Some(first);
                    return Ok(told);
                }
            }
            self.line.take();
        }
        self.again = true;
        Ok(told)
    }
}

enum Delivery {
    /// The frame is the guest's; whether it wants to hear.
    Done(bool),
    /// Longer than was agreed on, or its buffers never hold this frame.
    TooLong,
    /// It has too few of them yet, of which this is the first. The queue stands behind the last.
    NoRoom { first: u16 },
}

/// Puts a frame into the guest's next buffers.
fn deliver(frame: &[u8], memory: &Memory, queue: &mut Queue, mergeable: bool) -> Result<Delivery, Broken> {
    let first = queue.next_avail();
    let most = if mergeable { MOST_BUFFERS.min(queue.size().into()) } else { 1 };
    let (mut taken, mut room) = (Vec::new(), 0);
    while room < HEADER + frame.len() {
        if taken.len() == most {
            queue.set_next_avail(first);
            return Ok(Delivery::TooLong);
        }
        let Some(request) = chain::take(queue, memory)? else { return Ok(Delivery::NoRoom { first }) };
        room += request.writable.len();
        taken.push((request.head, request.writable));
    }
    let mut bytes = frame;
    let mut done = Vec::with_capacity(taken.len());
    let count = taken.len() as u16;
    for (index, (head, mut buffers)) in taken.into_iter().enumerate() {
        let mut written = 0;
        if index == 0 {
            let mut header = [0; HEADER];
            header[HEADER - 2..].copy_from_slice(&count.to_le_bytes());
            written += buffers.split_to(HEADER)?.copy_from(&header);
        }
        let part = buffers.copy_from(bytes);
        bytes = &bytes[part..];
        done.push((head, written + part));
    }
    chain::give_back_together(queue, memory, &done).map(Delivery::Done)
}

impl Device for Net {
    fn id(&self) -> u32 {
        1
    }

    fn features(&self) -> u64 {
        MTU | MAC | MERGEABLE | STATUS
    }

    fn queues(&self) -> usize {
        2
    }

    fn configuration(&self) -> Vec<u8> {
        let mut space = self.mac.to_vec();
        space.extend(u16::from(self.line.lost().is_none()).to_le_bytes());
        space.extend(1_u16.to_le_bytes());
        space.extend(self.mtu.to_le_bytes());
        space
    }

    fn serve(&mut self, memory: &Memory, queues: &mut [Queue]) -> Result<Interrupt, Broken> {
        let [to_guest, from_guest] = queues else { return Err(Broken::Parts) };
        (self.held, self.again) = (None, false);
        for queue in [&mut *to_guest, &mut *from_guest] {
            queue.disable_notification(memory).map_err(|_| Broken::Ring)?;
        }
        let mut told = self.listen(memory, from_guest)?;
        told |= self.speak(memory, to_guest)?;
        // The driver is asked to speak up behind the last of its buffers; only then those that are too few go back.
        let more_buffers = to_guest.enable_notification(memory).map_err(|_| Broken::Ring)?;
        if let Some(first) = self.held {
            to_guest.set_next_avail(first);
        }
        let more_frames = from_guest.enable_notification(memory).map_err(|_| Broken::Ring)?;
        // What came meanwhile is served by the next call: in between the guest hears of this one, and others have the device.
        self.again |= more_buffers && self.held.is_some() || more_frames && !self.waiting;
        Ok(Interrupt(told))
    }

    fn reset(&mut self) {
        // A frame that is half sent is sent whole: the peer would take what follows for its rest.
        (self.mergeable, self.held, self.waiting, self.again) = (false, None, false, false);
    }

    fn wakes(&self) -> Option<BorrowedFd<'_>> {
        Some(self.line.socket())
    }

    fn waits(&self) -> Waits {
        if self.again {
            return Waits { events: PollFlags::empty(), until: Some(Instant::now()) };
        }
        if self.line.lost().is_some() {
            return Waits::NONE;
        }
        let stuck_since = self.line.stuck_since();
        let mut events = PollFlags::empty();
        events.set(PollFlags::IN, self.held.is_none());
        events.set(PollFlags::OUT, stuck_since.is_some());
        // It may have passed since: then the frames that waited are dropped at once.
        let until = stuck_since.filter(|_| self.waiting).map(|since| since + PATIENCE);
        Waits { events, until }
    }

    fn start(&mut self, features: u64) {
        self.mergeable = features & MERGEABLE != 0;
    }

    fn changed(&mut self) -> bool {
        let Some(why) = self.line.lost() else { return false };
        let _ = self.traffic.lost.set(why);
        !std::mem::replace(&mut self.told_down, true)
    }
}

/// Bytes in front of a frame (struct virtio_net_hdr, with the number of buffers).
const HEADER: usize = 12;
/// In its flags: the checksum is not there yet.
const NEEDS_CHECKSUM: u8 = 1;
/// Most bytes in front of a packet: Ethernet's, and a VLAN's. A device hands on nothing longer (Virtio 1.2 §5.1.4.1).
const LINK_HEADER: usize = 14 + 4;
/// Most buffers of one frame. Linux's driver offers 1.5 KiB and more in each.
const MOST_BUFFERS: usize = 64;
/// Most frames of each direction before somebody else may have the device.
const MOST_FRAMES: usize = 256;
/// Features: the configuration space has MTU, address and link; frames may lie in several buffers.
const MTU: u64 = 1 << 3;
const MAC: u64 = 1 << 5;
const MERGEABLE: u64 = 1 << 15;
const STATUS: u64 = 1 << 16;
