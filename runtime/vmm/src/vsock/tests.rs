//! Streams through a driver, with Unix sockets at the other end.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::packet::tests::from_guest;
use super::packet::{NO_MORE_READING, NO_MORE_WRITING, Ports, SIZE};
use super::stream::ROOM;
use super::{Header, Operation, Vsock};
use crate::virtio::driver::{BUFFERS, Driver, ENTRIES};
use crate::virtio::{NEEDS_RESET, register};

const TO_GUEST: usize = 0;
const FROM_GUEST: usize = 1;
/// Bytes of each buffer the guest offers.
const BUFFER: u32 = 3776;
/// Where the guest's packets are written.
const PACKET: u64 = BUFFERS + 0x10_0000;

struct Guest {
    driver: Driver,
    folder: TempDir,
    taken: u16,
    offered: u16,
}

impl Guest {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("v");
        let vsock = Vsock::new(UnixListener::bind(&socket).unwrap(), &socket).unwrap();
        let mut guest = Self { driver: Driver::start(vsock), folder, taken: 0, offered: 0 };
        guest.offer(ENTRIES);
        guest
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("v")
    }

    fn listen(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.folder.path().join(format!("v_{port}"))).unwrap()
    }

    /// Offers so many more buffers.
    fn offer(&mut self, count: u16) {
        for _ in 0..count {
            let slot = self.offered % ENTRIES;
            self.offered = self.offered.wrapping_add(1);
            let at = BUFFERS + u64::from(slot) * 0x1000;
            self.driver.send(TO_GUEST, slot, &[(at, BUFFER, true)]);
        }
    }

    /// Sends a packet, with its bytes in as many descriptors.
    fn send(&mut self, header: &Header, data: &[u8], pieces: usize) {
        self.driver.put(PACKET, &from_guest(&Header { length: data.len() as u32, ..*header }));
        self.driver.put(PACKET + 0x1000, data);
        let mut chain = vec![(PACKET, SIZE as u32, false)];
        let size = data.len().div_ceil(pieces.max(1)).max(1);
        for (index, piece) in data.chunks(size).enumerate() {
            chain.push((PACKET + 0x1000 + (index * size) as u64, piece.len() as u32, false));
        }
        self.driver.send(FROM_GUEST, 0, &chain);
        self.driver.serve();
    }

    /// What the guest got since it last looked; it offers the buffers again.
    fn got(&mut self) -> Vec<(Header, Vec<u8>)> {
        self.driver.serve();
        let mut all = Vec::new();
        while self.driver.used(TO_GUEST).0 != self.taken {
            let slot = self.taken % ENTRIES;
            let at = BUFFERS + u64::from(slot) * 0x1000;
            self.taken = self.taken.wrapping_add(1);
            let header = received(&self.driver.get(at, SIZE));
            let data = self.driver.get(at + SIZE as u64, header.length as usize);
            all.push((header, data));
            self.offer(1);
            self.driver.serve();
        }
        all
    }

    fn got_one(&mut self, operation: Operation) -> Header {
        let got = self.got();
        assert_eq!(got.iter().map(|(header, _)| header.operation).collect::<Vec<_>>(), [operation]);
        got[0].0
    }
}

/// What the guest reads in a header.
fn received(bytes: &[u8]) -> Header {
    let mut bytes: [u8; SIZE] = bytes.try_into().unwrap();
    // Turned round, it is as from the guest.
    let (one, other) = bytes.split_at_mut(8);
    one.swap_with_slice(&mut other[..8]);
    let (host, guest) = (bytes[16..20].to_vec(), bytes[20..24].to_vec());
    bytes[16..20].copy_from_slice(&guest);
    bytes[20..24].copy_from_slice(&host);
    Header::parse(&bytes).unwrap()
}

fn header(ports: Ports, operation: Operation) -> Header {
    Header { ports, operation, length: 0, flags: 0, buffer: ROOM, forwarded: 0 }
}

const PORTS: Ports = Ports { guest: 5000, host: 4088 };

/// A stream the guest opened, and the host's end.
fn opened() -> (Guest, UnixStream) {
    let mut guest = Guest::new();
    let listener = guest.listen(PORTS.host);
    guest.send(&header(PORTS, Operation::Request), &[], 0);
    let (socket, _) = listener.accept().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(guest.got_one(Operation::Response).ports, PORTS);
    (guest, socket)
}

