//! Reads from QEMU's fw_cfg device by DMA; under SEV-SNP through a bounce buffer in memory shared with the host.

use coffer_machine::{
    Refusal,
    bytes::be32,
    fw_cfg::{COMMAND_SIZE, DMA_PORT_HIGH, DMA_PORT_LOW, ERROR, item, read_command},
    map::{COMMAND_LINE_GPA, PAGE, SHARED_SIZE, SHARED_WINDOW_GPA},
    memory::Range,
};

use crate::{platform::Platform, sys::memory::Memory};

/// Where commands and bounced data lie. The GHCB is the shared window's first page, and unused memory elsewhere.
const COMMAND: Range = Range { start: SHARED_WINDOW_GPA + PAGE as u64, end: SHARED_WINDOW_GPA + 2 * PAGE as u64 };
const BOUNCE: Range = Range { start: SHARED_WINDOW_GPA + 2 * PAGE as u64, end: SHARED_WINDOW_GPA + SHARED_SIZE };
/// Attempts before a device that never finishes a command is given up.
const PATIENCE: u32 = 100_000_000;

/// True if there is a device with DMA.
pub fn is_there(platform: &mut Platform, memory: &mut Memory) -> bool {
    let mut signature = [0; 4];
    let mut id = [0; 4];
    // The register reads "QEMU CFG" where the interface exists; a port nobody answers reads as ones.
    platform.port_in_long(DMA_PORT_HIGH) == u32::from_le_bytes(*b"QEMU")
        && self::item(platform, memory, item::SIGNATURE, &mut signature).is_ok()
        && signature == *b"QEMU"
        && self::item(platform, memory, item::ID, &mut id).is_ok()
        && id[0] & 2 != 0
}

/// Reads the start of an item into a buffer of stage0's own, at most 4 KiB.
///
/// # Errors
/// [`Refusal::FwCfg`].
pub fn item(platform: &mut Platform, memory: &mut Memory, selector: u16, to: &mut [u8]) -> Result<(), Refusal> {
    let length = to.len().min(PAGE);
    let from = Range { start: BOUNCE.start, end: BOUNCE.start + length as u64 };
    command(platform, memory, Some(selector), from)?;
    to[..length].copy_from_slice(memory.bytes(from));
    Ok(())
}

/// Reads the start of an item into memory, as much as `to` holds.
///
/// # Errors
/// [`Refusal::FwCfg`].
pub fn read(platform: &mut Platform, memory: &mut Memory, selector: u16, to: Range) -> Result<(), Refusal> {
    if to.start == to.end {
        return Ok(());
    }
    if !platform.is_confidential() {
        return command(platform, memory, Some(selector), to);
    }
    let mut at = to.start;
    let mut select = Some(selector);
    while at < to.end {
        let length = (to.end - at).min(BOUNCE.end - BOUNCE.start);
        let bounced = Range { start: BOUNCE.start, end: BOUNCE.start + length };
        command(platform, memory, select.take(), bounced)?;
        memory.copy(bounced, Range { start: at, end: at + length })?;
        at += length;
    }
    Ok(())
}

fn command(platform: &mut Platform, memory: &mut Memory, selector: Option<u16>, to: Range) -> Result<(), Refusal> {
    let length = u32::try_from(to.end - to.start).map_err(|_| Refusal::FwCfg)?;
    let at = Range { start: COMMAND.start, end: COMMAND.start + COMMAND_SIZE as u64 };
    memory.bytes_mut(at).copy_from_slice(&read_command(selector, length, to.start));
    platform.port_out_long(DMA_PORT_HIGH, ((at.start >> 32) as u32).swap_bytes());
    platform.port_out_long(DMA_PORT_LOW, (at.start as u32).swap_bytes());
    for _ in 0..PATIENCE {
        match be32(&memory.read_volatile(at.start), 0) {
            Some(0) => return Ok(()),
            Some(control) if control & ERROR == 0 => core::hint::spin_loop(),
            _ => break,
        }
    }
    Err(Refusal::FwCfg)
}

const _: () = assert!(COMMAND_LINE_GPA + PAGE as u64 <= SHARED_WINDOW_GPA);
