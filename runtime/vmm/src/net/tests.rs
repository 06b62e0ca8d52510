//! Frames through a driver, with a socket at the other end; then drivers and peers that are none.

mod peers;

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::sleep;

use proptest::prelude::*;
use rustix::event::PollFlags;

use super::line::{PATIENCE, clock};
use super::{LONGEST, Lost, Net, SHORTEST, Traffic};
use crate::virtio::driver::{BUFFERS, Driver, ENTRIES, MEMORY, used};
use crate::virtio::{EVENT_INDEX, NEEDS_RESET, Waits, register};

pub const TO_GUEST: usize = 0;
const FROM_GUEST: usize = 1;
/// Bytes in front of a frame.
const HEADER: u32 = 12;
/// Where the guest's frames are written.
const FRAME: u64 = BUFFERS + 0x10_0000;
pub const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
/// That of the longest frame there is, with a VLAN's header.
const MTU: u16 = 65_532;
const MERGEABLE: u64 = 1 << 15;

/// A guest that offers buffers of one size, one behind the other.
pub struct Guest {
    pub driver: Driver,
    traffic: Arc<Traffic>,
    buffer: u32,
    offered: u16,
    taken: u16,
}

impl Guest {
    /// A guest that agrees to all but these features, with no buffers yet, and its peer.
    pub fn without(features: u64, buffer: u32) -> (Self, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Self::on(ours, features, buffer), theirs)
    }

    pub fn on(socket: UnixStream, without: u64, buffer: u32) -> Self {
        Self::with_mtu(MTU, socket, without, buffer)
    }

    fn with_mtu(mtu: u16, socket: UnixStream, without: u64, buffer: u32) -> Self {
        let net = Net::new(socket, MAC, mtu).unwrap();
        let traffic = net.traffic();
        let mut driver = Driver::of(net);
        driver.negotiate(!without);
        Self { driver, traffic, buffer, offered: 0, taken: 0 }
    }

    /// One with buffers of 2 KiB, and its peer.
    fn new() -> (Self, UnixStream) {
        let (mut guest, peer) = Self::without(1 << EVENT_INDEX, 2048);
        guest.offer(ENTRIES);
        (guest, peer)
    }

    fn place(&self, slot: u16) -> u64 {
        BUFFERS + u64::from(slot) * u64::from(self.buffer)
    }

    pub fn offer(&mut self, count: u16) {
        for _ in 0..count {
            let slot = self.offered % ENTRIES;
            self.offered = self.offered.wrapping_add(1);
            self.driver.send(TO_GUEST, slot, &[(self.place(slot), self.buffer, true)]);
        }
    }

    /// Frames the guest got since it last looked.
    pub fn got(&mut self) -> Vec<Vec<u8>> {
        self.driver.serve();
        let mut frames = Vec::new();
        while self.driver.used(TO_GUEST).0 != self.taken {
            let mut frame = self.next_buffer();
            let count = u16::from_le_bytes([frame[10], frame[11]]);
            assert_eq!(frame[..10], [0; 10], "nothing is left to finish");
            frame.drain(..HEADER as usize);
            for _ in 1..count {
                let more = self.next_buffer();
                frame.extend(more);
            }
            frames.push(frame);
        }
        frames
    }

    fn next_buffer(&mut self) -> Vec<u8> {
        assert_ne!(self.driver.used(TO_GUEST).0, self.taken, "a frame is given back whole");
        let element = self.driver.get(used(TO_GUEST) + 4 + u64::from(self.taken % ENTRIES) * 8, 8);
        let (head, length) = (element[0], u32::from_le_bytes(element[4..].try_into().unwrap()));
        self.taken = self.taken.wrapping_add(1);
        assert!(length <= self.buffer);
        self.driver.get(self.place(head.into()), length as usize)
    }

    /// Sends a frame in as many descriptors.
    pub fn send(&mut self, frame: &[u8], pieces: usize) {
        self.send_with(&[0; HEADER as usize], frame, pieces);
        self.driver.serve();
    }

    fn send_with(&mut self, header: &[u8], frame: &[u8], pieces: usize) {
        self.driver.put(FRAME, header);
        self.driver.put(FRAME + 0x100, frame);
        let mut chain = vec![(FRAME, header.len() as u32, false)];
        let size = frame.len().div_ceil(pieces.max(1)).max(1);
        for (index, piece) in frame.chunks(size).enumerate() {
            chain.push((FRAME + 0x100 + (index * size) as u64, piece.len() as u32, false));
        }
        self.driver.send(FROM_GUEST, 0, &chain);
    }

    fn sent(&self) -> u16 {
        self.driver.used(FROM_GUEST).0
    }

    fn dropped(&self) -> (u64, u64) {
        let Traffic { dropped_from_guest, dropped_to_guest, .. } = &*self.traffic;
        (dropped_from_guest.load(Ordering::Relaxed), dropped_to_guest.load(Ordering::Relaxed))
    }

    fn link(&self) -> u16 {
        let mut word = [0; 2];
        self.driver.transport.read(0x106, &mut word);
        u16::from_le_bytes(word)
    }

    fn stopped(&self) -> bool {
        self.driver.read(register::STATUS) & NEEDS_RESET != 0
    }
}

