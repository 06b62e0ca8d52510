//! What stage0 runs on: plain hardware (or an emulator), or an SEV-SNP guest. All that differs is behind this type.

use coffer_machine::{
    Refusal, console,
    devices::{EXIT_PORT, SERIAL_PORT},
    memory::{Ram, Range},
};
use coffer_stage0::ghcb::Width;

use crate::{
    serial,
    snp::{self, Snp},
    sys::{cpu, memory::Memory},
};

/// The platform.
pub enum Platform {
    /// No memory encryption: QEMU in software, KVM, a simulated guest.
    Plain,
    /// SEV-SNP.
    Snp(Snp),
}

impl Platform {
    /// Finds out, and sets up what talking to the hypervisor needs.
    ///
    /// # Errors
    /// Under SEV-SNP, [`Refusal::Cpuid`] or [`Refusal::Ghcb`].
    pub fn detect(memory: &mut Memory) -> Result<Self, Refusal> {
        if cpu::is_encrypted() { Snp::start(memory).map(Self::Snp) } else { Ok(Self::Plain) }
    }

    /// Memory is encrypted and the host hostile.
    pub fn is_confidential(&self) -> bool {
        matches!(self, Self::Snp(_))
    }

    /// Takes all RAM into use, but for `handed_over`, which is mapped for reading what the host left there.
    ///
    /// # Errors
    /// [`Refusal::Validation`], [`Refusal::Ghcb`].
    pub fn accept(&mut self, memory: &mut Memory, ram: Ram, handed_over: Option<Range>) -> Result<(), Refusal> {
        match self {
            Self::Plain => Ok(()),
            Self::Snp(_) => Snp::accept(memory, ram, handed_over),
        }
    }

    /// Takes a hand-over's memory into use, once all was copied from it.
    ///
    /// # Errors
    /// [`Refusal::Validation`], [`Refusal::Ghcb`].
    pub fn accept_handed_over(&mut self, handed_over: Range) -> Result<(), Refusal> {
        match self {
            Self::Plain => Ok(()),
            Self::Snp(_) => Snp::accept_handed_over(handed_over),
        }
    }

    /// Takes back what was shared with the host. Nothing more is said; what follows is the kernel's.
    ///
    /// # Errors
    /// [`Refusal::Validation`], [`Refusal::Ghcb`].
    pub fn silence(&mut self) -> Result<(), Refusal> {
        match self {
            Self::Plain => Ok(()),
            Self::Snp(snp) => snp.take_back(),
        }
    }

    /// Writes a byte to a port.
    pub fn port_out_byte(&mut self, port: u16, value: u8) {
        match self {
            Self::Plain => {
                // A 16550 whose transmitter is busy loses bytes; the emulated ones never are.
                cpu::port_out_byte(port, value);
            }
            Self::Snp(snp) => {
                snp.port(port, Width::Byte, Some(value.into()));
            }
        }
    }

    /// Writes four bytes to a port.
    pub fn port_out_long(&mut self, port: u16, value: u32) {
        match self {
            Self::Plain => cpu::port_out_long(port, value),
            Self::Snp(snp) => {
                snp.port(port, Width::Long, Some(value));
            }
        }
    }

    /// Reads four bytes from a port.
    pub fn port_in_long(&mut self, port: u16) -> u32 {
        match self {
            Self::Plain => cpu::port_in_long(port),
            Self::Snp(snp) => snp.port(port, Width::Long, None),
        }
    }

    /// Says why, and ends the machine.
    pub fn refuse(&mut self, refusal: Refusal) -> ! {
        serial::say(self, console::REFUSED);
        serial::say(self, refusal.word());
        serial::say(self, "\n");
        match self {
            Self::Plain => end_plain(refusal),
            Self::Snp(_) => snp::terminate(refusal),
        }
    }
}

/// Ends the machine from where no [`Platform`] is at hand.
pub fn stop(refusal: Refusal) -> ! {
    if cpu::is_encrypted() {
        snp::terminate(refusal)
    }
    for byte in console::REFUSED.bytes().chain(refusal.word().bytes()).chain(*b"\n") {
        cpu::port_out_byte(SERIAL_PORT, byte);
    }
    end_plain(refusal)
}

fn end_plain(refusal: Refusal) -> ! {
    cpu::port_out_byte(EXIT_PORT, refusal.exit_byte());
    cpu::reset()
}
