//! What lies in guest memory before the first instruction, and how stage0 finds it.
//!
//! stage0, its page tables, the page of hashes and, in simulation, the secrets page stand where the launch plan has them.
//! Kernel, initrd and command line are handed over in memory; stage0 copies them to where they run, hashes the copies, and
//! only then believes them. Of an SEV-SNP guest only the hand-over lies in memory that the monitor writes; the rest is the
//! launch's ([`crate::snp::plan`]).

use std::fs::File;
use std::io;

use coffer_machine::handover::Handover;
use coffer_machine::map::{
    COMMAND_LINE_LIMIT, HANDOVER_GPA, HASHES_GPA, PAGE, PAGE_TABLES_GPA, ROM_HASHES, ROM_SIZE, SECRETS_GPA,
    SHARED_HANDOVER_GPA, SHARED_HANDOVER_LIMIT, STAGE0_GPA,
};
use coffer_machine::memory::{Ram, Range};
use coffer_machine::page_tables::page_tables;
use coffer_stage0::bzimage::{BzImage, HEAD};
use coffer_stage0::placement::place;
use vm_memory::{Bytes as _, GuestAddress};

use crate::Memory;

/// The files of a launch, open.
#[derive(Debug)]
pub struct Files {
    /// ROM image of stage0.
    pub stage0: File,
    /// Page of hashes.
    pub hashes: File,
    /// bzImage.
    pub kernel: File,
    /// Initrd.
    pub initrd: File,
    /// Command line with its NUL.
    pub command_line: File,
    /// Secrets page.
    pub secrets: Option<File>,
}

