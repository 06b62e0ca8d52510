//! Chains of descriptors, taken apart into slices of memory.
//!
//! Each chain is bounded in descriptors and bytes, lies in memory and has what the device reads in front of what it writes;
//! any other breaks the device. Buffers that overlap are the guest's own affair: every access is volatile and in bounds.

use std::sync::atomic::{Ordering, fence};

use virtio_queue::{DescriptorChain, Queue, QueueOwnedT as _, QueueT as _};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryBackend as _, VolatileSlice};

use super::Broken;
use crate::Memory;

/// Most descriptors of a chain.
const MOST_DESCRIPTORS: usize = 1024;
/// Most bytes of a chain.
const MOST_BYTES: usize = 16 << 20;

/// One request of a driver.
#[derive(Debug)]
pub struct Request<'m> {
    /// By which it is given back.
    pub head: u16,
    /// What the device reads.
    pub readable: Buffers<'m>,
    /// What the device writes.
    pub writable: Buffers<'m>,
}

/// Takes the next request from a queue.
///
/// # Errors
/// [`Broken`].
pub fn take<'m>(queue: &mut Queue, memory: &'m Memory) -> Result<Option<Request<'m>>, Broken> {
    let chain = queue.iter(memory).map_err(|_| Broken::Ring)?.next();
    chain.map(|chain| read(chain, memory)).transpose()
}

/// Gives a request back, with as many bytes written.
///
/// # Errors
/// [`Broken::Ring`].
pub fn give_back(queue: &mut Queue, memory: &Memory, head: u16, written: usize) -> Result<(), Broken> {
    let written = u32::try_from(written).map_err(|_| Broken::TooLong)?;
    queue.add_used(memory, head, written).map_err(|_| Broken::Ring)
}

/// Answers every request there is, each with as many bytes as `answer` wrote, and says whether the driver wants to hear.
///
/// # Errors
/// [`Broken`], also of an answer.
pub fn answer_all<'m>(
    queue: &mut Queue,
    memory: &'m Memory,
    mut answer: impl FnMut(Request<'m>) -> Result<usize, Broken>,
) -> Result<bool, Broken> {
    let mut told = false;
    loop {
        queue.disable_notification(memory).map_err(|_| Broken::Ring)?;
        while let Some(request) = take(queue, memory)? {
            let head = request.head;
            let written = answer(request)?;
            give_back(queue, memory, head, written)?;
            told |= queue.needs_notification(memory).map_err(|_| Broken::Ring)?;
        }
        if !queue.enable_notification(memory).map_err(|_| Broken::Ring)? {
            return Ok(told);
        }
    }
}

/// Gives requests back at once, each with as many bytes written, and says whether the driver wants to hear: it sees all of them
/// or none. A queue that is served so is served so alone.
///
/// # Errors
/// [`Broken::Ring`].
pub fn give_back_together(queue: &mut Queue, memory: &Memory, done: &[(u16, usize)]) -> Result<bool, Broken> {
    let Some((&(last, written), others)) = done.split_last() else { return Ok(false) };
    let before = queue.next_used();
    for (behind, &(head, written)) in others.iter().enumerate() {
        if head >= queue.size() {
            return Err(Broken::Ring);
        }
        let written = u32::try_from(written).map_err(|_| Broken::TooLong)?;
        let slot = u64::from(before.wrapping_add(behind as u16) % queue.size());
        let at = queue.used_ring().checked_add(ELEMENTS + slot * 8).ok_or(Broken::Ring)?;
        let element = [u32::from(head).to_le_bytes(), written.to_le_bytes()].concat();
        memory.write_slice(&element, GuestAddress(at)).map_err(|_| Broken::Ring)?;
    }
    queue.set_next_used(before.wrapping_add(others.len() as u16));
    give_back(queue, memory, last, written)?;
    if !queue.event_idx_enabled() {
        return Ok(true);
    }
    // What was written is there before the driver's wish is read. The queue itself counts one chain for all of these.
    fence(Ordering::SeqCst);
    let at = queue.avail_ring().checked_add(ELEMENTS + u64::from(queue.size()) * 2).ok_or(Broken::Ring)?;
    let mut event = [0; 2];
    memory.read_slice(&mut event, GuestAddress(at)).map_err(|_| Broken::Ring)?;
    let now = queue.next_used();
    let behind = now.wrapping_sub(u16::from_le_bytes(event)).wrapping_sub(1);
    Ok(behind < now.wrapping_sub(before))
}

