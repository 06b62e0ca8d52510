//! Guest memory by physical address: identity mapped, all of it stage0's.

use core::{
    ptr, slice,
    sync::atomic::{AtomicBool, Ordering},
};

use coffer_machine::{
    Refusal,
    map::{MAX_RAM, PAGE, STAGE0_GPA, STAGE0_SIZE},
    memory::Range,
};

/// Guest memory outside stage0's own image, data and stack. There is one owner.
pub struct Memory(());

static TAKEN: AtomicBool = AtomicBool::new(false);

const OWN: Range = Range { start: STAGE0_GPA, end: STAGE0_GPA + STAGE0_SIZE };
/// The first page is none of Rust's, so that no address is null; [`super::cpu`] fills it.
const FIRST: u64 = PAGE as u64;

#[allow(clippy::unused_self, reason = "the borrow is what makes lending sound")]
impl Memory {
    /// Takes it, once.
    ///
    /// # Panics
    /// The second time.
    pub fn take() -> Self {
        assert!(!TAKEN.swap(true, Ordering::Relaxed));
        Self(())
    }

    fn pointer(range: Range) -> *mut u8 {
        assert!(range.start >= FIRST && range.start <= range.end && range.end <= MAX_RAM && !range.overlaps(OWN));
        ptr::with_exposed_provenance_mut(range.start as usize)
    }

    /// Bytes of a range.
    pub fn bytes(&self, range: Range) -> &[u8] {
        // SAFETY: `pointer` checked that the range is mapped memory apart from everything Rust knows of; `&self` lends it
        // for reading. Memory shared with the host is read through here only after the device has finished with it.
        unsafe { slice::from_raw_parts(Self::pointer(range), (range.end - range.start) as usize) }
    }

    /// Bytes of a range, to be written.
    pub fn bytes_mut(&mut self, range: Range) -> &mut [u8] {
        // SAFETY: as for `bytes`; `&mut self` lends it exclusively.
        unsafe { slice::from_raw_parts_mut(Self::pointer(range), (range.end - range.start) as usize) }
    }

    /// One page.
    pub fn page(&self, gpa: u64) -> &[u8; PAGE] {
        self.bytes(Range { start: gpa, end: gpa + PAGE as u64 }).first_chunk().expect("a page is a page long")
    }

    /// One page, to be written.
    pub fn page_mut(&mut self, gpa: u64) -> &mut [u8; PAGE] {
        self.bytes_mut(Range { start: gpa, end: gpa + PAGE as u64 }).first_chunk_mut().expect("a page is a page long")
    }

    /// Copies between ranges of one length.
    ///
    /// # Errors
    /// [`Refusal::NoRoom`] if they overlap or their lengths differ.
    pub fn copy(&mut self, from: Range, to: Range) -> Result<(), Refusal> {
        if from.overlaps(to) || from.end - from.start != to.end - to.start {
            return Err(Refusal::NoRoom);
        }
        // SAFETY: both ranges were checked by `pointer`, have one length and do not overlap.
        unsafe { ptr::copy_nonoverlapping(Self::pointer(from), Self::pointer(to), (to.end - to.start) as usize) };
        Ok(())
    }

    /// A copy of bytes that the host may be changing: read once each.
    pub fn copied<const N: usize>(&self, gpa: u64) -> [u8; N] {
        let from = Self::pointer(Range { start: gpa, end: gpa + N as u64 });
        // SAFETY: mapped memory by `pointer`, and the index is below its length.
        core::array::from_fn(|index| unsafe { from.add(index).read_volatile() })
    }

    /// Sixteen bytes that a device may be changing, aligned to sixteen.
    pub fn read_volatile(&self, gpa: u64) -> [u8; 16] {
        let range = Range { start: gpa & !15, end: (gpa & !15) + 16 };
        // SAFETY: mapped, aligned memory by `pointer`.
        unsafe { Self::pointer(range).cast::<[u8; 16]>().read_volatile() }
    }
}
