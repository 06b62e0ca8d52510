//! Where kernel, initrd and command line come from: items of ours in fw_cfg, or a RAM hand-over, under SEV-SNP one in shared
//! memory. All of it is the host's word until it has been hashed.

use coffer_machine::{
    Refusal,
    bytes::{le16, le64},
    fw_cfg::{self, item},
    handover::{self, Handover},
    map::{HANDOVER_GPA, SHARED_HANDOVER_GPA},
    memory::Range,
};

use crate::{fw_cfg_device as device, platform::Platform, sys::memory::Memory};

/// One of the three things that are loaded.
#[derive(Clone, Copy)]
pub enum Part {
    /// bzImage.
    Kernel,
    /// Initrd.
    Initrd,
    /// Command line with its NUL.
    CommandLine,
}

enum Place {
    /// An item.
    Item(fw_cfg::File),
    /// In memory already.
    Memory(Range),
}

/// A machine's claims about itself.
pub struct Source {
    /// Bytes of RAM.
    pub ram_bytes: u64,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory that the host shares until what lies there has been copied.
    pub shared: Option<Range>,
    places: [Place; 3],
}

impl Source {
    /// Looks at the places this platform allows.
    ///
    /// # Errors
    /// [`Refusal::NoKernel`] if there is nothing, [`Refusal::FwCfg`] if the device fails.
    pub fn find(platform: &mut Platform, memory: &mut Memory) -> Result<Self, Refusal> {
        if !device::is_there(platform, memory) {
            return Self::handed_over(platform, memory);
        }
        let Some(places) = items(platform, memory)? else { return Self::handed_over(platform, memory) };
        let mut number = [0; 8];
        device::item(platform, memory, item::RAM_SIZE, &mut number)?;
        let ram_bytes = le64(&number, 0).ok_or(Refusal::FwCfg)?;
        device::item(platform, memory, item::CPUS, &mut number[..2])?;
        let vcpus = le16(&number, 0).ok_or(Refusal::FwCfg)?;
        Ok(Self { ram_bytes, vcpus: vcpus.into(), shared: None, places })
    }

    fn handed_over(platform: &Platform, memory: &Memory) -> Result<Self, Refusal> {
        let gpa = if platform.is_confidential() { SHARED_HANDOVER_GPA } else { HANDOVER_GPA };
        // A copy: the host could change what is read twice.
        let descriptor = memory.copied::<{ handover::SIZE }>(gpa);
        let found = Handover::parse(&descriptor)?.ok_or(Refusal::NoKernel)?;
        let shared = if platform.is_confidential() { Some(found.shared_area()?) } else { None };
        let places = [found.kernel, found.initrd, found.command_line].map(Place::Memory);
        Ok(Self { ram_bytes: found.ram_bytes, vcpus: found.vcpus, shared, places })
    }

    fn place(&self, part: Part) -> &Place {
        let [kernel, initrd, command_line] = &self.places;
        match part {
            Part::Kernel => kernel,
            Part::Initrd => initrd,
            Part::CommandLine => command_line,
        }
    }

    /// Bytes of a part.
    pub fn size(&self, part: Part) -> usize {
        match self.place(part) {
            Place::Item(item) => item.size as usize,
            Place::Memory(range) => (range.end - range.start) as usize,
        }
    }

    /// Copies the start of a part to `to`, as much as `to` holds.
    ///
    /// # Errors
    /// [`Refusal::FwCfg`] or, if a hand-over's range overlaps `to`, [`Refusal::NoRoom`].
    pub fn read(&self, platform: &mut Platform, memory: &mut Memory, part: Part, to: Range) -> Result<(), Refusal> {
        match self.place(part) {
            // Nothing may be claimed to lie anywhere.
            Place::Memory(_) if to.start == to.end => Ok(()),
            Place::Memory(from) => {
                let from = Range { start: from.start, end: from.start + (to.end - to.start) };
                memory.copy(from, to)
            }
            Place::Item(item) => {
                let end = to.end.min(to.start + u64::from(item.size));
                device::read(platform, memory, item.selector, Range { start: to.start, end })
            }
        }
    }
}

/// `None` if there is no kernel among the files.
fn items(platform: &mut Platform, memory: &mut Memory) -> Result<Option<[Place; 3]>, Refusal> {
    let mut directory = [0; fw_cfg::DIRECTORY_LIMIT];
    device::item(platform, memory, item::DIRECTORY, &mut directory)?;
    let place = |name| fw_cfg::find(&directory, name).map(Place::Item);
    let Some(kernel) = place(fw_cfg::file::KERNEL) else { return Ok(None) };
    let line = place(fw_cfg::file::COMMAND_LINE).ok_or(Refusal::NoKernel)?;
    // No initrd is an empty one, whose hash is in the hash page as well.
    let initrd = place(fw_cfg::file::INITRD).unwrap_or(Place::Item(fw_cfg::File { selector: 0, size: 0 }));
    Ok(Some([kernel, initrd, line]))
}