#[test]
fn the_guest_opens_a_stream_to_a_listener_and_is_refused_without_one() {
    let (mut guest, mut socket) = opened();
    guest.send(&header(PORTS, Operation::Data), b"hello", 1);
    let mut five = [0; 5];
    socket.read_exact(&mut five).unwrap();
    assert_eq!(&five, b"hello");
    socket.write_all(b"world").unwrap();
    let got = guest.got();
    assert_eq!((got[0].0.operation, &*got[0].1), (Operation::Data, &b"world"[..]));
    let other = Ports { host: 4089, ..PORTS };
    guest.send(&header(other, Operation::Request), &[], 0);
    assert_eq!(guest.got_one(Operation::Reset).ports, other);
}

#[test]
fn the_host_asks_for_a_port_and_hears_when_the_guest_answers() {
    let mut guest = Guest::new();
    let mut socket = UnixStream::connect(guest.socket()).unwrap();
    socket.write_all(b"CONNECT 40").unwrap();
    assert!(guest.got().is_empty(), "the line is not whole");
    socket.write_all(b"91\nearly").unwrap();
    let asked = guest.got_one(Operation::Request);
    assert_eq!(asked.ports.guest, 4091);
    guest.send(&header(asked.ports, Operation::Response), &[], 0);
    let mut line = vec![0; format!("OK {}\n", asked.ports.host).len()];
    socket.read_exact(&mut line).unwrap();
    assert_eq!(line, format!("OK {}\n", asked.ports.host).into_bytes());
    assert_eq!(guest.got()[0].1, b"early", "what follows the line is the guest's");
    // Nobody listens: the line just ends.
    let mut refused = UnixStream::connect(guest.socket()).unwrap();
    refused.write_all(b"CONNECT 1\n").unwrap();
    let asked = guest.got_one(Operation::Request);
    guest.send(&header(asked.ports, Operation::Reset), &[], 0);
    assert_eq!(refused.read(&mut [0]).unwrap(), 0);
}

#[test]
fn other_lines_reach_no_guest() {
    let mut guest = Guest::new();
    for line in ["connect 1\n", "CONNECT x\n", "CONNECT 99999999999\n", "CONNECT \n", &format!("{:0>99}", 1)] {
        let mut socket = UnixStream::connect(guest.socket()).unwrap();
        socket.write_all(line.as_bytes()).unwrap();
        assert!(guest.got().is_empty(), "{line:?}");
        let _ = socket.read(&mut [0]).map(|count| assert_eq!(count, 0, "{line:?}"));
    }
}

#[test]
fn a_packet_in_many_descriptors_is_one_packet() {
    let (mut guest, mut socket) = opened();
    let data: Vec<u8> = (0..60_000_u32).map(|at| (at % 251) as u8).collect();
    for pieces in [1, 2, 5, 13] {
        guest.send(&header(PORTS, Operation::Data), &data, pieces);
        let mut read = vec![0; data.len()];
        socket.read_exact(&mut read).unwrap();
        assert_eq!(read, data, "{pieces}");
    }
}

#[test]
fn bytes_wait_for_a_slow_reader_and_the_guest_is_told_when_there_is_room() {
    let (mut guest, mut socket) = opened();
    let block = vec![7; 32 << 10];
    let (mut sent, mut forwarded) = (0_u32, 0);
    // Fill the socket's buffer and then ours, to the last byte of credit.
    while sent.wrapping_sub(forwarded) < ROOM {
        guest.send(&header(PORTS, Operation::Data), &block, 1);
        sent += block.len() as u32;
        for (told, _) in guest.got() {
            assert_eq!(told.operation, Operation::CreditUpdate);
            forwarded = told.forwarded;
        }
    }
    let mut left = sent as usize;
    let mut read = vec![0; 64 << 10];
    while left > 0 {
        left -= socket.read(&mut read).unwrap();
        for (told, _) in guest.got() {
            forwarded = told.forwarded;
        }
    }
    assert!(sent - forwarded < ROOM / 2, "told {forwarded} of {sent}");
    guest.send(&header(PORTS, Operation::Data), b"more", 1);
    socket.read_exact(&mut [0; 4]).unwrap();
}