/// Where the elements of a ring start: behind flags and index.
const ELEMENTS: u64 = 4;

fn read<'m>(chain: DescriptorChain<&'m Memory>, memory: &'m Memory) -> Result<Request<'m>, Broken> {
    let mut request = Request { head: chain.head_index(), readable: Buffers::default(), writable: Buffers::default() };
    let (mut ended, mut count, mut bytes) = (false, 0, 0_usize);
    for descriptor in chain {
        count += 1;
        bytes = bytes.saturating_add(descriptor.len() as usize);
        if count > MOST_DESCRIPTORS || bytes > MOST_BYTES {
            return Err(Broken::TooLong);
        }
        // The iterator ends as silently at a link that leads nowhere as at the last descriptor.
        ended = !descriptor.has_next();
        let slice = memory
            .get_slice(GuestAddress(descriptor.addr().0), descriptor.len() as usize)
            .map_err(|_| Broken::Outside)?;
        if descriptor.is_write_only() {
            request.writable.push(slice);
        } else if request.writable.is_empty() {
            request.readable.push(slice);
        } else {
            return Err(Broken::Order);
        }
    }
    if ended { Ok(request) } else { Err(Broken::Endless) }
}

/// Buffers of guest memory in a row.
#[derive(Debug, Default)]
pub struct Buffers<'m>(Vec<VolatileSlice<'m>>);

impl<'m> Buffers<'m> {
    fn push(&mut self, slice: VolatileSlice<'m>) {
        self.0.push(slice);
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of all.
    pub fn len(&self) -> usize {
        self.0.iter().map(VolatileSlice::len).sum()
    }

    /// The slices.
    pub fn slices(&self) -> &[VolatileSlice<'m>] {
        &self.0
    }

    /// Cuts the first `count` bytes off.
    ///
    /// # Errors
    /// [`Broken::Parts`] if there are fewer.
    pub fn split_to(&mut self, count: usize) -> Result<Self, Broken> {
        let (mut front, mut left) = (Vec::new(), count);
        let mut rest = Vec::with_capacity(self.0.len());
        for slice in self.0.drain(..) {
            let (one, other) = slice.split_at(left.min(slice.len())).map_err(|_| Broken::Parts)?;
            left -= one.len();
            if !one.is_empty() {
                front.push(one);
            }
            if !other.is_empty() {
                rest.push(other);
            }
        }
        self.0 = rest;
        if left == 0 { Ok(Self(front)) } else { Err(Broken::Parts) }
    }

    /// Cuts the last `count` bytes off.
    ///
    /// # Errors
    /// [`Broken::Parts`] if there are fewer.
    pub fn split_off_last(&mut self, count: usize) -> Result<Self, Broken> {
        let front = self.split_to(self.len().checked_sub(count).ok_or(Broken::Parts)?)?;
        Ok(std::mem::replace(self, front))
    }

    /// Reads the first `N` bytes and cuts them off.
    ///
    /// # Errors
    /// [`Broken::Parts`] if there are fewer.
    pub fn read<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let mut bytes = [0; N];
        self.split_to(N)?.copy_to(&mut bytes);
        Ok(bytes)
    }

    /// Copies to `bytes` as much as both have, and says how much.
    pub fn copy_to(&self, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        for slice in &self.0 {
            done += slice.copy_to(&mut bytes[done..]);
        }
        done
    }

    /// Copies from `bytes` as much as both have, and says how much.
    pub fn copy_from(&self, bytes: &[u8]) -> usize {
        let mut done = 0;
        for slice in &self.0 {
            let part = &bytes[done..bytes.len().min(done + slice.len())];
            slice.copy_from(part);
            done += part.len();
        }
        done
    }
}
