//! The host's end of what a guest opens: between guest and supervisor, handing on while it is honest, and anything else while it is not.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use coffer_guest_proto::ports::{HOST_CERTIFICATES, HOST_EVENTS, HOST_KBS_RELAY, HOST_PROCESSOR, peer};

use super::{
    chance::Chance,
    guest_ports::Guest,
    heard::{Heard, Line},
};

/// How an end behaves to whoever connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Honest,
    /// Hangs up.
    Refuses,
    /// Bytes of chance, as fast as they are taken.
    Garbage,
    /// The same, byte by byte.
    Slow,
    /// Says nothing and stays.
    Never,
    /// The genuine answer, and not all of it.
    Truncated,
    /// The genuine answer, and not every bit of it.
    Spoilt,
    /// What was said to the guest before, once more.
    Replayed,
}

const HOSTILE: [Mood; 7] =
    [Mood::Refuses, Mood::Garbage, Mood::Slow, Mood::Never, Mood::Truncated, Mood::Spoilt, Mood::Replayed];

/// How long a line stays at most that leads nowhere.
const PATIENCE: Duration = Duration::from_secs(4);

/// All of them.
pub struct Host {
    folder: PathBuf,
    heard: Arc<Heard>,
    mood: Mutex<Vec<(u32, Mood)>>,
    /// What the supervisor said, by port.
    said: Mutex<Vec<(u32, Vec<u8>)>>,
    /// Lines that a guest opens once and keeps.
    kept: Mutex<Vec<(u32, UnixStream)>>,
    seed: u64,
    lines: AtomicUsize,
}