#[test]
fn a_guest_that_sends_more_than_it_may_loses_the_stream() {
    let (mut guest, _socket) = opened();
    let block = vec![7; 60 << 10];
    let mut operations = Vec::new();
    for _ in 0..20 {
        guest.send(&header(PORTS, Operation::Data), &block, 1);
        operations.extend(guest.got().into_iter().map(|(told, _)| told.operation));
    }
    assert!(operations.contains(&Operation::Reset), "{operations:?}");
}

#[test]
fn the_guest_gets_no_more_than_it_has_room_for() {
    let (mut guest, mut socket) = opened();
    guest.send(&Header { buffer: 5000, ..header(PORTS, Operation::CreditUpdate) }, &[], 0);
    socket.write_all(&vec![1; 20_000]).unwrap();
    let bytes = |got: &[(Header, Vec<u8>)]| got.iter().map(|(_, data)| data.len()).sum::<usize>();
    let got = guest.got();
    assert_eq!(bytes(&got), 5000);
    assert_eq!(got.last().unwrap().0.operation, Operation::CreditRequest, "it asks, once");
    assert!(guest.got().is_empty());
    guest.send(&Header { buffer: 5000, ..header(PORTS, Operation::CreditUpdate) }, &[], 0);
    assert!(guest.got().is_empty(), "an answer without progress is no reason to ask again");
    guest.send(&Header { buffer: 5000, forwarded: 4000, ..header(PORTS, Operation::CreditUpdate) }, &[], 0);
    assert_eq!(bytes(&guest.got()), 4000);
}

#[test]
fn many_tiny_writes_become_few_packets_while_the_guest_does_not_read() {
    let (mut guest, mut socket) = opened();
    let mut packets = 0;
    for _ in 0..200 {
        socket.write_all(b"x").unwrap();
        packets += guest.got().iter().filter(|(header, _)| header.operation == Operation::Data).count();
    }
    assert!(packets <= 64, "{packets} packets for 200 bytes nobody reads");
    guest.send(&Header { forwarded: packets as u32, ..header(PORTS, Operation::CreditUpdate) }, &[], 0);
    let rest: usize = guest.got().iter().map(|(_, data)| data.len()).sum();
    assert_eq!(rest, 200 - packets, "the rest in one piece");
}

#[test]
fn each_end_may_stop_writing_and_still_read() {
    let (mut guest, mut socket) = opened();
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(guest.got_one(Operation::Shutdown).flags, NO_MORE_WRITING);
    guest.send(&header(PORTS, Operation::Data), b"answer", 1);
    socket.read_exact(&mut [0; 6]).unwrap();
    guest.send(&Header { flags: NO_MORE_WRITING, ..header(PORTS, Operation::Shutdown) }, &[], 0);
    assert_eq!(socket.read(&mut [0]).unwrap(), 0);
    assert_eq!(guest.got_one(Operation::Reset).ports, PORTS, "nothing is left to say");
}

#[test]
fn a_host_end_that_is_gone_is_gone_for_the_guest() {
    let (mut guest, mut socket) = opened();
    socket.write_all(b"last").unwrap();
    drop(socket);
    let got = guest.got();
    assert_eq!((got[0].0.operation, &*got[0].1), (Operation::Data, &b"last"[..]));
    assert_eq!(got[1].0.flags, NO_MORE_READING | NO_MORE_WRITING);
    guest.send(&header(PORTS, Operation::Reset), &[], 0);
    guest.send(&header(PORTS, Operation::Data), b"late", 1);
    assert_eq!(guest.got_one(Operation::Reset).ports, PORTS);
}

#[test]
fn a_guest_that_is_done_leaves_nothing_behind() {
    let (mut guest, mut socket) = opened();
    guest.send(&header(PORTS, Operation::Data), b"bye", 1);
    let both = NO_MORE_READING | NO_MORE_WRITING;
    guest.send(&Header { flags: both, ..header(PORTS, Operation::Shutdown) }, &[], 0);
    let mut all = Vec::new();
    socket.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"bye");
    assert_eq!(guest.got_one(Operation::Reset).ports, PORTS);
}

