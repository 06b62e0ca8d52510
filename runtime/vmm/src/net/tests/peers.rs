//! Real programs at the other end: passt, and QEMU's stream backend in front of its own user network. Where one is not
//! installed, its test says so and passes.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{Guest, MAC};
use crate::virtio::EVENT_INDEX;
use crate::virtio::driver::ENTRIES;

struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program that listens at `socket`, and connects a guest to it; `None` if there is no such program.
fn connected(program: &str, arguments: &[&str], socket: &Path) -> Option<(Guest, Peer)> {
    let started = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    let mut peer = match started {
        Ok(child) => Peer(child),
        Err(error) => {
            eprintln!("skipped: {program}: {error}");
            return None;
        }
    };
    let patience = Instant::now() + Duration::from_secs(20);
    let stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < patience, "{program} does not listen: {error}"),
        }
        let ended = peer.0.try_wait().unwrap();
        assert!(ended.is_none(), "{program} ended: {ended:?}");
        sleep(Duration::from_millis(20));
    };
    let mut guest = Guest::on(stream, 1 << EVENT_INDEX, 2048);
    guest.offer(ENTRIES);
    Some((guest, peer))
}

/// The first frame the guest gets that is an answer.
fn answer(guest: &mut Guest, is_it: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let patience = Instant::now() + Duration::from_secs(20);
    while Instant::now() < patience {
        let frames = guest.got();
        guest.offer(frames.len() as u16);
        if let Some(frame) = frames.into_iter().find(|frame| is_it(frame)) {
            return frame;
        }
        sleep(Duration::from_millis(5));
    }
    panic!("no answer");
}

const GUEST: [u8; 4] = [10, 0, 2, 15];
const GATEWAY: [u8; 4] = [10, 0, 2, 2];

/// Asks by ARP who has the gateway's address, and gives the answer's.
fn gateway_of(guest: &mut Guest) -> [u8; 6] {
    let mut ask = [[0xFF; 6], MAC].concat();
    ask.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    ask.extend(MAC);
    ask.extend(GUEST);
    ask.extend([0; 6]);
    ask.extend(GATEWAY);
    guest.send(&ask, 2);
    let frame = answer(guest, |frame| frame[12..14] == [8, 6] && frame[20..22] == [0, 2]);
    assert_eq!((&frame[..6], &frame[28..32]), (&MAC[..], &GATEWAY[..]));
    frame[22..28].try_into().unwrap()
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let sum: u32 = bytes.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(*two.get(1).unwrap_or(&0))).sum();
    (!((sum & 0xFFFF) + (sum >> 16)) as u16).to_be_bytes()
}

#[test]
fn passt_answers_who_the_gateway_is() {
    let folder = tempfile::tempdir().unwrap();
    // It leaves root's rights behind before it listens.
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let socket = folder.path().join("net");
    let path = socket.to_str().unwrap();
    let arguments = [
        "--foreground",
        "--quiet",
        "--one-off",
        "--socket",
        path,
        "-4",
        "-a",
        "10.0.2.15",
        "-g",
        "10.0.2.2",
        "-n",
        "24",
    ];
    let Some((mut guest, _passt)) = connected("passt", &arguments, &socket) else { return };
    gateway_of(&mut guest);
}

#[test]
fn qemus_stream_backend_answers_who_the_gateway_is_and_returns_an_echo() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("net");
    let stream = format!("stream,id=line,server=on,addr.type=unix,addr.path={}", socket.display());
    let arguments = [
        "-M",
        "none",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-netdev",
        &stream,
        "-netdev",
        "user,id=far,restrict=on",
        "-netdev",
        "hubport,id=one,hubid=0,netdev=line",
        "-netdev",
        "hubport,id=two,hubid=0,netdev=far",
    ];
    let Some((mut guest, _qemu)) = connected("qemu-system-x86_64", &arguments, &socket) else { return };
    let gateway = gateway_of(&mut guest);
    let mut echo = vec![8, 0, 0, 0, 0, 7, 0, 1];
    echo.extend((0..1400_u32).map(|at| (at % 251) as u8));
    let sum = checksum(&echo);
    echo[2..4].copy_from_slice(&sum);
    let mut packet = vec![0x45, 0];
    packet.extend((20 + echo.len() as u16).to_be_bytes());
    packet.extend([0, 1, 0, 0, 64, 1, 0, 0]);
    packet.extend([GUEST, GATEWAY].concat());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum);
    packet.extend(&echo);
    guest.send(&[&gateway[..], &MAC, &[8, 0], &packet].concat(), 4);
    let frame = answer(&mut guest, |frame| frame[12..14] == [8, 0] && frame[23] == 1);
    assert_eq!((frame[34], &frame[42..42 + 1400]), (0, &echo[8..]), "the bytes that were sent, in two buffers");
}
