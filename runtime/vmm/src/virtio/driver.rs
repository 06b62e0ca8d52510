//! A driver in plain memory, for tests: it writes what a guest would, and what none would.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vm_memory::{Bytes as _, GuestAddress};

use super::transport::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, register};
use super::{Device, Transport, Waits};
use crate::Memory;

/// Bytes of memory.
pub const MEMORY: u64 = 4 << 20;
/// Where buffers of tests may lie.
pub const BUFFERS: u64 = 2 << 20;
/// Entries of each queue.
pub const ENTRIES: u16 = 16;

/// The device writes the buffer.
pub const WRITE: u16 = 2;
/// Another follows.
pub const NEXT: u16 = 1;
/// The buffer is a table of descriptors.
pub const INDIRECT: u16 = 4;

/// Address, length, flags, next.
pub type Descriptor = (u64, u32, u16, u16);

/// A transport with a driver.
pub struct Driver {
    /// Guest memory.
    pub memory: Memory,
    /// The transport.
    pub transport: Transport,
    interrupts: Arc<AtomicU32>,
    next: Vec<u16>,
}

impl Driver {
    /// Starts a device as a guest does, without the event index.
    pub fn start(device: impl Device + 'static) -> Self {
        let mut driver = Self::of(device);
        driver.negotiate(!(1 << super::EVENT_INDEX));
        driver
    }

    /// A driver that did nothing yet.
    pub fn of(device: impl Device + 'static) -> Self {
        let interrupts = Arc::new(AtomicU32::new(0));
        let raised = Arc::clone(&interrupts);
        let queues = device.queues();
        let raise = move || {
            raised.fetch_add(1, Ordering::SeqCst);
        };
        let transport = Transport::new(Box::new(device), raise, || {});
        let memory = Memory::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap();
        Self { memory, transport, interrupts, next: vec![0; queues] }
    }

    /// Starts again after a reset.
    pub fn restart(&mut self) {
        self.next.fill(0);
        self.negotiate(!(1 << super::EVENT_INDEX));
    }

    /// Goes through all steps, accepting what is offered of `features`.
    pub fn negotiate(&mut self, features: u64) {
        self.write(register::STATUS, ACKNOWLEDGE | DRIVER);
        for page in 0..2 {
            self.write(register::OFFERED_PAGE, page);
            let offered = self.read(register::OFFERED);
            self.write(register::ACCEPTED_PAGE, page);
            self.write(register::ACCEPTED, offered & (features >> (32 * page)) as u32);
        }
        self.write(register::STATUS, FEATURES_OK);
        for queue in 0..self.next.len() {
            self.place(queue, table(queue), available(queue), used(queue));
        }
        self.write(register::STATUS, DRIVER_OK);
    }

    /// Says where a queue lies.
    pub fn place(&self, queue: usize, table: u64, available: u64, used: u64) {
        self.write(register::QUEUE, queue as u32);
        self.write(register::QUEUE_SIZE, ENTRIES.into());
        let places =
            [(register::DESCRIPTORS_LOW, table), (register::AVAILABLE_LOW, available), (register::USED_LOW, used)];
        for (low, address) in places {
            self.write(low, address as u32);
            self.write(low + 4, (address >> 32) as u32);
        }
        self.write(register::QUEUE_READY, 1);
    }

    /// Writes a register.
    pub fn write(&self, register: u64, word: u32) {
        self.transport.write(&self.memory, register, &word.to_le_bytes());
    }

    /// Reads a register.
    pub fn read(&self, register: u64) -> u32 {
        let mut word = [0; 4];
        self.transport.read(register, &mut word);
        u32::from_le_bytes(word)
    }

    /// Puts bytes into memory.
    pub fn put(&self, at: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    /// Bytes of memory.
    pub fn get(&self, at: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    /// Writes a descriptor into the table at `table`.
    pub fn describe(&self, table: u64, index: u16, (address, length, flags, next): Descriptor) {
        let mut bytes = address.to_le_bytes().to_vec();
        bytes.extend(length.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.put(table + u64::from(index) * 16, &bytes);
    }

    /// Makes the chain that starts at `head` available.
    pub fn offer(&mut self, queue: usize, head: u16) {
        let next = &mut self.next[queue];
        let slot = u64::from(*next % ENTRIES);
        *next = next.wrapping_add(1);
        let index = *next;
        self.put(available(queue) + 4 + slot * 2, &head.to_le_bytes());
        self.put(available(queue) + 2, &index.to_le_bytes());
    }

    /// Offers buffers as one chain, from this descriptor on: first those to read, then those to write.
    pub fn send(&mut self, queue: usize, head: u16, buffers: &[(u64, u32, bool)]) {
        for (index, (address, length, write)) in (head..).zip(buffers) {
            let last = usize::from(index - head) + 1 == buffers.len();
            let flags = if *write { WRITE } else { 0 } | if last { 0 } else { NEXT };
            self.describe(table(queue), index, (*address, *length, flags, index + 1));
        }
        self.offer(queue, head);
    }

    /// Lets the device work, and says what it waits for then.
    pub fn serve(&self) -> Waits {
        self.transport.serve(&self.memory)
    }

    /// Chains given back so far, and bytes written into the last of them.
    pub fn used(&self, queue: usize) -> (u16, u32) {
        let index = u16::from_le_bytes(self.get(used(queue) + 2, 2).try_into().unwrap());
        let slot = u64::from(index.wrapping_sub(1) % ENTRIES);
        let length = u32::from_le_bytes(self.get(used(queue) + 4 + slot * 8 + 4, 4).try_into().unwrap());
        (index, length)
    }

    /// How often the device raised its interrupt.
    pub fn interrupts(&self) -> u32 {
        self.interrupts.load(Ordering::SeqCst)
    }
}

/// Where a queue's descriptors are.
pub const fn table(queue: usize) -> u64 {
    0x1_0000 + queue as u64 * 0x1000
}

/// Where its available ring is.
pub const fn available(queue: usize) -> u64 {
    table(queue) + 0x400
}

/// Where its used ring is.
pub const fn used(queue: usize) -> u64 {
    table(queue) + 0x800
}
