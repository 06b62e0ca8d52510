//! The one road from launch to kernel: claims, copies, hashes, zero page, jump.

use core::convert::Infallible;

use coffer_machine::{
    Refusal, console,
    hash_page::Hashes,
    map::{ACPI_GPA, CC_BLOB_GPA, COMMAND_LINE_GPA, COMMAND_LINE_LIMIT, HASHES_GPA, KERNEL_GPA, ZERO_PAGE_GPA},
    memory::{Ram, Range, vcpus_claimed},
};
use coffer_stage0::{
    acpi,
    bzimage::{BzImage, ENTRY_64, HEAD},
    kernel_check,
    placement::place,
    zero_page,
};

use crate::{
    platform::Platform,
    serial,
    source::{Part, Source},
    sys::{cpu, memory::Memory},
};

/// Boots, or gives the reason why not.
pub fn boot(platform: &mut Platform, memory: Memory, start: u64) -> Refusal {
    match try_boot(platform, memory, start) {
        Ok(never) => match never {},
        Err(refusal) => refusal,
    }
}

fn try_boot(platform: &mut Platform, mut memory: Memory, start: u64) -> Result<Infallible, Refusal> {
    serial::say(platform, console::START);
    serial::say(platform, "\n");
    let hashes = Hashes::parse(memory.page(HASHES_GPA))?;
    let source = Source::find(platform, &mut memory)?;
    let ram = Ram::claimed(source.ram_bytes)?;
    let vcpus = vcpus_claimed(source.vcpus)?;
    let shared = source.shared;
    platform.accept(&mut memory, ram, shared)?;
    acpi::write(memory.page_mut(ACPI_GPA), vcpus);

    // Where things go is decided from the host's word; whether they run, only from the copies.
    let sizes = [Part::Kernel, Part::Initrd, Part::CommandLine].map(|part| source.size(part));
    let [kernel_bytes, initrd_bytes, line_bytes] = sizes;
    let mut head = [0; HEAD];
    let head_bytes = kernel_bytes.min(HEAD);
    source.read(
        platform,
        &mut memory,
        Part::Kernel,
        Range { start: COMMAND_LINE_GPA, end: COMMAND_LINE_GPA + head_bytes as u64 },
    )?;
    head[..head_bytes]
        .copy_from_slice(memory.bytes(Range { start: COMMAND_LINE_GPA, end: COMMAND_LINE_GPA + head_bytes as u64 }));
    let claimed = BzImage::parse(&head[..head_bytes], kernel_bytes)?;
    let placed = place(ram, &claimed, kernel_bytes, initrd_bytes, line_bytes)?;
    let line = Range::new(COMMAND_LINE_GPA, line_bytes as u64).ok_or(Refusal::NoRoom)?;
    // A copy into memory that the host shares would be no copy.
    if shared.is_some_and(|shared| [placed.kernel, placed.initrd, line].iter().any(|copy| shared.overlaps(*copy))) {
        return Err(Refusal::NoRoom);
    }

    source.read(platform, &mut memory, Part::CommandLine, line)?;
    source.read(platform, &mut memory, Part::Kernel, placed.kernel)?;
    source.read(platform, &mut memory, Part::Initrd, placed.initrd)?;
    if let Some(shared) = shared {
        platform.accept_handed_over(shared)?;
    }
    // The copies lie in memory of the guest's own: from here on the host can change nothing that is used.
    let copied = cpu::time_stamp();
    let (kernel, initrd, command_line) = (memory.bytes(placed.kernel), memory.bytes(placed.initrd), memory.bytes(line));
    kernel_check::check(&hashes, kernel, initrd, command_line)?;
    let hashed = cpu::time_stamp();
    let checked = BzImage::parse(kernel, kernel.len())?;
    if checked != claimed {
        return Err(Refusal::KernelFormat);
    }
    if command_line.len() > COMMAND_LINE_LIMIT || command_line.last() != Some(&0) {
        return Err(Refusal::CommandLine);
    }
    head.copy_from_slice(kernel.get(..HEAD).ok_or(Refusal::KernelFormat)?);

    zero_page::fill(memory.page_mut(ZERO_PAGE_GPA), &head, &checked, &placed, ram, platform.is_confidential())?;
    if platform.is_confidential() {
        memory.page_mut(CC_BLOB_GPA)[..zero_page::CC_BLOB_SIZE].copy_from_slice(&zero_page::cc_blob());
    }
    serial::timing(platform, copied.wrapping_sub(start), hashed.wrapping_sub(copied));
    platform.silence()?;
    cpu::enter_kernel_at(memory, KERNEL_GPA + ENTRY_64, ZERO_PAGE_GPA)
}