/// Why a guest cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The machine model has no such memory.
    #[error("a guest cannot have {bytes} bytes of memory")]
    MemorySize {
        /// As asked.
        bytes: u64,
    },
    /// A file that has one length has another.
    #[error("the {part} has {found} bytes, not {expected}")]
    Length {
        /// Which file.
        part: &'static str,
        /// Its length.
        found: u64,
        /// What it has to be.
        expected: u64,
    },
    /// A file could not be read.
    #[error("cannot read the {part}")]
    Read {
        /// Which file.
        part: &'static str,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The kernel is none that stage0 starts.
    #[error("stage0 would not start this kernel: {reason}")]
    Kernel {
        /// stage0's word for it.
        reason: &'static str,
    },
    /// Everything twice, where it is handed over and where it runs, is more than there is.
    #[error("kernel and initrd do not fit twice into {bytes} bytes of memory")]
    NoRoom {
        /// Bytes of memory.
        bytes: u64,
    },
    /// An SEV-SNP guest has its keys from the secure processor.
    #[error("a secrets page is for simulation; an SEV-SNP guest's comes from the secure processor")]
    SecretsOfSimulation,
    /// Memory was written outside memory.
    #[error("guest memory does not take what is loaded")]
    Memory(#[source] vm_memory::GuestMemoryError),
}

/// Loads everything.
///
/// # Errors
/// [`LoadError`].
pub fn load(memory: &Memory, memory_bytes: u64, vcpus: u32, files: &Files) -> Result<(), LoadError> {
    let page = PAGE as u64;
    put(memory, PAGE_TABLES_GPA, &page_tables(false))?;
    // The ROM's last pages are for a machine that starts in it; the image in front of them copies nothing of itself.
    exact("stage0", length("stage0", &files.stage0)?, ROM_SIZE as u64)?;
    read(memory, "stage0", &files.stage0, STAGE0_GPA, ROM_HASHES as u64)?;
    exact("hash page", length("hash page", &files.hashes)?, page)?;
    read(memory, "hash page", &files.hashes, HASHES_GPA, page)?;
    if let Some(secrets) = &files.secrets {
        exact("secrets page", length("secrets page", secrets)?, page)?;
        read(memory, "secrets page", secrets, SECRETS_GPA, page)?;
    }

    let handover = hand_over(memory, memory_bytes, vcpus, files, (memory_bytes, PAGE as u64))?;
    put(memory, HANDOVER_GPA, &handover.to_bytes())
}

/// What an SEV-SNP guest is launched from, and what is shared with it from the start.
#[derive(Debug)]
pub struct SnpFiles {
    /// ROM image of stage0.
    pub rom: Vec<u8>,
    /// Page of hashes.
    pub hashes: Vec<u8>,
    /// Descriptor and parts of the hand-over, whole pages, in the order of addresses.
    pub shared: Vec<Range>,
}

/// Loads what an SEV-SNP guest is handed over; reads what is measured.
///
/// # Errors
/// [`LoadError`].
pub fn load_snp(memory: &Memory, memory_bytes: u64, vcpus: u32, files: &Files) -> Result<SnpFiles, LoadError> {
    if files.secrets.is_some() {
        return Err(LoadError::SecretsOfSimulation);
    }
    let (mut rom, mut hashes) = (vec![0; ROM_SIZE], vec![0; PAGE]);
    whole("stage0", &files.stage0, &mut rom)?;
    whole("hash page", &files.hashes, &mut hashes)?;
    // stage0 takes the shared pages in pieces of 2 MiB, and maps only the first GiB so.
    let handover = hand_over(memory, memory_bytes, vcpus, files, (SHARED_HANDOVER_LIMIT, LARGE))?;
    let area = handover.shared_area().map_err(|_| LoadError::NoRoom { bytes: memory_bytes })?;
    put(memory, SHARED_HANDOVER_GPA, &handover.to_bytes())?;
    let descriptor = Range { start: SHARED_HANDOVER_GPA, end: SHARED_HANDOVER_GPA + PAGE as u64 };
    Ok(SnpFiles { rom, hashes, shared: vec![descriptor, area] })
}

/// Reads a file that has this many bytes.
///
/// # Errors
/// [`LoadError`].
pub fn whole(part: &'static str, file: &File, bytes: &mut [u8]) -> Result<(), LoadError> {
    use std::os::unix::fs::FileExt as _;
    exact(part, length(part, file)?, bytes.len() as u64)?;
    file.read_exact_at(bytes, 0).map_err(|cause| LoadError::Read { part, cause })
}

/// Puts kernel, initrd and command line into memory below `limit`, in whole pieces that hold nothing else that matters.
fn hand_over(
    memory: &Memory,
    memory_bytes: u64,
    vcpus: u32,
    files: &Files,
    (limit, piece): (u64, u64),
) -> Result<Handover, LoadError> {
    let ram = Ram::claimed(memory_bytes).map_err(|_| LoadError::MemorySize { bytes: memory_bytes })?;
    let kernel_bytes = length("kernel", &files.kernel)?;
    let initrd_bytes = length("initrd", &files.initrd)?;
    let line_bytes = length("command line", &files.command_line)?;
    let head = kernel_head(&files.kernel)?;
    let too_large = LoadError::NoRoom { bytes: memory_bytes };
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let kernel =
        BzImage::parse(&head, size(kernel_bytes)).map_err(|refusal| LoadError::Kernel { reason: refusal.word() })?;
    let placed =
        place(ram, &kernel, size(kernel_bytes), size(initrd_bytes), size(line_bytes.min(COMMAND_LINE_LIMIT as u64)))
            .map_err(|_| LoadError::NoRoom { bytes: memory_bytes })?;
    let limit = placed.initrd.start.min(limit) & !(piece - 1);
    let Some(at) = Handed::below(limit, kernel_bytes, initrd_bytes, line_bytes) else {
        return Err(too_large);
    };
    let kernel_end = placed.kernel.end.max(coffer_machine::map::KERNEL_GPA + kernel.init_size);
    if at.command_line.start & !(piece - 1) < kernel_end {
        return Err(too_large);
    }
    read(memory, "kernel", &files.kernel, at.kernel.start, kernel_bytes)?;
    read(memory, "initrd", &files.initrd, at.initrd.start, initrd_bytes)?;
    read(memory, "command line", &files.command_line, at.command_line.start, line_bytes)?;
    Ok(Handover { ram_bytes: memory_bytes, vcpus, kernel: at.kernel, initrd: at.initrd, command_line: at.command_line })
}

/// In pieces of how much an SEV-SNP guest takes what was shared.
const LARGE: u64 = 2 << 20;

/// Where the three lie: one below the other, each at a page, so that no copy stage0 makes meets what it is made from.
struct Handed {
    kernel: Range,
    initrd: Range,
    command_line: Range,
}

impl Handed {
    fn below(limit: u64, kernel: u64, initrd: u64, command_line: u64) -> Option<Self> {
        let below = |limit: u64, bytes: u64| Range::new(limit.checked_sub(bytes)? & !(PAGE as u64 - 1), bytes);
        let kernel = below(limit, kernel)?;
        let initrd = below(kernel.start, initrd)?;
        let command_line = below(initrd.start, command_line)?;
        Some(Self { kernel, initrd, command_line })
    }
}

fn length(part: &'static str, file: &File) -> Result<u64, LoadError> {
    file.metadata().map(|found| found.len()).map_err(|cause| LoadError::Read { part, cause })
}

fn exact(part: &'static str, found: u64, expected: u64) -> Result<(), LoadError> {
    if found == expected { Ok(()) } else { Err(LoadError::Length { part, found, expected }) }
}

fn kernel_head(file: &File) -> Result<Vec<u8>, LoadError> {
    use std::os::unix::fs::FileExt as _;
    let mut head = vec![0; HEAD];
    let mut filled = 0;
    while filled < HEAD {
        match file.read_at(&mut head[filled..], filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(LoadError::Read { part: "kernel", cause }),
        }
    }
    head.truncate(filled);
    Ok(head)
}

fn put(memory: &Memory, gpa: u64, bytes: &[u8]) -> Result<(), LoadError> {
    memory.write_slice(bytes, GuestAddress(gpa)).map_err(LoadError::Memory)
}

/// Reads the start of a file into memory, past the heap.
fn read(memory: &Memory, part: &'static str, file: &File, gpa: u64, bytes: u64) -> Result<(), LoadError> {
    use vm_memory::GuestMemoryBackend as _;
    let count = usize::try_from(bytes).unwrap_or(usize::MAX);
    let slice = memory.get_slice(GuestAddress(gpa), count).map_err(LoadError::Memory)?;
    crate::sys::vectored::read_at(file, 0, &[slice]).map(drop).map_err(|cause| LoadError::Read { part, cause })
}

#[cfg(test)]
mod tests;
