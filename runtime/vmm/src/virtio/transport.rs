//! A virtio-mmio transport: its registers, and the queues and device behind them.
//!
//! Registers are read and written by the guest's processors, queues are served by the device's own thread. What both need
//! is behind one lock; what an interrupt handler reads is not, so that no processor waits for a disk.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::event::PollFlags;
use virtio_queue::{Queue, QueueT as _};

use super::{Broken, COMMON_FEATURES, EVENT_INDEX, QUEUE_SIZE, VERSION_1};
use crate::Memory;

/// What stands behind a transport.
pub trait Device: Send {
    /// Its number (Virtio 1.2 §5).
    fn id(&self) -> u32;

    /// Feature bits of its own.
    fn features(&self) -> u64;

    /// How many queues it has.
    fn queues(&self) -> usize;

    /// Its configuration space, from its start; what is behind it reads as zero.
    fn configuration(&self) -> Vec<u8>;

    /// Serves the queues, as far as there is something to do.
    ///
    /// # Errors
    /// [`Broken`].
    fn serve(&mut self, memory: &Memory, queues: &mut [Queue]) -> Result<Interrupt, Broken>;

    /// Forgets everything the driver had it do.
    fn reset(&mut self);

    /// What happens to it can mean that there is something to do that no driver asked for.
    fn wakes(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// What it waits for, having been served.
    fn waits(&self) -> Waits {
        Waits { events: PollFlags::IN, until: None }
    }

    /// A driver starts it, having agreed to these features.
    fn start(&mut self, _features: u64) {}

    /// Whether its configuration space changed since it was last asked.
    fn changed(&mut self) -> bool {
        false
    }
}

/// What a device's thread waits for, beside the driver. Nothing, if no driver runs the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// What may happen to its descriptor; if it is nothing, the descriptor is not looked at.
    pub events: PollFlags,
    /// When it is to be served though nothing happened.
    pub until: Option<Instant>,
}

impl Waits {
    /// For nothing.
    pub const NONE: Self = Self { events: PollFlags::empty(), until: None };
}

/// Whether the driver wants to hear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interrupt(pub bool);

/// One transport.
pub struct Transport {
    inside: Mutex<Inside>,
    interrupts: AtomicU32,
    raise: Box<dyn Fn() + Send + Sync>,
    kick: Box<dyn Fn() + Send + Sync>,
}

struct Inside {
    device: Box<dyn Device>,
    queues: Vec<Queue>,
    status: u32,
    accepted: u64,
    offered_page: u32,
    accepted_page: u32,
    queue: usize,
    generation: u32,
}

impl Transport {
    /// A transport in reset. `raise` raises its interrupt, `kick` wakes the thread that calls [`Transport::serve`].
    ///
    /// # Panics
    /// Never: the size of queues is a power of two.
    pub fn new(
        device: Box<dyn Device>,
        raise: impl Fn() + Send + Sync + 'static,
        kick: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let queues =
            (0..device.queues()).map(|_| Queue::new(QUEUE_SIZE).expect("a power of two within the limit")).collect();
        let inside = Inside {
            device,
            queues,
            status: 0,
            accepted: 0,
            offered_page: 0,
            accepted_page: 0,
            queue: 0,
            generation: 0,
        };
        Self { inside: Mutex::new(inside), interrupts: AtomicU32::new(0), raise: Box::new(raise), kick: Box::new(kick) }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves the queues of a device that runs, and says what to wait for then. A device that finds its driver broken stops
    /// and tells it.
    pub fn serve(&self, memory: &Memory) -> Waits {
        let mut inside = self.inside();
        if !inside.runs() {
            return Waits::NONE;
        }
        let Inside { device, queues, .. } = &mut *inside;
        let Ok(Interrupt(used)) = device.serve(memory, queues) else {
            inside.status |= NEEDS_RESET;
            self.interrupt(CONFIGURATION_CHANGED);
            return Waits::NONE;
        };
        let (waits, changed) = (device.waits(), device.changed());
        inside.generation = inside.generation.wrapping_add(changed.into());
        let why = if used { USED_BUFFER } else { 0 } | if changed { CONFIGURATION_CHANGED } else { 0 };
        if why != 0 {
            self.interrupt(why);
        }
        waits
    }

    /// Lends the descriptor that wakes the device's thread, if it has one.
    pub fn with_wakes<T>(&self, use_it: impl FnOnce(Option<BorrowedFd<'_>>) -> T) -> T {
        use_it(self.inside().device.wakes())
    }

    fn interrupt(&self, why: u32) {
        self.interrupts.fetch_or(why, Ordering::SeqCst);
        (self.raise)();
    }

    /// Reads a register, or the configuration space.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        if let Some(offset) = offset.checked_sub(CONFIGURATION) {
            let space = self.inside().device.configuration();
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(space.len());
            data.fill(0);
            for (to, from) in data.iter_mut().zip(&space[start..]) {
                *to = *from;
            }
            return;
        }
        let word = if data.len() == 4 { self.register(offset) } else { 0 };
        for (to, from) in data.iter_mut().zip(word.to_le_bytes()) {
            *to = from;
        }
    }

