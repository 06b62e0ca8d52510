//! Guests in QEMU's `microvm`: on KVM where that runs Linux, else in QEMU's translator.
//!
//! Two processes run a guest: QEMU, and the vhost-user device that carries its vsock.
//! Source: QEMU 7.2, docs/system/i386/microvm.rst; rust-vmm vhost-device-vsock.

mod arguments;
mod listening;
pub mod probe;
mod process;
mod version;

use coffer_rim::Failure;
use futures_util::future::FutureExt as _;

pub use version::version_line;

use super::acceleration::{Accelerator, acceleration};
use super::{Capabilities, Console, Launch, Monitor, Ready, Running, Starting};
use crate::host::needs::{Facts, can_launch};
use crate::tools::{Program, Search};
use process::{Processes, Programs};

/// QEMU.
pub const QEMU: Program = Program {
    name: "qemu-system-x86_64",
    variable: "COFFER_QEMU",
    ours_to_build: false,
    remedy: "install it (Debian: apt-get install qemu-system-x86)",
};

/// The vsock device.
pub const VHOST_VSOCK: Program = Program {
    name: "vhost-device-vsock",
    variable: "COFFER_VHOST_VSOCK",
    ours_to_build: true,
    remedy: "run `make setup` as the user who runs boxes, copy it from the ~/.cache/coffer/tools/bin of one who did to where PATH finds it",
};

/// QEMU as a monitor.
#[derive(Clone, Debug)]
pub struct Qemu {
    search: Search,
}

impl Qemu {
    /// With programs from here.
    pub fn new(search: &Search) -> Self {
        Self { search: search.clone() }
    }

    fn programs(&self) -> Result<Programs, Failure> {
        Ok(Programs { qemu: self.search.program(&QEMU)?, vhost_vsock: self.search.program(&VHOST_VSOCK)? })
    }
}

impl Monitor for Qemu {
    fn name(&self) -> &'static str {
        "QEMU"
    }

    fn check(&self) -> Result<Capabilities, Failure> {
        self.programs()?;
        Ok(capabilities())
    }

    fn check_snp(&self) -> Result<(), Failure> {
        can_launch(&Facts::gather())?;
        probe::Found::of(&self.search.program(&QEMU)?)?.check_snp()
    }

    fn start<'a>(&'a self, launch: &'a Launch, console: Console, ready: Ready<'a>) -> Starting<'a> {
        async move {
            let programs = self.programs()?;
            ready.await?;
            let processes = Processes::start(&programs, launch, acceleration().accelerator, console).await?;
            Ok(Box::new(processes) as Box<dyn Running>)
        }
        .boxed()
    }
}

/// How QEMU runs guests on this machine, whether or not it is installed.
pub fn capabilities() -> Capabilities {
    let found = acceleration();
    let hardware = found.accelerator == Accelerator::Kvm;
    let then = if hardware { "guests run on the processor" } else { "guests run in software emulation" };
    Capabilities { hardware, why: format!("{}: {then}", found.why) }
}

#[cfg(test)]
mod tests;
