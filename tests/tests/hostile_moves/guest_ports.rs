//! Moves at the ports that a guest opens to its host.

use std::{
    fs::File,
    io::{ErrorKind, Read as _, Write as _},
    net::Shutdown,
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use coffer_guest_proto::ports::{CONTROL, EXEC, RA_TLS, RA_TLS_ELSEWHERE, ingress};

use super::{
    chance::Chance,
    frames::{self, DATA, END_STREAM, HEADERS},
    heard::{Heard, Line},
    strangers,
};

/// How long a move waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// A port that a guest does not open.
const NOBODYS: u32 = 4092;
/// Bytes of an answer that a move reads.
const MOST: usize = 1 << 20;

/// The way to the ports of one box.
pub struct Guest {
    folder: File,
    heard: Arc<Heard>,
    /// The workload's port behind RA-TLS.
    pub served: u16,
    /// Calls that the host may make and that were answered, and those that were refused in gRPC's own way.
    pub answered: AtomicUsize,
    pub refused: AtomicUsize,
}

/// Every method that this host may call.
pub const MAY: [&str; 2] = ["/coffer.agent.v1.Control/State", "/coffer.agent.v1.Control/Stats"];

impl Guest {
    pub fn of(folder: &Path, heard: Arc<Heard>, served: u16) -> Result<Self> {
        let folder = File::open(folder)?;
        Ok(Self { folder, heard, served, answered: AtomicUsize::new(0), refused: AtomicUsize::new(0) })
    }

    /// A socket of the box's folder, however long its path is.
    pub fn socket(&self, name: &str) -> std::io::Result<UnixStream> {
        UnixStream::connect(format!("/proc/self/fd/{}/{name}", self.folder.as_raw_fd()))
    }

    fn line(&self) -> std::io::Result<UnixStream> {
        let stream = self.socket("vsock.sock")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// A connection to a port, or nothing where its listener has no room, or is none.
    pub fn connect(&self, port: u32) -> std::io::Result<Option<UnixStream>> {
        let mut stream = self.line()?;
        if stream.write_all(format!("CONNECT {port}\n").as_bytes()).is_err() {
            return Ok(None);
        }
        let mut line = Vec::new();
        loop {
            let mut byte = [0];
            match stream.read(&mut byte) {
                Ok(1) if byte == *b"\n" => return Ok(line.starts_with(b"OK").then_some(stream)),
                Ok(1) if line.len() < 64 => line.push(byte[0]),
                _ => return Ok(None),
            }
        }
    }

    /// What comes until an end, or nothing comes any more, or `enough` says so.
    fn hear(&self, stream: &mut UnixStream, enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let (until, mut all, mut bytes) = (Instant::now() + PATIENCE, Vec::new(), [0; 16 << 10]);
        let mut line = Line::of(&self.heard, "a guest's port");
        while Instant::now() < until && all.len() < MOST && !enough(&all) {
            match stream.read(&mut bytes) {
                Ok(count @ 1..) => {
                    line.push(&bytes[..count]);
                    all.extend_from_slice(&bytes[..count]);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        all
    }

    /// A call on a connection of its own. Gives the messages of its answer, with their prefixes, or nothing where it was not answered.
    pub fn call(&self, port: u32, path: &str, messages: &[Vec<u8>]) -> Result<Option<Vec<u8>>> {
        let Some(mut stream) = self.connect(port)? else { return Ok(None) };
        let asked = [frames::beginning(), frames::call(path, 1, messages)].concat();
        // It may be refused before it is read.
        let _ = stream.write_all(&asked);
        let ended = |all: &[u8]| {
            frames::frames(all).iter().any(|(kind, flags, stream, _)| {
                matches!(*kind, DATA | HEADERS) && *stream == 1 && flags & END_STREAM != 0
                    || *kind == frames::RST_STREAM && *stream == 1
                    || *kind == frames::GOAWAY
            })
        };
        let all = self.hear(&mut stream, ended);
        let found = frames::frames(&all);
        if !found.iter().any(|(kind, _, stream, _)| *kind == HEADERS && *stream == 1) {
            return Ok(None);
        }
        let of_call = found.iter().filter(|(kind, _, stream, _)| *kind == DATA && *stream == 1);
        Ok(Some(of_call.flat_map(|(_, _, _, payload)| payload.iter().copied()).collect()))
    }

    fn port(&self, chance: &mut Chance) -> u32 {
        *chance.of(&[CONTROL, EXEC, CONTROL, EXEC, RA_TLS, RA_TLS_ELSEWHERE, ingress(self.served), NOBODYS])
    }

    /// One move.
    ///
    /// # Errors
    /// What the host may not, and yet did.
    pub fn step(&self, chance: &mut Chance) -> Result<()> {
        match chance.below(16) {
            0..6 => self.calls(chance),
            6 => self.spoilt(chance),
            7 => {
                let bytes = [frames::beginning(), frames::nonsense(chance)].concat();
                self.whatever(chance, &bytes)
            }
            8 => {
                let bytes = [frames::beginning(), frames::many(chance)].concat();
                self.whatever(chance, &bytes)
            }
            9 => {
                let bytes = chance.bytes(70_000);
                self.whatever(chance, &bytes)
            }
            10 => self.whatever(chance, b"GET /run/secrets/key HTTP/1.1\r\nHost: guest.invalid\r\n\r\n"),
            11 => self.hello(chance),
            12 => strangers::proves_nothing(self, chance),
            13 => self.flood(chance),
            14 => self.slowly(chance),
            _ => self.names_ports(chance),
        }
    }

    /// A call as the protocol has it: answered where the host may, and else with nothing of a message.
    fn calls(&self, chance: &mut Chance) -> Result<()> {
        let (port, path) = (*chance.of(&[CONTROL, EXEC]), frames::path(chance));
        let mut messages = frames::messages(path, chance);
        if chance.once_in(6) {
            messages.push(chance.bytes(30_000));
        }
        let whole = messages.len() == 1;
        let Some(answer) = self.call(port, path, &messages)? else { return Ok(()) };
        if port == CONTROL && MAY.contains(&path) {
            self.answered.fetch_add(usize::from(whole && !answer.is_empty()), Ordering::Relaxed);
            // Numbers, and not many.
            ensure!(answer.len() < 256, "{path} answered {} bytes", answer.len());
        } else {
            ensure!(answer.is_empty(), "port {port} answered {path}, which the host may not: {}", hex::encode(&answer));
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The bytes of a call, a few of which are others.
    fn spoilt(&self, chance: &mut Chance) -> Result<()> {
        let path = frames::path(chance);
        let messages = frames::messages(path, chance);
        let mut bytes = [frames::beginning(), frames::call(path, 1, &messages)].concat();
        chance.spoil(&mut bytes);
        self.whatever(chance, &bytes)
    }

    /// Bytes, and then what comes; sometimes with an end of what is said, sometimes without waiting for anything.
    fn whatever(&self, chance: &mut Chance, bytes: &[u8]) -> Result<()> {
        let port = self.port(chance);
        let Some(mut stream) = self.connect(port)? else { return Ok(()) };
        let _ = stream.write_all(bytes);
        match chance.below(3) {
            0 => return Ok(()),
            1 => drop(stream.shutdown(Shutdown::Write)),
            _ => {}
        }
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        self.hear(&mut stream, |_| false);
        Ok(())
    }

    /// The beginning of TLS, right or not.
    fn hello(&self, chance: &mut Chance) -> Result<()> {
        let mut hello = strangers::client_hello(chance)?;
        for _ in 0..chance.below(4) {
            chance.spoil(&mut hello);
        }
        if chance.once_in(4) {
            hello.extend(chance.bytes(2000));
        }
        let port = *chance.of(&[RA_TLS, RA_TLS_ELSEWHERE, ingress(self.served)]);
        let Some(mut stream) = self.connect(port)? else { return Ok(()) };
        let _ = stream.write_all(&hello);
        stream.set_read_timeout(Some(Duration::from_millis(300)))?;
        self.hear(&mut stream, |_| false);
        Ok(())
    }

    /// More connections than there are places.
    fn flood(&self, chance: &mut Chance) -> Result<()> {
        let port = self.port(chance);
        let mut all = Vec::new();
        for _ in 0..chance.below(48) {
            if let Some(mut stream) = self.connect(port)? {
                let _ = stream.write_all(&chance.bytes(64));
                all.push(stream);
            }
        }
        std::thread::sleep(Duration::from_millis(200));
        for mut stream in all {
            stream.set_read_timeout(Some(Duration::from_millis(1)))?;
            self.hear(&mut stream, |_| false);
        }
        Ok(())
    }

    /// A call that comes byte by byte, and not to its end.
    fn slowly(&self, chance: &mut Chance) -> Result<()> {
        let path = frames::path(chance);
        let bytes = [frames::beginning(), frames::call(path, 1, &frames::messages(path, chance))].concat();
        let port = self.port(chance);
        let Some(mut stream) = self.connect(port)? else { return Ok(()) };
        for byte in &bytes[..chance.below(bytes.len()).min(300)] {
            if stream.write_all(&[*byte]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// The line in front of a connection: no such port, none at all, too long, or never whole.
    fn names_ports(&self, chance: &mut Chance) -> Result<()> {
        let mut line = match chance.below(4) {
            0 => format!("CONNECT {}\n", u32::try_from(chance.number() >> 32)?).into_bytes(),
            1 => format!("CONNECT {}\n", "9".repeat(chance.below(200))).into_bytes(),
            2 => b"CONNECT".to_vec(),
            _ => chance.bytes(300),
        };
        if chance.once_in(3) {
            chance.spoil(&mut line);
        }
        let mut stream = self.line()?;
        let _ = stream.write_all(&line);
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        self.hear(&mut stream, |all| all.len() > 64);
        Ok(())
    }

    /// How long the guest runs, in microseconds, by its own word: whatever the movers do, the host may ask that.
    pub fn uptime(&self) -> Result<u64> {
        let until = Instant::now() + Duration::from_secs(90);
        while Instant::now() < until {
            // Their connections may still hold the places.
            if let Some(answer) = self.call(CONTROL, MAY[1], &[Vec::new()])?
                && let Some(message) = answer.get(5..).filter(|message| !message.is_empty())
            {
                let stats: coffer_guest_proto::StatsResponse = prost::Message::decode(message)?;
                return Ok(stats.uptime_us);
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        bail!("the agent does not answer its host")
    }

    /// A connection for whoever speaks TLS on it.
    pub fn for_tls(&self, port: u32) -> Result<Option<UnixStream>> {
        self.connect(port).context("the box's socket")
    }
}