    fn register(&self, offset: u64) -> u32 {
        if offset == register::INTERRUPT_STATUS {
            return self.interrupts.load(Ordering::SeqCst);
        }
        let inside = self.inside();
        match offset {
            register::MAGIC => MAGIC,
            register::VERSION => VERSION,
            register::DEVICE_ID => inside.device.id(),
            register::VENDOR_ID => VENDOR,
            register::OFFERED => page(inside.offered(), inside.offered_page),
            register::QUEUE_SIZE_MAX => inside.selected().map_or(0, |queue| queue.max_size().into()),
            register::QUEUE_READY => inside.selected().map_or(0, |queue| queue.ready().into()),
            register::STATUS => inside.status,
            register::GENERATION => inside.generation,
            register::SHARED_LENGTH_LOW | register::SHARED_LENGTH_HIGH => u32::MAX,
            _ => 0,
        }
    }

    /// Writes a register. The configuration space of our devices takes no writes.
    pub fn write(&self, memory: &Memory, offset: u64, data: &[u8]) {
        let Ok(word) = <[u8; 4]>::try_from(data).map(u32::from_le_bytes) else { return };
        match offset {
            register::INTERRUPT_ACKNOWLEDGE => {
                self.interrupts.fetch_and(!word, Ordering::SeqCst);
            }
            register::NOTIFY => (self.kick)(),
            register::STATUS => {
                let mut inside = self.inside();
                if word == 0 {
                    inside.reset();
                    self.interrupts.store(0, Ordering::SeqCst);
                } else if inside.step(memory, word) {
                    // Buffers may lie there already.
                    (self.kick)();
                }
            }
            _ => self.inside().write(offset, word),
        }
    }
}

impl Inside {
    fn offered(&self) -> u64 {
        COMMON_FEATURES | self.device.features()
    }

    fn selected(&self) -> Option<&Queue> {
        self.queues.get(self.queue)
    }

    fn runs(&self) -> bool {
        self.status & (DRIVER_OK | NEEDS_RESET | FAILED) == DRIVER_OK
    }

    fn reset(&mut self) {
        self.queues.iter_mut().for_each(Queue::reset);
        self.device.reset();
        (self.status, self.accepted, self.offered_page, self.accepted_page, self.queue) = (0, 0, 0, 0, 0);
    }

    /// Takes the driver's next step, and says whether the device runs from now on. A status bit is never taken back but by
    /// reset, and features that were not offered are not agreed on.
    fn step(&mut self, memory: &Memory, word: u32) -> bool {
        let ran = self.runs();
        let mut wanted = self.status | word & (ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | FAILED);
        if self.accepted & !self.offered() != 0 || self.accepted & 1 << VERSION_1 == 0 {
            wanted &= !(FEATURES_OK | DRIVER_OK);
        }
        if wanted & FEATURES_OK == 0 {
            wanted &= !DRIVER_OK;
        }
        if wanted & DRIVER_OK != 0 && self.status & DRIVER_OK == 0 {
            let event_index = self.accepted & 1 << EVENT_INDEX != 0;
            self.queues.iter_mut().for_each(|queue| queue.set_event_idx(event_index));
            if self.queues.iter().any(|queue| queue.ready() && !queue.is_valid(memory)) {
                wanted |= NEEDS_RESET;
            } else {
                self.device.start(self.accepted);
            }
        }
        self.status = wanted;
        self.runs() && !ran
    }

    fn write(&mut self, offset: u64, word: u32) {
        match offset {
            register::OFFERED_PAGE => self.offered_page = word,
            register::ACCEPTED_PAGE => self.accepted_page = word,
            register::ACCEPTED if self.status & FEATURES_OK == 0 => {
                let (shift, mask) = match self.accepted_page {
                    0 => (0, u64::from(u32::MAX)),
                    1 => (32, u64::from(u32::MAX) << 32),
                    _ => return,
                };
                self.accepted = self.accepted & !mask | u64::from(word) << shift;
            }
            register::QUEUE => self.queue = usize::try_from(word).unwrap_or(usize::MAX),
            _ => self.write_queue(offset, word),
        }
    }

