//! All streams of a guest: who they are between, what is ready, and the answers that wait for the guest.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

use super::packet::{Header, Odd, Operation, Ports, SIZE};
use super::stream::{self, Fate, Phase, ROOM, Stream};
use crate::virtio::Broken;
use crate::virtio::chain::Buffers;

/// Most streams, and most who have not said their port.
const MOST_STREAMS: usize = 512;
const MOST_STRANGERS: usize = 64;
/// Answers that may wait for the guest to take them. While there are more, it is not listened to.
pub const MOST_ANSWERS: usize = 256;
/// First host port of a stream that the host asks for.
const FIRST_PORT: u32 = 1 << 30;

/// All streams.
#[derive(Debug)]
pub struct Streams {
    folder_socket: PathBuf,
    listener: UnixListener,
    epoll: OwnedFd,
    by_key: BTreeMap<u64, Stream>,
    by_ports: BTreeMap<Ports, u64>,
    strangers: BTreeMap<u64, (UnixStream, Vec<u8>)>,
    /// Streams that may have bytes for the guest, each once.
    ready: VecDeque<u64>,
    answers: VecDeque<Header>,
    next_key: u64,
    next_port: u32,
}

/// Key of the listener.
const LISTENER: u64 = 0;

impl Streams {
    /// Streams of a guest whose socket is this, and already listens.
    ///
    /// # Errors
    /// If the kernel has no more descriptors.
    pub fn new(listener: UnixListener, folder_socket: &Path) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        Ok(Self {
            folder_socket: folder_socket.into(),
            listener,
            epoll,
            by_key: BTreeMap::new(),
            by_ports: BTreeMap::new(),
            strangers: BTreeMap::new(),
            ready: VecDeque::new(),
            answers: VecDeque::new(),
            next_key: LISTENER + 1,
            next_port: FIRST_PORT,
        })
    }

    /// Becomes readable when a socket did.
    pub fn wakes(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Forgets all streams: another driver starts.
    pub fn reset(&mut self) {
        let keys: Vec<_> = self.by_key.keys().copied().collect();
        for key in keys {
            self.remove(key);
        }
        self.answers.clear();
        self.ready.clear();
    }

    /// Looks what sockets have become ready.
    pub fn poll(&mut self) {
        let mut events = Vec::with_capacity(64);
        loop {
            events.clear();
            let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&now)) {
                Err(Errno::INTR) => continue,
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let full = events.len() == events.capacity();
            for event in &events {
                // The structure is packed: fields are copied, not borrowed.
                let (data, flags) = (event.data, event.flags);
                match data.u64() {
                    LISTENER => self.accept(),
                    key if self.strangers.contains_key(&key) => self.listen_to(key),
                    key => self.woke(key, flags),
                }
            }
            if !full {
                return;
            }
        }
    }

    fn woke(&mut self, key: u64, flags: EventFlags) {
        let Some(stream) = self.by_key.get_mut(&key) else { return };
        let mut fate = Fate::Lives;
        if flags.intersects(EventFlags::OUT) && stream.phase == Phase::Open {
            fate = stream.flush();
        }
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
            stream.readable = true;
            stream.gone |= flags.intersects(EventFlags::HUP | EventFlags::ERR);
            self.line_up(key);
        }
        self.decide(key, fate);
    }

    /// Puts a stream at the end of the line, if it is not in it.
    fn line_up(&mut self, key: u64) {
        if let Some(stream) = self.by_key.get_mut(&key)
            && !std::mem::replace(&mut stream.queued, true)
        {
            self.ready.push_back(key);
        }
    }

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            let room = self.strangers.len() < MOST_STRANGERS && self.by_key.len() < MOST_STREAMS;
            if !room || socket.set_nonblocking(true).is_err() {
                continue;
            }
            let key = self.next_key;
            self.next_key += 1;
            if self.watch(&socket, key).is_ok() {
                self.strangers.insert(key, (socket, Vec::new()));
                self.listen_to(key);
            }
        }
    }

    fn watch(&self, socket: &UnixStream, key: u64) -> io::Result<()> {
        let both = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(key), both)?)
    }

    /// Somebody says which port of the guest is meant.
    fn listen_to(&mut self, key: u64) {
        let Some((socket, line)) = self.strangers.get_mut(&key) else { return };
        let port = match stream::asked_port(socket, line) {
            Ok(None) => return,
            Ok(Some(port)) => Some(port),
            Err(_) => None,
        };
        let Some((socket, _)) = self.strangers.remove(&key) else { return };
        let Some(guest) = port else { return };
        let Some(host) = self.free_port(guest) else { return };
        let ports = Ports { guest, host };
        let mut stream = Stream::new(ports, Phase::Asked, socket);
        self.answers.push_back(stream.header(Operation::Request));
        self.by_ports.insert(ports, key);
        self.by_key.insert(key, stream);
    }

    fn free_port(&mut self, guest: u32) -> Option<u32> {
        (0..=MOST_STREAMS).find_map(|_| {
            let host = self.next_port;
            self.next_port = if host == u32::MAX - 1 { FIRST_PORT } else { host + 1 };
            (!self.by_ports.contains_key(&Ports { guest, host })).then_some(host)
        })
    }

    /// Takes a packet of the guest.
    ///
    /// # Errors
    /// [`Broken::Parts`] if it says more bytes than there are.
    pub fn take(&mut self, header: &[u8; SIZE], mut data: Buffers<'_>) -> Result<(), Broken> {
        let header = match Header::parse(header) {
            Ok(header) => header,
            Err(Odd::Stranger) => return Ok(()),
            Err(Odd::Unknown(ports)) => {
                self.refuse(ports);
                return Ok(());
            }
        };
        let data = data.split_to(header.length as usize)?;
        let Some(&key) = self.by_ports.get(&header.ports) else {
            match header.operation {
                Operation::Request => self.opened_by_guest(&header),
                Operation::Reset => {}
                _ => self.refuse(header.ports),
            }
            return Ok(());
        };
        let Some(stream) = self.by_key.get_mut(&key) else { return Ok(()) };
        stream.credit(&header);
        let fate = match header.operation {
            Operation::Response if stream.phase == Phase::Asked => {
                stream.phase = Phase::Open;
                let answer = format!("OK {}\n", header.ports.host);
                stream.socket.write_all(answer.as_bytes()).map_or(Fate::Reset, |()| Fate::Lives)
            }
            // A second opening of what is open, or an answer nobody asked for.
            Operation::Request | Operation::Response => Fate::Reset,
            Operation::Reset => {
                self.remove(key);
                return Ok(());
            }
            Operation::Shutdown => stream.shutdown(header.flags),
            Operation::Data => stream.receive(&data),
            Operation::CreditUpdate => Fate::Lives,
            Operation::CreditRequest => {
                let answer = stream.header(Operation::CreditUpdate);
                self.answers.push_back(answer);
                Fate::Lives
            }
        };
        self.line_up(key);
        self.decide(key, fate);
        Ok(())
    }

    fn opened_by_guest(&mut self, header: &Header) {
        let opened = (self.by_key.len() < MOST_STREAMS).then(|| self.connect(header)).and_then(Result::ok);
        if opened.is_none() {
            self.refuse(header.ports);
        }
    }

    fn connect(&mut self, header: &Header) -> io::Result<()> {
        let mut name = self.folder_socket.clone().into_os_string();
        name.push(format!("_{}", header.ports.host));
        let socket = stream::connect(Path::new(&name))?;
        let key = self.next_key;
        self.next_key += 1;
        let mut stream = Stream::new(header.ports, Phase::Open, socket);
        self.watch(&stream.socket, key)?;
        stream.credit(header);
        self.answers.push_back(stream.header(Operation::Response));
        self.by_ports.insert(header.ports, key);
        self.by_key.insert(key, stream);
        self.line_up(key);
        Ok(())
    }

    fn refuse(&mut self, ports: Ports) {
        self.answers.push_back(Header {
            ports,
            operation: Operation::Reset,
            length: 0,
            flags: 0,
            buffer: 0,
            forwarded: 0,
        });
    }

    fn decide(&mut self, key: u64, fate: Fate) {
        let Some(stream) = self.by_key.get_mut(&key) else { return };
        if fate == Fate::Reset || stream.is_over() {
            let ports = stream.ports;
            self.remove(key);
            self.refuse(ports);
        } else if stream.should_tell() {
            let tell = stream.header(Operation::CreditUpdate);
            self.answers.push_back(tell);
        }
    }

    /// Its socket closes, and so leaves the kernel's list.
    fn remove(&mut self, key: u64) {
        if let Some(stream) = self.by_key.remove(&key) {
            self.by_ports.remove(&stream.ports);
        }
    }

    /// The guest may go on sending.
    pub fn listens(&self) -> bool {
        self.answers.len() < MOST_ANSWERS
    }

    /// There may be something for the guest.
    pub fn has_something(&self) -> bool {
        !self.answers.is_empty() || !self.ready.is_empty()
    }

    /// Fills a buffer of the guest with the next packet, and says how many bytes it is; none: nothing was there after all.
    ///
    /// # Errors
    /// [`Broken::Parts`] if there is no room for a header.
    pub fn fill(&mut self, mut buffers: Buffers<'_>) -> Result<Option<usize>, Broken> {
        let header_at = buffers.split_to(SIZE)?;
        if let Some(answer) = self.answers.pop_front() {
            header_at.copy_from(&answer.to_bytes());
            return Ok(Some(SIZE));
        }
        while let Some(key) = self.ready.pop_front() {
            let Some(stream) = self.by_key.get_mut(&key) else { continue };
            stream.queued = false;
            let packet = if stream.can_send() {
                stream.send(&buffers)
            } else if stream.must_ask() {
                Ok(Some(stream.header(Operation::CreditRequest)))
            } else {
                Ok(None)
            };
            match packet {
                Ok(None) => {}
                Ok(Some(packet)) => {
                    header_at.copy_from(&packet.to_bytes());
                    if packet.operation != Operation::CreditRequest {
                        self.line_up(key);
                    }
                    self.decide(key, Fate::Lives);
                    return Ok(Some(SIZE + packet.length as usize));
                }
                Err(_) => {
                    let ports = stream.ports;
                    self.remove(key);
                    self.refuse(ports);
                    return Ok(self.fill_answer(&header_at));
                }
            }
        }
        Ok(None)
    }

    fn fill_answer(&mut self, header_at: &Buffers<'_>) -> Option<usize> {
        self.answers.pop_front().map(|answer| header_at.copy_from(&answer.to_bytes()))
    }
}

const _: () = assert!(ROOM as usize >= stream::MOST_DATA);
