//! HTTP/2 and gRPC as a host may write them: frame by frame, right and wrong, with no library that keeps to the rules.
//!
//! Source: RFC 9113 §4, §6; RFC 7541 §6.2.2; gRPC over HTTP/2.

use coffer_guest_proto::{
    Attach, ExecRequest, ExecStart, InjectRequest, ListPrograms, LogsRequest, METHODS, ReadFiles, RefreshRequest,
    ResealRequest, SealRequest, Sealed, Shown, SignalRequest, StateRequest, StatsRequest, StopRequest, TerminalSize,
    UnsealRequest, WriteFiles, exec_request::Message as Ask, exec_start::Own,
};
use prost::Message;

use super::chance::Chance;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Literal fields without indexing, in plain letters.
pub fn head(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            // Lengths below 127 stand for themselves; a longer one goes on in one more byte.
            match u8::try_from(text.len()) {
                Ok(length @ 0..127) => bytes.push(length),
                _ => bytes.extend([127, u8::try_from((text.len() - 127).min(127)).unwrap_or(127)]),
            }
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

pub fn request_head(path: &str) -> Vec<u8> {
    head(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "guest.invalid"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ])
}

/// One message with its prefix.
pub fn message(bytes: &[u8]) -> Vec<u8> {
    let mut all = vec![0];
    all.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    all.extend(bytes);
    all
}

/// A connection's beginning.
pub fn beginning() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

/// A whole call on a stream.
pub fn call(path: &str, stream: u32, messages: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = frame(HEADERS, END_HEADERS, stream, &request_head(path));
    for each in messages {
        // A frame has at most 16 KiB.
        for piece in message(each).chunks(16 << 10) {
            bytes.extend(frame(DATA, 0, stream, piece));
        }
    }
    bytes.extend(frame(DATA, END_STREAM, stream, &[]));
    bytes
}

/// Paths that nobody answers behind a plain port.
const OTHERS: [&str; 8] = [
    "/coffer.attestation.v1.Attestation/Attest",
    "/coffer.attestation.v1.Attestation/Challenge",
    "/coffer.ingress.v1.Ingress/Open",
    "/coffer.agent.v1.Control/",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.health.v1.Health/Check",
    "/",
    "*",
];

pub fn path(chance: &mut Chance) -> &'static str {
    let from: &[&'static str] = if chance.once_in(6) { &OTHERS } else { METHODS };
    from[chance.below(from.len())]
}

/// What one could send to `path`, as its own messages have it, each field of use to somebody who wants what is inside.
pub fn messages(path: &str, chance: &mut Chance) -> Vec<Vec<u8>> {
    let sealed = |chance: &mut Chance| Some(Sealed { enc: chance.bytes(120), ciphertext: chance.bytes(4096) });
    let numbers = [0, 1, 9, 15, 19, 64, 65, -1, i32::MIN];
    let one = match path.rsplit('/').next().unwrap_or_default() {
        "State" => StateRequest {}.encode_to_vec(),
        "Stats" => StatsRequest {}.encode_to_vec(),
        "Stop" => StopRequest { grace_seconds: *chance.of(&[0, 1, 86_400, 86_401, u32::MAX]) }.encode_to_vec(),
        "Signal" => SignalRequest { number: *chance.of(&numbers) }.encode_to_vec(),
        "Logs" => {
            let from_sequence = *chance.of(&[0, 1, u64::MAX]);
            LogsRequest { follow: chance.once_in(2), from_sequence }.encode_to_vec()
        }
        "Run" => {
            let mut all = vec![first(chance)];
            for _ in 0..chance.below(6) {
                all.push(later(chance));
            }
            return all.iter().map(Message::encode_to_vec).collect();
        }
        "Inject" => {
            let set_env = chance.once_in(2);
            InjectRequest { name: "note".into(), value: sealed(chance), set_env }.encode_to_vec()
        }
        "Refresh" => RefreshRequest {}.encode_to_vec(),
        "Seal" => {
            let (policy, plaintext) = ("measurement".into(), sealed(chance));
            SealRequest { policy, context: chance.bytes(64), plaintext, counted: chance.once_in(2), replaces: vec![] }
                .encode_to_vec()
        }
        "Unseal" => UnsealRequest { sealed: chance.bytes(4096), context: chance.bytes(64) }.encode_to_vec(),
        "Reseal" => {
            let (sealed, context) = (chance.bytes(4096), chance.bytes(64));
            ResealRequest { sealed, context, policy: "chip".into() }.encode_to_vec()
        }
        _ => chance.bytes(512),
    };
    vec![one]
}