fn frame(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|at| ((at + seed) % 251) as u8).collect()
}

/// As the peer writes it.
fn framed(frame: &[u8]) -> Vec<u8> {
    let mut bytes = (frame.len() as u32).to_be_bytes().to_vec();
    bytes.extend(frame);
    bytes
}

/// The next frame the peer reads.
pub fn heard(peer: &mut UnixStream) -> Vec<u8> {
    let mut length = [0; 4];
    peer.read_exact(&mut length).unwrap();
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    peer.read_exact(&mut frame).unwrap();
    frame
}

#[test]
fn it_says_its_address_its_link_and_its_longest_packet() {
    let (guest, _peer) = Guest::new();
    let mut space = [0; 12];
    guest.driver.transport.read(0x100, &mut space);
    assert_eq!(space[..6], MAC);
    assert_eq!((space[6..10].to_vec(), u16::from_le_bytes([space[10], space[11]])), (vec![1, 0, 1, 0], MTU));
    guest.driver.write(register::OFFERED_PAGE, 0);
    let offered = guest.driver.read(register::OFFERED) & 0x00FF_FFFF;
    assert_eq!(offered, 1 << 3 | 1 << 5 | 1 << 15 | 1 << 16, "nothing that leaves work to others");
}

#[test]
fn frames_of_the_guest_arrive_behind_their_length() {
    let (mut guest, mut peer) = Guest::new();
    for (length, pieces) in [(SHORTEST, 1), (60, 1), (1514, 2), (9014, 5), (LONGEST, 13)] {
        guest.send(&frame(length, pieces), pieces);
        assert_eq!(heard(&mut peer), frame(length, pieces));
    }
    assert_eq!((guest.sent(), guest.dropped()), (5, (0, 0)));
    assert_eq!(guest.driver.interrupts(), 5);
}

#[test]
fn frames_of_the_peer_arrive_however_they_are_cut() {
    let (mut guest, mut peer) = Guest::new();
    let bytes = [framed(&frame(60, 1)), framed(&frame(1514, 2)), framed(&frame(14, 3))].concat();
    let mut got = Vec::new();
    for cut in [1, 3, 4, 5, 61, 64, 65, 1000] {
        for piece in bytes.chunks(cut) {
            peer.write_all(piece).unwrap();
            let new = guest.got();
            guest.offer(new.len() as u16);
            got.extend(new);
        }
        assert_eq!(got.split_off(0), [frame(60, 1), frame(1514, 2), frame(14, 3)], "{cut}");
    }
}

#[test]
fn a_long_frame_lies_in_as_many_buffers_as_it_needs_and_is_given_back_whole() {
    let (mut guest, mut peer) = Guest::without(1 << EVENT_INDEX, 0x1200);
    let mut longest = peer.try_clone().unwrap();
    let writing = std::thread::spawn(move || longest.write_all(&framed(&frame(LONGEST, 7))).unwrap());
    // One too few: nothing is given back, and nothing is lost.
    guest.offer(ENTRIES - 2);
    for _ in 0..20 {
        assert!(guest.got().is_empty());
        sleep(PATIENCE / 200);
    }
    assert!(guest.driver.serve().events.is_empty(), "the peer is not read while the guest has no room");
    guest.offer(1);
    assert_eq!(guest.got(), [frame(LONGEST, 7)]);
    writing.join().unwrap();
    guest.offer(ENTRIES);
    peer.write_all(&framed(&frame(20, 1))).unwrap();
    assert_eq!(guest.got(), [frame(20, 1)]);
    assert_eq!(guest.dropped(), (0, 0));
}

