//! The device: three queues around the streams.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

use coffer_machine::vsock::GUEST_CID;
use virtio_queue::{Queue, QueueT as _};

use super::packet::SIZE;
use super::streams::Streams;
use crate::Memory;
use crate::virtio::chain;
use crate::virtio::{Broken, Device, Interrupt};

/// virtio-vsock.
#[derive(Debug)]
pub struct Vsock(Streams);

impl Vsock {
    /// The vsock whose socket is this, and already listens.
    ///
    /// # Errors
    /// If the kernel has no more descriptors.
    pub fn new(listener: UnixListener, socket: &Path) -> io::Result<Self> {
        Streams::new(listener, socket).map(Self)
    }

    /// Takes what the guest sent.
    fn listen(&mut self, memory: &Memory, queue: &mut Queue) -> Result<bool, Broken> {
        let mut told = false;
        while self.0.listens() {
            let Some(mut request) = chain::take(queue, memory)? else { break };
            let header: [u8; SIZE] = request.readable.read()?;
            self.0.take(&header, request.readable)?;
            chain::give_back(queue, memory, request.head, 0)?;
            told |= queue.needs_notification(memory).map_err(|_| Broken::Ring)?;
        }
        Ok(told)
    }

    /// Gives the guest what there is, as long as it has buffers.
    fn speak(&mut self, memory: &Memory, queue: &mut Queue) -> Result<bool, Broken> {
        let mut told = false;
        while self.0.has_something() {
            let Some(request) = chain::take(queue, memory)? else { break };
            let Some(written) = self.0.fill(request.writable)? else {
                // Nothing was there after all: the buffer stays the guest's next.
                let next = queue.next_avail();
                queue.set_next_avail(next.wrapping_sub(1));
                break;
            };
            chain::give_back(queue, memory, request.head, written)?;
            told |= queue.needs_notification(memory).map_err(|_| Broken::Ring)?;
        }
        Ok(told)
    }
}

impl Device for Vsock {
    fn id(&self) -> u32 {
        19
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> usize {
        3
    }

    fn configuration(&self) -> Vec<u8> {
        u64::from(GUEST_CID).to_le_bytes().to_vec()
    }

    fn serve(&mut self, memory: &Memory, queues: &mut [Queue]) -> Result<Interrupt, Broken> {
        let [to_guest, from_guest, _events] = queues else { return Err(Broken::Parts) };
        let mut told = false;
        loop {
            for queue in [&mut *to_guest, &mut *from_guest] {
                queue.disable_notification(memory).map_err(|_| Broken::Ring)?;
            }
            self.0.poll();
            told |= self.listen(memory, from_guest)?;
            told |= self.speak(memory, to_guest)?;
            let more_room = to_guest.enable_notification(memory).map_err(|_| Broken::Ring)?;
            let more_packets = from_guest.enable_notification(memory).map_err(|_| Broken::Ring)?;
            if !(more_room && self.0.has_something() || more_packets && self.0.listens()) {
                return Ok(Interrupt(told));
            }
        }
    }

    fn reset(&mut self) {
        self.0.reset();
    }

    fn wakes(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.wakes())
    }
}