fn words(all: &[&str]) -> Vec<String> {
    all.iter().map(|&word| word.to_owned()).collect()
}

fn first(chance: &mut Chance) -> ExecRequest {
    let start = ExecStart::default();
    let start = match chance.below(8) {
        0 => ExecStart { argv: words(&["cat", "/run/secrets/key", "/made"]), ..start },
        1 => ExecStart { argv: words(&["sh", "-c", "env; cat /proc/1/environ"]), user: Some("0:0".into()), ..start },
        2 => {
            let terminal = Some(TerminalSize { rows: 24, columns: u32::MAX });
            ExecStart { argv: words(&["sh"]), terminal, ..start }
        }
        3 => ExecStart { argv: words(&["sh", "-c", "rm -rf /www"]), detached: true, ..start },
        4 => {
            let read = ReadFiles { path: b"/run/secrets".to_vec(), follow: true };
            ExecStart { own: Some(Own::ReadFiles(read)), ..start }
        }
        5 => {
            let write = WriteFiles { to: b"/www".to_vec(), name: b"count".to_vec(), contents: false, owners: false };
            ExecStart { own: Some(Own::WriteFiles(write)), ..start }
        }
        6 => ExecStart { own: Some(Own::ListPrograms(ListPrograms {})), ..start },
        _ => {
            let shown = *chance.of(&[Shown::FromNow, Shown::FromBeginning, Shown::Not]);
            let attach = Attach { shown: shown.into(), terminal: Some(TerminalSize { rows: 1, columns: 1 }) };
            return ExecRequest { message: Some(Ask::Attach(attach)) };
        }
    };
    ExecRequest { message: Some(Ask::Start(start)) }
}

fn later(chance: &mut Chance) -> ExecRequest {
    let message = match chance.below(6) {
        0 => Ask::Stdin(chance.bytes(20_000)),
        1 => Ask::StdinClosed(chance.once_in(2)),
        2 => Ask::Signal(*chance.of(&[0, 9, 15, 64, -1])),
        3 => Ask::Resize(TerminalSize { rows: 0, columns: u32::MAX }),
        4 => Ask::Detach(chance.once_in(2)),
        _ => return first(chance),
    };
    ExecRequest { message: Some(message) }
}

/// Frames of which some are none.
pub fn nonsense(chance: &mut Chance) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..chance.below(40) {
        let (kind, flags) = (u8::try_from(chance.below(12)).unwrap_or(0), chance.byte());
        let stream = *chance.of(&[0, 1, 2, 3, 5, 0x7FFF_FFFF, 0xFFFF_FFFF]);
        let payload = match kind {
            HEADERS => request_head(path(chance)),
            WINDOW_UPDATE => chance.of(&[[0; 4], [0x7F, 0xFF, 0xFF, 0xFF]]).to_vec(),
            SETTINGS => [&u16::try_from(chance.below(8)).unwrap_or(0).to_be_bytes()[..], &[0xFF; 4]].concat(),
            _ => chance.bytes(600),
        };
        let mut one = frame(kind, flags, stream, &payload);
        if chance.once_in(8) {
            // A length that is not there.
            one[chance.below(3)] = chance.byte();
        }
        bytes.extend(one);
    }
    bytes
}

/// What a peer of HTTP/2 has: many of something small.
pub fn many(chance: &mut Chance) -> Vec<u8> {
    let mut bytes = Vec::new();
    let count = u32::try_from(chance.below(400)).unwrap_or(0);
    let (which, path) = (chance.below(6), path(chance));
    for at in 0..count {
        let stream = 2 * at + 1;
        match which {
            0 => bytes.extend(frame(PING, 0, 0, &[0; 8])),
            1 => bytes.extend(frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0x10, 0])),
            // Opened, and taken back.
            2 => {
                bytes.extend(frame(HEADERS, END_HEADERS, stream, &request_head(path)));
                bytes.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
            }
            // Opened, and left so.
            3 => bytes.extend(frame(HEADERS, END_HEADERS, stream, &request_head(path))),
            // A head without an end.
            4 if at == 0 => bytes.extend(frame(HEADERS, 0, 1, &request_head(path))),
            4 => bytes.extend(frame(CONTINUATION, 0, 1, &head(&[("x", &"y".repeat(100))]))),
            _ => bytes.extend(frame(GOAWAY, 0, 0, &[0; 8])),
        }
    }
    bytes
}

/// What came from a server, as far as it is whole.
pub fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, u32, &[u8])> {
    let mut all = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        all.push((head[3], head[4], stream, payload));
        bytes = rest;
    }
    all
}