    /// Where a queue lies is said between features and start, and not again.
    fn write_queue(&mut self, offset: u64, word: u32) {
        if self.status & (FEATURES_OK | DRIVER_OK) != FEATURES_OK {
            return;
        }
        let Some(queue) = self.queues.get_mut(self.queue) else { return };
        match offset {
            register::QUEUE_SIZE => queue.set_size(u16::try_from(word).unwrap_or(0)),
            register::QUEUE_READY => queue.set_ready(word == 1),
            register::DESCRIPTORS_LOW => queue.set_desc_table_address(Some(word), None),
            register::DESCRIPTORS_HIGH => queue.set_desc_table_address(None, Some(word)),
            register::AVAILABLE_LOW => queue.set_avail_ring_address(Some(word), None),
            register::AVAILABLE_HIGH => queue.set_avail_ring_address(None, Some(word)),
            register::USED_LOW => queue.set_used_ring_address(Some(word), None),
            register::USED_HIGH => queue.set_used_ring_address(None, Some(word)),
            _ => {}
        }
    }
}

fn page(bits: u64, page: u32) -> u32 {
    match page {
        0 => bits as u32,
        1 => (bits >> 32) as u32,
        _ => 0,
    }
}

/// What a transport with nothing behind it reads as, so that a driver passes it by.
pub fn read_empty(offset: u64, data: &mut [u8]) {
    let word = match offset {
        register::MAGIC => MAGIC,
        register::VERSION => VERSION,
        _ => 0,
    };
    data.fill(0);
    if data.len() == 4 {
        data.copy_from_slice(&word.to_le_bytes());
    }
}

/// Offsets of registers (Virtio 1.2, table 4.1).
pub mod register {
    #![allow(missing_docs, reason = "the specification's names")]
    pub const MAGIC: u64 = 0x00;
    pub const VERSION: u64 = 0x04;
    pub const DEVICE_ID: u64 = 0x08;
    pub const VENDOR_ID: u64 = 0x0C;
    pub const OFFERED: u64 = 0x10;
    pub const OFFERED_PAGE: u64 = 0x14;
    pub const ACCEPTED: u64 = 0x20;
    pub const ACCEPTED_PAGE: u64 = 0x24;
    pub const QUEUE: u64 = 0x30;
    pub const QUEUE_SIZE_MAX: u64 = 0x34;
    pub const QUEUE_SIZE: u64 = 0x38;
    pub const QUEUE_READY: u64 = 0x44;
    pub const NOTIFY: u64 = 0x50;
    pub const INTERRUPT_STATUS: u64 = 0x60;
    pub const INTERRUPT_ACKNOWLEDGE: u64 = 0x64;
    pub const STATUS: u64 = 0x70;
    pub const DESCRIPTORS_LOW: u64 = 0x80;
    pub const DESCRIPTORS_HIGH: u64 = 0x84;
    pub const AVAILABLE_LOW: u64 = 0x90;
    pub const AVAILABLE_HIGH: u64 = 0x94;
    pub const USED_LOW: u64 = 0xA0;
    pub const USED_HIGH: u64 = 0xA4;
    pub const SHARED_LENGTH_LOW: u64 = 0xB0;
    pub const SHARED_LENGTH_HIGH: u64 = 0xB4;
    pub const GENERATION: u64 = 0xFC;
}

/// Where the configuration space starts.
const CONFIGURATION: u64 = 0x100;
/// "virt".
const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
/// "CFFR".
const VENDOR: u32 = 0x5246_4643;

/// Bits of the interrupt status.
const USED_BUFFER: u32 = 1;
const CONFIGURATION_CHANGED: u32 = 2;

/// Bits of the status (Virtio 1.2 §2.1).
pub const ACKNOWLEDGE: u32 = 1;
/// The guest has a driver.
pub const DRIVER: u32 = 2;
/// The driver runs.
pub const DRIVER_OK: u32 = 4;
/// Features are agreed on.
pub const FEATURES_OK: u32 = 8;
/// The device stopped.
pub const NEEDS_RESET: u32 = 64;
/// The driver gave up.
pub const FAILED: u32 = 128;
