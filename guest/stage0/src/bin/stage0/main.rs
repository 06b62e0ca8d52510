//! The bare-metal rim of stage0. What it decides is in the library; what touches the machine is in `sys`.
#![no_std]
#![no_main]

mod boot;
mod fw_cfg_device;
mod platform;
mod serial;
mod snp;
mod source;
mod sys;

use coffer_machine::Refusal;

use platform::Platform;

/// Called by the start code with the time stamp counter at entry, and whether EFER.SVME was set, as it is in every SEV-SNP
/// guest and in no other: a part of the measured processor state.
#[allow(unsafe_code, reason = "the start code calls it by name")]
#[unsafe(no_mangle)]
extern "C" fn stage0_main(start: u64, encrypted: bool) -> ! {
    sys::cpu::catch_exceptions(encrypted);
    let mut memory = sys::memory::Memory::take();
    match Platform::detect(&mut memory) {
        Ok(mut platform) => {
            let refusal = boot::boot(&mut platform, memory, start);
            platform.refuse(refusal)
        }
        Err(refusal) => platform::stop(refusal),
    }
}

/// Called by the start code on every exception.
#[allow(unsafe_code, reason = "the start code calls it by name")]
#[unsafe(no_mangle)]
extern "C" fn stage0_exception() -> ! {
    platform::stop(Refusal::Exception)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    platform::stop(Refusal::Internal)
}
