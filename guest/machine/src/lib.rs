//! What firmware, guest and every monitor have to agree on before either of them runs: one machine, written once.
//!
//! stage0, init, the launch plan, and whatever runs a guest (QEMU's command line today) take addresses, interrupts, words
//! and layouts from here; where a layout has a writer and a reader, they stand side by side. Much of it is measured, as a
//! part of stage0 or of the launch plan: a change here is another MEASUREMENT for every guest.
//! Trusts: nothing. A reader here says what bytes claim; who believes them, and when, is the caller's.
//! Never: allocates, does I/O, depends on a crate.
//!
//! Formats that are AMD's or OVMF's alone stand in `coffer_verifier`, which uses no crate of ours; what of them stage0 has
//! to spell itself ([`firmware`], [`hash_page`]) is compared with it by the tests of the launch plan.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod entry;
pub mod map;
pub mod memory;
pub mod page_tables;

pub mod devices;
pub mod disks;
pub mod namespaces;
pub mod vsock;

pub mod firmware;
pub mod hash_page;

pub mod fw_cfg;
pub mod handover;
pub mod initrd;
pub mod spec_disk;

pub mod console;
pub mod refusal;

pub mod bytes;
pub mod qemu;

pub use refusal::Refusal;
