//! What stage0 decides, as pure functions: no allocation, no I/O, no `unsafe`; the bare-metal rim is `src/bin/stage0`.
//! Where things lie, and what they look like, is the machine model's: `coffer_machine`.
//!
//! stage0 is the first code of a guest. It takes kernel, initrd and command line from the host, copies them into place,
//! hashes the copies, compares with the measured hash page, and starts the kernel or says why not.
//! Trusts: its own bytes and the hash page, both measured at launch; under SEV-SNP the CPUID page, which the secure
//! processor checked. Everything else comes from the host and is a claim.
//! Never: reads ACPI tables or AML of the host, parses what it has not hashed (but for where to put it), runs on after a
//! mismatch.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod acpi;
pub mod bzimage;
pub mod cpuid_page;
pub mod ghcb;
pub mod kernel_check;
pub mod placement;
pub mod zero_page;