impl Host {
    /// Listens in a folder of its own.
    pub fn listen(folder: &Path, heard: Arc<Heard>, seed: u64) -> Result<Arc<Self>> {
        fs::create_dir(folder)?;
        let host = Arc::new(Self {
            folder: folder.to_owned(),
            heard,
            mood: Mutex::default(),
            said: Mutex::default(),
            kept: Mutex::default(),
            seed,
            lines: AtomicUsize::new(0),
        });
        for port in Self::ports() {
            let listener = UnixListener::bind(folder.join(port.to_string()))?;
            let host = host.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let host = host.clone();
                    std::thread::spawn(move || host.attend(port, stream));
                }
            });
        }
        Ok(host)
    }

    fn ports() -> [u32; 5] {
        [HOST_EVENTS, HOST_PROCESSOR, HOST_KBS_RELAY, HOST_CERTIFICATES, peer(0)]
    }

    /// What a monitor does first in a box's folder: our sockets take the place of the supervisor's.
    pub fn change(&self) -> String {
        let own = self.folder.display();
        let each = Self::ports().map(|port| port.to_string()).join(" ");
        format!(
            "for port in {each}; do\n[ ! -S vsock.sock_$port ] || {{ mv vsock.sock_$port genuine_$port; ln {own}/$port vsock.sock_$port; }}\n\
             done\n[ ! -S genuine_{HOST_EVENTS} ] || pwd >{own}/where"
        )
    }

    pub fn set(&self, port: u32, mood: Mood) {
        let mut all = self.mood.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(of, _)| *of != port);
        all.push((port, mood));
    }

    fn mood(&self, port: u32) -> Mood {
        let all = self.mood.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().find(|(of, _)| *of == port).map_or(Mood::Honest, |(_, mood)| *mood)
    }

    /// Connections so far.
    pub fn lines(&self) -> usize {
        self.lines.load(Ordering::Relaxed)
    }

    /// One move: another mood for what may have one, or something said where nobody is to answer.
    pub fn step(&self, chance: &mut Chance) {
        match chance.below(3) {
            0 => self.set(HOST_KBS_RELAY, *chance.of(&HOSTILE)),
            1 => self.set(peer(0), *chance.of(&HOSTILE)),
            _ => self.answer_events(chance),
        }
    }

    /// Everything is led on again.
    pub fn reform(&self) {
        for port in Self::ports() {
            self.set(port, Mood::Honest);
        }
    }

    fn answer_events(&self, chance: &mut Chance) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, stream)) = kept.iter_mut().find(|(port, _)| *port == HOST_EVENTS) {
            let _ = stream.set_write_timeout(Some(Duration::from_millis(20)));
            // An event is what a guest sends, and no answer of anybody's.
            let frame = coffer_guest_proto::event::encode(&coffer_guest_proto::Event {
                phase: i32::try_from(chance.below(12)).unwrap_or(0),
                ..coffer_guest_proto::Event::default()
            });
            let bytes = if chance.once_in(2) { frame } else { chance.bytes(4096) };
            let _ = stream.write_all(&bytes);
        }
    }

    /// The lines of a port that the guest keeps end, whatever is under way on them.
    pub fn end(&self, port: u32) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, stream) in kept.extract_if(.., |(of, _)| *of == port) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn attend(&self, port: u32, guest: UnixStream) {
        let number = self.lines.fetch_add(1, Ordering::Relaxed);
        let mut chance = Chance::new(self.seed, 1000 + number as u64);
        let mood = self.mood(port);
        let _ = match mood {
            Mood::Refuses => Ok(()),
            Mood::Honest | Mood::Truncated | Mood::Spoilt => self.between(port, guest, mood, &mut chance),
            Mood::Garbage | Mood::Slow | Mood::Never | Mood::Replayed => self.invents(port, guest, mood, &mut chance),
        };
    }

    /// Copies what the guest says into what was heard, to its end.
    fn listens(&self, mut guest: UnixStream, mut to: Option<UnixStream>) {
        let (mut line, mut bytes) = (Line::of(&self.heard, "a port of the host's"), [0; 16 << 10]);
        while let Ok(count @ 1..) = guest.read(&mut bytes) {
            line.push(&bytes[..count]);
            if let Some(to) = &mut to
                && to.write_all(&bytes[..count]).is_err()
            {
                break;
            }
        }
        if let Some(to) = to {
            let _ = to.shutdown(Shutdown::Write);
        }
    }

    fn between(&self, port: u32, mut guest: UnixStream, mood: Mood, chance: &mut Chance) -> Result<()> {
        let folder = fs::read_to_string(self.folder.join("where"))?;
        let folder = Guest::of(Path::new(folder.trim()), self.heard.clone(), 0)?;
        let mut genuine = folder.socket(&format!("genuine_{port}"))?;
        if matches!(port, HOST_EVENTS | HOST_PROCESSOR) {
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).push((port, guest.try_clone()?));
        }
        let (theirs, ours) = (guest.try_clone()?, genuine.try_clone()?);
        std::thread::scope(|scope| {
            scope.spawn(|| self.listens(theirs, Some(ours)));
            let mut left = if mood == Mood::Truncated { chance.below(6000) } else { usize::MAX };
            let mut bytes = vec![0; 16 << 10];
            while let Ok(count @ 1..) = genuine.read(&mut bytes) {
                let mut piece = bytes[..count.min(left)].to_vec();
                left -= piece.len();
                self.remember(port, &piece);
                if mood == Mood::Spoilt && chance.once_in(2) && !piece.is_empty() {
                    let at = chance.below(piece.len());
                    piece[at] ^= 1 << chance.below(8);
                }
                if guest.write_all(&piece).is_err() || left == 0 {
                    break;
                }
            }
            let _ = guest.shutdown(if left == 0 { Shutdown::Both } else { Shutdown::Write });
            let _ = genuine.shutdown(Shutdown::Both);
        });
        Ok(())
    }

    fn remember(&self, port: u32, piece: &[u8]) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() < 256 {
            said.push((port, piece.to_vec()));
        }
    }

    fn invents(&self, port: u32, mut guest: UnixStream, mood: Mood, chance: &mut Chance) -> Result<()> {
        let theirs = guest.try_clone()?;
        theirs.set_read_timeout(Some(PATIENCE))?;
        guest.set_write_timeout(Some(PATIENCE))?;
        std::thread::scope(|scope| {
            scope.spawn(|| self.listens(theirs, None));
            match mood {
                Mood::Garbage => {
                    for _ in 0..chance.below(40) {
                        if guest.write_all(&chance.bytes(16 << 10)).is_err() {
                            break;
                        }
                    }
                }
                Mood::Slow => {
                    for _ in 0..chance.below(40) {
                        if guest.write_all(&[chance.byte()]).is_err() {
                            break;
                        }
                        std::thread::sleep(Duration::from_millis(100));
                    }
                }
                Mood::Replayed => {
                    let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    for (_, piece) in said.iter().filter(|(of, _)| *of == port) {
                        if guest.write_all(piece).is_err() {
                            break;
                        }
                    }
                }
                _ => std::thread::sleep(PATIENCE),
            }
            let _ = guest.shutdown(Shutdown::Both);
        });
        Ok(())
    }

    /// The box's folder, once its monitor began.
    pub fn folder(&self) -> Result<PathBuf> {
        let said = fs::read_to_string(self.folder.join("where")).context("the monitor did not begin")?;
        Ok(PathBuf::from(said.trim()))
    }
}
