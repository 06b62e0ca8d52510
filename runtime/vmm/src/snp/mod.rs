//! The launch of an SEV-SNP guest: what KVM and the secure processor are told, in which order, and what the guest may ask of
//! its pages later.
//!
//! [`launch`] is the order of the calls and knows no system call: it speaks to a [`Host`], of which there are two, KVM
//! ([`kvm::KvmHost`]) and one of the tests that records. [`plan`] says which pages are measured, [`cpuid_page`] fills the one
//! that says what the processor is, [`policy`] judges POLICY, [`page_state`] judges what the guest asks, [`firmware`] puts the
//! secure processor's answers into words.
//!
//! Trusts: its description. A guest's request is a guest's; what firmware and kernel answer is believed, for they are who
//! runs the guest, and the guest's report shows what they did.
//! Never: launches a plain guest in place of an SEV-SNP one; takes a CPUID page the firmware corrected without saying so; finishes a launch
//! twice.
//! Source: KVM, Documentation/virt/kvm/x86/amd-memory-encryption.rst; SNP ABI, SNP_LAUNCH_START to SNP_LAUNCH_FINISH.

pub mod convert;
pub mod cpuid_page;
pub mod firmware;
pub mod host;
pub mod kvm;
pub mod launch;
pub mod page_state;
pub mod plan;
pub mod policy;
pub mod support;

#[cfg(test)]
mod tests;

pub use convert::PrivateMemory;
pub use host::{Finish, Host, Page, PageKind, Refused};
pub use launch::{Launch, SnpError, launch};
