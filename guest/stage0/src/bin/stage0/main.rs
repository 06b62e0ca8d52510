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

/// Called by the start code with the time stamp counter at entry.
#[allow(unsafe_code, reason = "the start code calls it by name")]
#[unsafe(no_mangle)]
extern "C" fn stage0_main(start: u64) -> ! {
    let memory = sys::memory::Memory::take();
    match Platform::detect(&memory) {
        Ok(mut platform) => {
            let refusal = boot::boot(&mut platform, memory, start);
            platform.refuse(refusal)
        }
        Err(refusal) => Platform::early(&memory).refuse(refusal),
    }
}

/// Called by the start code on every exception but #VC.
#[allow(unsafe_code, reason = "the start code calls it by name")]
#[unsafe(no_mangle)]
extern "C" fn stage0_exception() -> ! {
    platform::stop(Refusal::Exception)
}

/// Called by the start code on #VC.
#[allow(unsafe_code, reason = "the start code calls it by name")]
#[unsafe(no_mangle)]
extern "C" fn stage0_vc(frame: &mut snp::VcFrame) {
    if snp::answer_vc(frame).is_none() {
        platform::stop(Refusal::Exception);
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    platform::stop(Refusal::Internal)
}
