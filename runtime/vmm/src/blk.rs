//! Disks: virtio-blk over a file.
//!
//! Trusts: its file, and that nobody makes it shorter. Never: writes to a file it was given to read, whatever the guest says
//! and whatever the descriptor allows; waits for the host's disk, but where a guest flushes one that outlives it.
//! Source: Virtio 1.2 §5.2.

use std::fs::{File, TryLockError};
use std::io;

use rustix::fs::{FallocateFlags, fallocate};
use virtio_queue::Queue;

use crate::Memory;
use crate::description::Disk;
use crate::sys::vectored;
use crate::virtio::chain::{self, Buffers, Request};
use crate::virtio::{Broken, Device, Interrupt, QUEUE_SIZE};

/// One disk.
#[derive(Debug)]
pub struct Blk {
    file: File,
    sectors: u64,
    writable: bool,
    kept: bool,
    serial: [u8; SERIAL],
}

impl Blk {
    /// A disk of as many whole sectors as the file has.
    ///
    /// # Errors
    /// If the file does not say how long it is, or if it is one that outlives the guest and somebody has it who must not.
    pub fn new(file: File, disk: &Disk) -> io::Result<Self> {
        let Disk { serial, writable, kept, .. } = disk;
        if *kept {
            match if *writable { file.try_lock() } else { file.try_lock_shared() } {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::ResourceBusy.into()),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        let sectors = file.metadata()?.len() / SECTOR;
        let mut id = [0; SERIAL];
        for (to, from) in id.iter_mut().zip(serial.bytes()) {
            *to = from;
        }
        Ok(Self { file, sectors, writable: *writable, kept: *kept && *writable, serial: id })
    }

    /// Answers one request, and says how many bytes it wrote.
    fn answer(&self, request: Request<'_>) -> Result<usize, Broken> {
        let Request { mut readable, mut writable, .. } = request;
        let header: [u8; HEADER] = readable.read()?;
        let status_at = writable.split_off_last(1)?;
        let [a, b, c, d, _, _, _, _, sector @ ..] = header;
        let (kind, sector) = (u32::from_le_bytes([a, b, c, d]), u64::from_le_bytes(sector));
        let (status, written) = match kind {
            READ => of(self.transfer(&writable, sector, vectored::read_at)),
            WRITE if self.writable => (of(self.transfer(&readable, sector, vectored::write_at)).0, 0),
            WRITE => (Status::Error, 0),
            FLUSH if self.kept => (of(self.file.sync_data().map(|()| 0)).0, 0),
            DISCARD if self.kept => (of(self.discard(&readable)).0, 0),
            ID => (Status::Ok, writable.copy_from(&self.serial)),
            _ => (Status::Unsupported, 0),
        };
        status_at.copy_from(&[status as u8]);
        Ok(written + 1)
    }

    fn transfer(&self, buffers: &Buffers<'_>, sector: u64, move_at: MoveAt) -> io::Result<usize> {
        let length = buffers.len() as u64;
        let inside = sector.checked_add(length.div_ceil(SECTOR)).is_some_and(|end| end <= self.sectors);
        if !inside || !length.is_multiple_of(SECTOR) {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        move_at(&self.file, sector * SECTOR, buffers.slices())
    }

    /// Frees the one range that a request names.
    fn discard(&self, ranges: &Buffers<'_>) -> io::Result<usize> {
        let mut range = [0; RANGE];
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        if ranges.len() != RANGE || ranges.copy_to(&mut range) != RANGE {
            return Err(invalid());
        }
        let (sector, rest) = range.split_first_chunk().ok_or_else(invalid)?;
        let (count, flags) = rest.split_first_chunk().ok_or_else(invalid)?;
        let (sector, count) = (u64::from_le_bytes(*sector), u32::from_le_bytes(*count));
        let inside = sector.checked_add(count.into()).is_some_and(|end| end <= self.sectors);
        if !inside || count == 0 || count > MOST_DISCARDED || flags != [0; 4] {
            return Err(invalid());
        }
        let freed = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&self.file, freed, sector * SECTOR, u64::from(count) * SECTOR)?;
        Ok(0)
    }
}

type MoveAt = fn(&File, u64, &[vm_memory::VolatileSlice<'_>]) -> io::Result<usize>;

fn of(result: io::Result<usize>) -> (Status, usize) {
    result.map_or((Status::Error, 0), |count| (Status::Ok, count))
}

impl Device for Blk {
    fn id(&self) -> u32 {
        2
    }

    fn features(&self) -> u64 {
        SEGMENTS | if self.writable { 0 } else { READ_ONLY } | if self.kept { FLUSHES | DISCARDS } else { 0 }
    }

    fn queues(&self) -> usize {
        1
    }

    fn configuration(&self) -> Vec<u8> {
        let mut space = self.sectors.to_le_bytes().to_vec();
        space.extend([0; 4]);
        space.extend(MOST_SEGMENTS.to_le_bytes());
        if self.kept {
            // Geometry to topology, and whether there is a cache: not offered, not read.
            space.resize(DISCARD_AT, 0);
            for number in [MOST_DISCARDED, 1, ALIGNMENT] {
                space.extend(number.to_le_bytes());
            }
        }
        space
    }

    fn serve(&mut self, memory: &Memory, queues: &mut [Queue]) -> Result<Interrupt, Broken> {
        let [queue] = queues else { return Err(Broken::Parts) };
        chain::answer_all(queue, memory, |request| self.answer(request)).map(Interrupt)
    }

    fn reset(&mut self) {}
}

#[derive(Clone, Copy)]
enum Status {
    Ok = 0,
    Error = 1,
    Unsupported = 2,
}

const SECTOR: u64 = 512;
const HEADER: usize = 16;
const SERIAL: usize = 20;
const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH: u32 = 4;
const ID: u32 = 8;
const DISCARD: u32 = 11;
/// Feature: the most buffers of a request are told.
const SEGMENTS: u64 = 1 << 2;
const READ_ONLY: u64 = 1 << 5;
/// Feature: there are requests to flush.
const FLUSHES: u64 = 1 << 9;
/// Feature: there are requests to discard.
const DISCARDS: u64 = 1 << 13;
/// Bytes of a range of a request to discard.
const RANGE: usize = 16;
/// Offset of its bounds in the configuration.
const DISCARD_AT: usize = 36;
/// Sectors of one request: 1 GiB.
const MOST_DISCARDED: u32 = 1 << 21;
/// In sectors: a page of the host's file.
const ALIGNMENT: u32 = 8;
/// Header and status take two descriptors.
const MOST_SEGMENTS: u32 = QUEUE_SIZE as u32 - 2;

#[cfg(test)]
mod tests;