#[test]
fn a_driver_with_too_few_buffers_is_asked_to_speak_up_behind_the_last_of_them() {
    let (mut guest, mut peer) = Guest::without(0, 100);
    guest.offer(3);
    peer.write_all(&framed(&frame(600, 1))).unwrap();
    assert!(guest.got().is_empty());
    let event = guest.driver.get(used(TO_GUEST) + 4 + 8 * u64::from(ENTRIES), 2);
    assert_eq!(event, [3, 0], "or it would never be heard again");
    guest.offer(4);
    assert_eq!(guest.got(), [frame(600, 1)]);
    assert_eq!(guest.driver.interrupts(), 1);
}

#[test]
fn a_frame_longer_than_all_the_guest_ever_has_is_dropped_and_the_next_arrives() {
    for (without, buffer, length) in [(MERGEABLE, 2048, 2037), (0, 64, 64 * 16)] {
        let (mut guest, mut peer) = Guest::without(without | 1 << EVENT_INDEX, buffer);
        guest.offer(ENTRIES);
        peer.write_all(&framed(&frame(length, 1))).unwrap();
        peer.write_all(&framed(&frame(length - 12 - usize::from(without == 0) * 500, 2))).unwrap();
        assert_eq!(guest.got().len(), 1, "{buffer}");
        assert_eq!((guest.dropped(), guest.link()), ((0, 1), 1));
    }
}

#[test]
fn a_frame_longer_than_was_agreed_on_is_dropped_and_the_next_arrives() {
    let (ours, mut peer) = UnixStream::pair().unwrap();
    let mut guest = Guest::with_mtu(1500, ours, 1 << EVENT_INDEX, 4096);
    guest.offer(ENTRIES);
    for length in [1519, 1518, 3000, 60] {
        peer.write_all(&framed(&frame(length, length))).unwrap();
    }
    assert_eq!(guest.got(), [frame(1518, 1518), frame(60, 60)]);
    assert_eq!((guest.dropped(), guest.link()), ((0, 2), 1));
}

#[test]
fn a_peer_that_says_no_frame_is_a_cable_that_is_out() {
    for length in [0, 1, 13, 65_551, 1 << 20, u32::MAX] {
        let (mut guest, mut peer) = Guest::new();
        peer.write_all(&framed(&frame(20, 1))).unwrap();
        peer.write_all(&length.to_be_bytes()).unwrap();
        peer.write_all(&[7; 100]).unwrap();
        let before = guest.driver.read(register::GENERATION);
        assert_eq!(guest.got(), [frame(20, 1)], "what came before is the guest's");
        assert_eq!((guest.link(), guest.stopped()), (0, false), "{length}");
        assert_eq!(guest.driver.read(register::INTERRUPT_STATUS), 3, "it is told");
        assert_ne!(guest.driver.read(register::GENERATION), before);
        assert_eq!(guest.traffic.lost.get(), Some(&Lost::Length(length)));
        assert_eq!(guest.driver.serve(), Waits::NONE, "and nobody is waited for");
        guest.driver.write(register::INTERRUPT_ACKNOWLEDGE, 3);
        guest.send(&frame(60, 1), 1);
        assert_eq!((guest.sent(), guest.dropped()), (1, (1, 0)), "its frames wait for nobody");
        assert_eq!(guest.driver.read(register::INTERRUPT_STATUS), 1, "it is told once");
        let mut rest = Vec::new();
        let _ = peer.read_to_end(&mut rest);
        assert!(rest.is_empty(), "the peer hears the end, too");
    }
}