#[test]
fn packets_of_strangers_and_of_no_stream_are_answered_as_they_deserve() {
    let mut guest = Guest::new();
    for operation in [Operation::Data, Operation::Response, Operation::Shutdown, Operation::CreditRequest] {
        guest.send(&header(PORTS, operation), &[], 0);
        assert_eq!(guest.got_one(Operation::Reset).ports, PORTS, "{operation:?}");
    }
    guest.send(&header(PORTS, Operation::Reset), &[], 0);
    assert!(guest.got().is_empty(), "a reset is not answered");
    let mut stranger = from_guest(&header(PORTS, Operation::Request));
    stranger[0] = 9;
    guest.driver.put(PACKET, &stranger);
    guest.driver.send(FROM_GUEST, 0, &[(PACKET, SIZE as u32, false)]);
    assert!(guest.got().is_empty(), "neither is another guest");
}

#[test]
fn packets_shorter_than_they_say_stop_the_device() {
    for (length, bytes) in [(1, 0), (u32::MAX, 100), (5, 4)] {
        let (mut guest, _socket) = opened();
        guest.driver.put(PACKET, &from_guest(&Header { length, ..header(PORTS, Operation::Data) }));
        guest.driver.send(FROM_GUEST, 0, &[(PACKET, SIZE as u32, false), (PACKET + 0x1000, bytes, false)]);
        guest.driver.serve();
        assert_ne!(guest.driver.read(register::STATUS) & NEEDS_RESET, 0, "{length} {bytes}");
    }
}

#[test]
fn a_guest_that_takes_no_answers_is_not_listened_to_for_ever() {
    let mut guest = Guest::new();
    for _ in 0..2000_u32 {
        guest.driver.put(PACKET, &from_guest(&header(PORTS, Operation::Data)));
        guest.driver.send(FROM_GUEST, 0, &[(PACKET, SIZE as u32, false)]);
        guest.driver.serve();
    }
    let taken = usize::from(guest.driver.used(FROM_GUEST).0);
    assert!(taken <= super::streams::MOST_ANSWERS + usize::from(ENTRIES), "{taken}");
}

#[test]
fn streams_are_counted() {
    let mut guest = Guest::new();
    let listener = guest.listen(PORTS.host);
    listener.set_nonblocking(true).unwrap();
    let (mut ends, mut refused) = (Vec::new(), 0);
    for port in 0..600 {
        guest.send(&header(Ports { guest: port, ..PORTS }, Operation::Request), &[], 0);
        ends.extend(listener.accept().map(|(socket, _)| socket));
        refused += guest.got().iter().filter(|(header, _)| header.operation == Operation::Reset).count();
    }
    assert_eq!((ends.len(), refused), (512, 88));
}

#[test]
fn another_driver_finds_no_stream_of_the_last() {
    let (mut guest, mut socket) = opened();
    guest.driver.write(register::STATUS, 0);
    assert_eq!(socket.read(&mut [0]).unwrap(), 0);
    guest.driver.put(0x1_0000, &[0; 0x3000]);
    guest.driver.restart();
    (guest.taken, guest.offered) = (0, 0);
    guest.offer(4);
    guest.send(&header(PORTS, Operation::Data), b"x", 1);
    assert_eq!(guest.got_one(Operation::Reset).ports, PORTS);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_packets_are_survived(
        packets in prop::collection::vec((prop::collection::vec(any::<u8>(), 28), 0_u32..3, 0_u16..9, 0_u32..70_000), 1..40),
    ) {
        let (mut guest, _socket) = opened();
        for (rest, host, operation, length) in packets {
            let mut bytes = from_guest(&header(Ports { host: PORTS.host + host, ..PORTS }, Operation::Request));
            bytes[24..28].copy_from_slice(&length.to_le_bytes());
            bytes[30..32].copy_from_slice(&operation.to_le_bytes());
            bytes[32..44].copy_from_slice(&rest[..12]);
            guest.driver.put(PACKET, &bytes);
            guest.driver.send(FROM_GUEST, 0, &[(PACKET, SIZE as u32, false), (PACKET + 0x1000, 65_536, false)]);
            guest.driver.serve();
            if guest.driver.read(register::STATUS) & NEEDS_RESET != 0 {
                break;
            }
            guest.got();
        }
    }
}

#[test]
fn a_listener_whose_backlog_is_full_does_not_stop_the_device() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("full");
    let _listener = UnixListener::bind(&path).unwrap();
    let mut waiting = Vec::new();
    let refused = (0..5000).find_map(|_| super::stream::connect(Path::new(&path)).map(|end| waiting.push(end)).err());
    assert_eq!(refused.unwrap().kind(), std::io::ErrorKind::WouldBlock);
}
