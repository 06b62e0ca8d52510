//! The port of a box at the switch: frames of its guest to other boxes, frames of other boxes to its guest.
//!
//! There is no process of a network's: the supervisor of each box has the box's port, and takes datagrams, a frame each, at a socket
//! that is named by the network and the box's address there. Whoever runs the supervisor alone can reach it. So nothing has to
//! outlive a box, and none is lost with another.
//!
//! A box that takes nothing holds nobody up: so many frames wait for it, then they are dropped.
//! Trusts: the other supervisors, which are the same user's; all the same what they send is checked.
//! Never: waits for another box on the way from the guest; keeps more frames than [`WAITING`].

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak};

use coffer_rim::{Class, Classify as _, Failure};
use coffer_vmm::net::switch::opened::acknowledged;
use coffer_vmm::net::switch::source_ports::SourcePorts;
use coffer_vmm::net::switch::{Port, View, Way};
use coffer_vmm::net::{LONGEST, Refused, SHORTEST};
use tokio::net::UnixDatagram;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::for_guest::ToGuest;
use super::notes::Notes;
use super::reserved::Reserved;
use crate::home::private_folder;
use crate::socket::{bind_datagrams, connect_datagrams};

/// Looks at the networks. `true`: in any case; `false`: nothing comes of it where nothing changed since.
pub type Look = Box<dyn Fn(bool) -> Result<Option<View>, Failure> + Send>;

/// Frames that wait for one box.
const WAITING_FOR_ONE: usize = 64;
/// Frames that wait for all.
const WAITING: usize = 256;

/// A network, and an address in it.
type Place = (String, Ipv4Addr);
type Letter = (Vec<u8>, OwnedSemaphorePermit);

/// A box's port.
pub struct Exchange {
    port: RwLock<Port>,
    /// Ports of the host that the guest's datagrams leave from.
    source_ports: Mutex<(SourcePorts, Reserved)>,
    look: Mutex<Look>,
    /// Of the networks of this home.
    folder: PathBuf,
    to_guest: ToGuest,
    /// Where frames for it arrive.
    own: Mutex<BTreeMap<Place, Mailbox>>,
    others: Mutex<BTreeMap<Place, (mpsc::Sender<Letter>, Task)>>,
    room: Arc<Semaphore>,
    notes: Notes,
}

/// What runs beside, and ends when it is dropped.
#[derive(Debug)]
pub struct Task(pub JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Exchange {
    /// The port with its sockets. Frames for the guest are given to `to_guest`.
    ///
    /// # Errors
    /// If the networks cannot be looked at, or a socket cannot be made.
    pub fn open(
        port: Port,
        look: Look,
        folder: PathBuf,
        to_guest: ToGuest,
        notes: Notes,
    ) -> Result<Arc<Self>, Failure> {
        let exchange = Arc::new(Self {
            port: RwLock::new(port),
            source_ports: Mutex::default(),
            look: Mutex::new(look),
            folder,
            to_guest,
            own: Mutex::default(),
            others: Mutex::default(),
            room: Arc::new(Semaphore::new(WAITING)),
            notes,
        });
        exchange.renew()?;
        Ok(exchange)
    }

    fn port(&self) -> RwLockReadGuard<'_, Port> {
        self.port.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the networks, and does from now on what they say.
    ///
    /// # Errors
    /// If they cannot be looked at, or a socket cannot be made. Networks that the box left it has left all the same.
    pub fn renew(self: &Arc<Self>) -> Result<(), Failure> {
        self.look(true).map(drop)
    }

    /// Whether there was anything new.
    fn look(self: &Arc<Self>, always: bool) -> Result<bool, Failure> {
        // Held until it is done, so that no older look comes last.
        let look = lock(&self.look);
        let Some(view) = look(always)? else { return Ok(false) };
        // First of all: what comes after it is judged by it. Never while the others below are held.
        self.port.write().unwrap_or_else(PoisonError::into_inner).view = view.clone();
        let (mut own, mut others) = (lock(&self.own), lock(&self.others));
        let joined = |(network, address): &Place| {
            view.joined.iter().any(|joined| joined.name == *network && joined.address == *address)
        };
        let there = |(network, address): &Place| {
            view.joined.iter().any(|joined| joined.name == *network && joined.members.contains_key(address))
        };
        own.retain(|place, _| joined(place));
        others.retain(|place, _| there(place));
        for joined in &view.joined {
            let place = (joined.name.clone(), joined.address);
            let Entry::Vacant(missing) = own.entry(place) else { continue };
            let folder = self.folder.join(&joined.name);
            private_folder(&folder).class_while(Class::Config, "cannot listen to a network")?;
            let opened = Mailbox::open(folder, joined.address.to_string(), joined.name.clone(), Arc::downgrade(self));
            missing.insert(opened.class_while(Class::Config, "cannot listen to a network")?);
        }
        Ok(true)
    }

    /// Sees to a frame of the guest's. True if it goes to who carries frames out.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn outbound(self: &Arc<Self>, frame: &mut [u8]) -> Result<bool, Refused> {
        if self.port().asks_for_a_name(frame) {
            self.look_again();
        }
        let sorted = self.sort(frame);
        match sorted {
            // Who is not there may have come meanwhile.
            Err(Refused::NoMember | Refused::OtherNetwork) if self.look_again() => self.sort(frame),
            sorted => sorted,
        }
    }

    fn look_again(self: &Arc<Self>) -> bool {
        self.look(false).unwrap_or_else(|error| {
            tracing::warn!(%error, "the networks cannot be looked at");
            false
        })
    }

    fn sort(&self, frame: &mut [u8]) -> Result<bool, Refused> {
        let port = self.port();
        match port.outbound(frame)? {
            Way::Out => {
                if let Some(last_step) = acknowledged(frame) {
                    self.to_guest.answer(last_step);
                }
                let (ports, reserved) = &mut *lock(&self.source_ports);
                ports.out(frame, &port.filter.datagrams, || reserved.take()).map(|()| true)
            }
            Way::Back(answer) => {
                self.to_guest.answer(answer);
                Ok(false)
            }
            Way::Neighbour { network, address } => self.hand_over((network.to_owned(), address), frame).map(|()| false),
        }
    }

    fn hand_over(&self, place: Place, frame: &[u8]) -> Result<(), Refused> {
        let permit = Arc::clone(&self.room).try_acquire_owned().map_err(|_| Refused::Busy)?;
        let mut letter = (frame.to_vec(), permit);
        let mut others = lock(&self.others);
        if let Some((line, _)) = others.get(&place) {
            match line.try_send(letter) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::TrySendError::Full(_)) => return Err(Refused::Busy),
                // It ended, and may be there again.
                Err(mpsc::error::TrySendError::Closed(back)) => letter = back,
            }
        }
        let line = Line { folder: self.folder.join(&place.0), name: place.1.to_string() };
        // It ended, and what is known of it here is older.
        let socket = line.connect().map_err(|_| Refused::Busy)?;
        let (to_line, letters) = mpsc::channel(WAITING_FOR_ONE);
        let _ = to_line.try_send(letter);
        others.insert(place, (to_line, Task(tokio::spawn(line.send(socket, letters)))));
        Ok(())
    }

    /// Whether the guest is given a frame of who carries its frames out, which is changed into what the guest is to see.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn inbound(&self, frame: &mut [u8]) -> Result<(), Refused> {
        lock(&self.source_ports).0.back(frame)?;
        self.port().inbound(frame)
    }

    /// Notes what was refused, and from whom.
    pub fn refused(&self, who: &'static str, why: Refused) {
        self.notes.refused(who, why);
    }
}