#[test]
fn a_peer_that_is_gone_is_a_cable_that_is_out() {
    let (mut guest, mut peer) = Guest::new();
    peer.write_all(&framed(&frame(20, 1))).unwrap();
    peer.write_all(&framed(&frame(20, 1))[..9]).unwrap();
    drop(peer);
    assert_eq!(guest.got(), [frame(20, 1)]);
    assert_eq!((guest.link(), guest.traffic.lost.get()), (0, Some(&Lost::Gone)));
    // It is noticed by a frame of the guest as well.
    let (mut guest, peer) = Guest::new();
    drop(peer);
    guest.send(&frame(60, 1), 1);
    assert_eq!((guest.sent(), guest.link()), (1, 0));
}

#[test]
fn a_peer_that_stalls_holds_the_guest_up_for_a_while_and_loses_whole_frames() {
    let (mut guest, mut peer) = Guest::new();
    let mut said = 0_usize;
    while usize::from(guest.sent()) == said {
        guest.send(&frame(LONGEST, said), 3);
        said += 1;
        assert!(said < 100, "what waits is bounded");
    }
    let waits = guest.driver.serve();
    assert_eq!(waits.events, PollFlags::IN | PollFlags::OUT);
    assert!(waits.until.is_some(), "it will be looked at again");
    assert_eq!(guest.dropped(), (0, 0));
    clock::pass(PATIENCE);
    let waits = guest.driver.serve();
    assert_eq!((usize::from(guest.sent()), guest.dropped(), waits.until), (said, (1, 0), None));
    // All but the last arrive whole once the peer reads, and what is sent then arrives too.
    peer.set_nonblocking(true).unwrap();
    let (mut bytes, mut block) = (Vec::<u8>::new(), [0; 4096]);
    loop {
        match peer.read(&mut block) {
            Ok(count) => bytes.extend(&block[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if !guest.driver.serve().events.contains(PollFlags::OUT) {
                    break;
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    let expected: Vec<u8> = (0..said - 1).flat_map(|seed| framed(&frame(LONGEST, seed))).collect();
    while let Ok(count) = peer.read(&mut block) {
        bytes.extend(&block[..count]);
    }
    assert!(bytes == expected, "{} bytes of {}", bytes.len(), expected.len());
    peer.set_nonblocking(false).unwrap();
    guest.send(&frame(60, 9), 1);
    assert_eq!(heard(&mut peer), frame(60, 9));
}

#[test]
fn another_driver_finds_the_peer_at_a_whole_frame() {
    let (mut guest, mut peer) = Guest::new();
    let mut said = 0_usize;
    while usize::from(guest.sent()) == said {
        guest.send(&frame(LONGEST, said), 3);
        said += 1;
        assert!(said < 100, "what waits is bounded");
    }
    guest.driver.write(register::STATUS, 0);
    guest.driver.put(0x1_0000, &[0; 0x2000]);
    guest.driver.restart();
    let reading = std::thread::spawn(move || (0..said).map(|_| heard(&mut peer)).collect::<Vec<_>>());
    while !guest.driver.serve().events.eq(&PollFlags::IN) {}
    guest.send(&frame(60, 1), 1);
    let heard = reading.join().unwrap();
    let expected: Vec<_> = (0..said - 1).map(|seed| frame(LONGEST, seed)).chain([frame(60, 1)]).collect();
    assert!(heard == expected);
}

#[test]
fn chains_that_are_no_frames_are_dropped_or_stop_the_device() {
    let (mut guest, mut peer) = Guest::new();
    let mut unfinished = [0; HEADER as usize];
    unfinished[0] = 1;
    let mut segments = [0; HEADER as usize];
    segments[1] = 1;
    for (header, length) in [([0; 12], 0), ([0; 12], 13), ([0; 12], LONGEST + 1), (unfinished, 60), (segments, 60)] {
        guest.send_with(&header, &frame(length, 1), 1);
        guest.driver.serve();
    }
    assert_eq!((guest.sent(), guest.dropped(), guest.stopped()), (5, (5, 0), false));
    guest.send(&frame(60, 1), 1);
    assert_eq!(heard(&mut peer), frame(60, 1), "and it goes on");
    guest.send_with(&[0; 11], &[], 1);
    guest.driver.serve();
    assert!(guest.stopped(), "no header");
    // Buffers with no room for a header, or of nothing.
    for buffer in [0, 11] {
        let (mut guest, mut peer) = Guest::without(1 << EVENT_INDEX, buffer);
        guest.offer(ENTRIES);
        peer.write_all(&framed(&frame(20, 1))).unwrap();
        guest.driver.serve();
        assert!(guest.stopped() || guest.dropped().1 == 1, "{buffer}");
    }
    // A buffer that is not memory.
    let (mut guest, mut peer) = Guest::without(1 << EVENT_INDEX, 2048);
    guest.driver.send(TO_GUEST, 0, &[(MEMORY - 10, 2048, true)]);
    peer.write_all(&framed(&frame(20, 1))).unwrap();
    guest.driver.serve();
    assert!(guest.stopped());
}

#[test]
fn more_frames_than_an_index_counts_go_each_way() {
    let (mut guest, mut peer) = Guest::without(1 << EVENT_INDEX, 64);
    guest.offer(ENTRIES);
    // One, two and three buffers: the index wraps at each place of a frame, in one round or another.
    for round in 0..12_000_usize {
        let frames = [frame(20, round), frame(100, round), frame(170, round)];
        for frame in &frames {
            peer.write_all(&framed(frame)).unwrap();
        }
        let before = guest.taken;
        assert_eq!(guest.got(), frames, "{round}");
        guest.offer(guest.taken.wrapping_sub(before));
    }
    for round in 0..70_000_usize {
        guest.send(&frame(SHORTEST, round), 1);
        assert_eq!(heard(&mut peer), frame(SHORTEST, round));
    }
    assert_eq!((guest.dropped(), guest.stopped()), ((0, 0), false));
}

#[test]
fn a_peer_that_floods_leaves_the_device_to_others_in_between() {
    let (mut guest, mut peer) = Guest::without(1 << EVENT_INDEX | MERGEABLE, 64);
    guest.offer(ENTRIES);
    // Longer than any buffer: each is dropped, and no buffer used up.
    peer.write_all(&framed(&frame(100, 1)).repeat(1000)).unwrap();
    let mut turns = 0;
    while guest.driver.serve().until.is_some() {
        turns += 1;
    }
    assert_eq!((turns, guest.dropped()), (3, (0, 1000)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Frames of any lengths, cut anywhere, into buffers of any size: whole and in order, or dropped and counted.
    #[test]
    fn what_arrives_is_what_was_said(
        lengths in prop::collection::vec(SHORTEST..3000, 1..20), cut in 1_usize..5000, buffer in 100_u32..4000,
        mergeable in any::<bool>(),
    ) {
        let (mut guest, mut peer) =
            Guest::without(1 << EVENT_INDEX | if mergeable { 0 } else { MERGEABLE }, buffer);
        guest.offer(ENTRIES);
        let frames: Vec<_> = lengths.iter().enumerate().map(|(seed, length)| frame(*length, seed)).collect();
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| framed(frame)).collect();
        let mut got = Vec::new();
        for piece in bytes.chunks(cut) {
            peer.write_all(piece).unwrap();
            loop {
                let before = guest.taken;
                let new = guest.got();
                guest.offer(guest.taken.wrapping_sub(before));
                if new.is_empty() {
                    break;
                }
                got.extend(new);
            }
        }
        let room = buffer as usize * if mergeable { ENTRIES.into() } else { 1 };
        let expected: Vec<_> = frames.into_iter().filter(|frame| frame.len() + HEADER as usize <= room).collect();
        prop_assert_eq!(guest.dropped(), (0, (lengths.len() - expected.len()) as u64));
        prop_assert!(got == expected);
    }

    /// Any bytes of the peer, any chains of the guest.
    #[test]
    fn any_peer_and_any_driver_are_survived(
        bytes in prop::collection::vec(any::<u8>(), 0..3000),
        chains in prop::collection::vec((0_usize..2, 0_u64..MEMORY + 10, 0_u32..70_000, any::<bool>()), 0..24),
    ) {
        let (mut guest, mut peer) = Guest::new();
        peer.write_all(&bytes).unwrap();
        for (queue, address, length, write) in chains {
            guest.driver.send(queue, 3, &[(address, length, write)]);
            guest.driver.serve();
        }
    }
}
