//! The other end of a guest's network card, as a host that wants to get in would have it: `SOCKET FILE`. It answers whoever asks for an
//! address, sends frames to published and unpublished ports again and again, and writes down by name which of them were answered.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    thread,
    time::Duration,
};

const GUEST: [u8; 4] = [10, 0, 2, 15];
const GUEST_MAC: [u8; 6] = [2, 0xC0, 10, 0, 2, 15];
const MAC: [u8; 6] = [2, 0xC0, 0xFF, 0xE2, 0, 1];
const GATEWAY: [u8; 4] = [10, 0, 2, 2];
const NEIGHBOUR: [u8; 4] = [10, 0, 2, 99];
const STRANGER: [u8; 4] = [198, 51, 100, 7];

const OPEN: u16 = 8080;
const SHUT: u16 = 8081;
const OPEN_UDP: u16 = 5353;
const SHUT_UDP: u16 = 5354;

/// What is tried: each has a port of ours, by which its answer is known.
const TRIES: [&str; 10] = [
    "tcp-open",
    "tcp-shut",
    "tcp-shut-of-gateway",
    "tcp-shut-of-neighbour",
    "tcp-open-tagged",
    "udp-open",
    "udp-shut",
    "udp-shut-of-resolver",
    "tcp-shut-without-syn",
    "echo",
];
const FIRST: u16 = 20_000;

fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let all = parts.concat();
    let words = all.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xFFFF {
        sum = (sum >> 16) + (sum & 0xFFFF);
    }
    (!(sum as u16)).to_be_bytes()
}

fn ethernet(kind: &[u8], rest: &[u8]) -> Vec<u8> {
    [&GUEST_MAC[..], &MAC, kind, rest].concat()
}

fn packet(from: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len()) as u16;
    let mut head =
        [&[0x45, 0][..], &length.to_be_bytes(), &[0, 0, 0x40, 0, 64, protocol, 0, 0], &from, &GUEST].concat();
    let sum = checksum(&[&head]);
    head[10..12].copy_from_slice(&sum);
    [&head[..], payload].concat()
}

fn tcp(from: [u8; 4], ports: (u16, u16), flags: u8) -> Vec<u8> {
    let mut segment =
        [&ports.0.to_be_bytes()[..], &ports.1.to_be_bytes(), &[0, 0, 0, 9, 0, 0, 0, 0, 0x50, flags, 16, 0, 0, 0, 0, 0]]
            .concat();
    let length = (segment.len() as u16).to_be_bytes();
    let sum = checksum(&[&from, &GUEST, &[0, 6], &length, &segment]);
    segment[16..18].copy_from_slice(&sum);
    packet(from, 6, &segment)
}

fn udp(from: [u8; 4], ports: (u16, u16)) -> Vec<u8> {
    // Without a checksum, as UDP over IPv4 may be.
    packet(from, 17, &[&ports.0.to_be_bytes()[..], &ports.1.to_be_bytes(), &[0, 12, 0, 0], b"asks"].concat())
}

fn echo(identifier: u16) -> Vec<u8> {
    let mut message = [&[8, 0, 0, 0][..], &identifier.to_be_bytes(), &[0, 1, 1, 2, 3, 4]].concat();
    let sum = checksum(&[&message]);
    message[2..4].copy_from_slice(&sum);
    packet(STRANGER, 1, &message)
}

fn attempt(which: usize) -> Vec<u8> {
    const SYN: u8 = 2;
    let own = FIRST + which as u16;
    let ip = |packet: Vec<u8>| ethernet(&[8, 0], &packet);
    match TRIES[which] {
        "tcp-open" => ip(tcp(STRANGER, (own, OPEN), SYN)),
        "tcp-shut" => ip(tcp(STRANGER, (own, SHUT), SYN)),
        "tcp-shut-of-gateway" => ip(tcp(GATEWAY, (own, SHUT), SYN)),
        "tcp-shut-of-neighbour" => ip(tcp(NEIGHBOUR, (own, SHUT), SYN)),
        // A network's mark that says no network, which Linux reads as if it were not there.
        "tcp-open-tagged" => ethernet(&[0x81, 0, 0, 0, 8, 0], &tcp(STRANGER, (own, OPEN), SYN)),
        "udp-open" => ip(udp(STRANGER, (own, OPEN_UDP))),
        "udp-shut" => ip(udp(STRANGER, (own, SHUT_UDP))),
        "udp-shut-of-resolver" => ip(udp(GATEWAY, (own, SHUT_UDP))),
        // Neither begins nor answers: where it got through, nobody would say so, but an ACK is refused aloud.
        "tcp-shut-without-syn" => ip(tcp(STRANGER, (own, SHUT), 1)),
        "echo" => ip(echo(own)),
        other => panic!("{other}"),
    }
}

/// The port, or identifier, of ours that a frame of the guest's is for.
fn answered(frame: &[u8]) -> Option<u16> {
    if frame.get(12..14)? != [8, 0] {
        return None;
    }
    let number = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    match frame.get(23)? {
        6 | 17 => number(36),
        1 if *frame.get(34)? == 0 => number(38),
        // An error has the packet that it is about.
        1 if *frame.get(34)? == 3 => number(62),
        _ => None,
    }
}

/// Whoever is asked for has our card.
fn to_arp(frame: &[u8]) -> Option<Vec<u8>> {
    let asks = frame.get(12..14)? == [8, 6] && frame.get(20..22)? == [0, 1];
    let (guest, wanted) = (frame.get(22..32)?, frame.get(38..42)?);
    asks.then(|| ethernet(&[8, 6], &[&[0, 1, 8, 0, 6, 4, 0, 2][..], &MAC, wanted, guest].concat()))
}

fn send(to: &mut UnixStream, frame: &[u8]) -> io::Result<()> {
    to.write_all(&[&(frame.len() as u32).to_be_bytes()[..], frame].concat())
}

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().collect();
    let (socket, file) = (&words[1], words[2].clone());
    let (mut line, _) = UnixListener::bind(socket)?.accept()?;
    let mut out = line.try_clone()?;
    thread::spawn(move || -> io::Result<()> {
        loop {
            for which in 0..TRIES.len() {
                send(&mut out, &attempt(which))?;
            }
            thread::sleep(Duration::from_millis(250));
        }
    });
    let mut answers = line.try_clone()?;
    let mut known = BTreeSet::new();
    loop {
        let mut length = [0; 4];
        line.read_exact(&mut length)?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        line.read_exact(&mut frame)?;
        if let Some(answer) = to_arp(&frame) {
            send(&mut answers, &answer)?;
        }
        if let Some(name) = answered(&frame).and_then(|port| TRIES.get(usize::from(port.checked_sub(FIRST)?))) {
            known.insert(*name);
            fs::write(&file, known.iter().map(|name| format!("{name}\n")).collect::<String>())?;
        }
    }
}