/// Where frames of other boxes arrive. Dropped, it is gone, and its socket with it.
struct Mailbox {
    folder: PathBuf,
    name: String,
    inode: u64,
    _task: Task,
}

impl Mailbox {
    fn open(folder: PathBuf, name: String, network: String, exchange: Weak<Exchange>) -> io::Result<Self> {
        let _alone = alone(&folder)?;
        let socket = bind_datagrams(&folder, &name)?;
        let inode = fs::symlink_metadata(folder.join(&name))?.ino();
        Ok(Self { folder, name, inode, _task: Task(tokio::spawn(receive(socket, network, exchange))) })
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        let Ok(_alone) = alone(&self.folder) else { return };
        let socket = self.folder.join(&self.name);
        // Another box may have the address by now, and listen there.
        if fs::symlink_metadata(&socket).is_ok_and(|now| now.ino() == self.inode) {
            let _ = fs::remove_file(&socket);
        }
    }
}

/// Nobody else makes or removes a socket in the folder of a network, as long as this is there.
fn alone(folder: &Path) -> io::Result<File> {
    let folder = File::open(folder)?;
    folder.lock()?;
    Ok(folder)
}

/// To another box's port.
struct Line {
    folder: PathBuf,
    name: String,
}

impl Line {
    fn connect(&self) -> io::Result<UnixDatagram> {
        connect_datagrams(&self.folder, &self.name)
    }

    /// Sends what comes, also to a box that was started anew, until nobody is there.
    async fn send(self, mut socket: UnixDatagram, mut letters: mpsc::Receiver<Letter>) {
        while let Some((frame, _permit)) = letters.recv().await {
            if socket.send(&frame).await.is_ok() {
                continue;
            }
            let Ok(again) = self.connect() else { return };
            socket = again;
            if socket.send(&frame).await.is_err() {
                return;
            }
        }
    }
}

async fn receive(socket: UnixDatagram, network: String, exchange: Weak<Exchange>) {
    let mut frame = vec![0; LONGEST + 1];
    while let Ok(length) = socket.recv(&mut frame).await {
        let Some(exchange) = exchange.upgrade() else { return };
        if !(SHORTEST..=LONGEST).contains(&length) {
            continue;
        }
        let frame = &mut frame[..length];
        let judged = exchange.port().from_neighbour(&network, frame);
        match judged {
            Ok(()) => {
                let to_guest = exchange.to_guest.clone();
                drop(exchange);
                if !to_guest.pass_on(frame.to_vec()).await {
                    return;
                }
            }
            Err(why) => exchange.refused("another box", why),
        }
    }
}

#[cfg(test)]
mod tests;
