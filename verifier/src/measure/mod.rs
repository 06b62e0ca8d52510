//! Computes the launch digest (`MEASUREMENT`) a guest will have: pages in, digest out.
//!
//! Takes guest pages, firmware images and vCPU facts; gives a [`Measurement`]. The same [`LaunchDigest`] predicts a launch
//! off the host and runs inside the simulated secure processor.
//! Trusts: nothing; a firmware image is parsed as hostile bytes.
//! Never: reads files, launches anything.
//! Source: AMD 56860 (SNP ABI), SNP_LAUNCH_UPDATE, PAGE_INFO; OVMF `OvmfPkg/ResetVector`; QEMU `target/i386/sev.c`.
//!
//! [`Measurement`]: crate::abi::Measurement

mod cpu;
mod digest;
mod form;
mod id_block;
mod kernel_hashes;
mod launch;
mod long_mode;
mod ovmf;
#[cfg(test)]
mod vectors;
mod vmsa;

pub use cpu::{CpuError, CpuSignature};
pub use digest::{LaunchDigest, LaunchError, PAGE_SIZE, Page, PageType, VMSA_GPA, VmplPermissions};
pub use form::{LaunchForm, UnknownForm};
pub use id_block::{IdAuth, IdBlock, IdBlockError, KEY_STRUCTURE_SIZE, Signed, key_digest, key_structure};
pub use kernel_hashes::{KernelHashes, TABLE_SIZE};
pub use launch::{Firmware, Launch, MeasureError, measure_ovmf};
pub use long_mode::{LongModeVmsa, SegmentState};
pub use ovmf::{HashTableArea, OvmfError, OvmfMetadata, Section, SectionType};
pub use vmsa::{BSP_RESET_EIP, Vmm, Vmsa};
