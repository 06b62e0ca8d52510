//! One guest on KVM: the machine of `coffer_machine`, its devices, and the jail they run in.
//!
//! A [`Description`] goes in, an [`End`] comes out; [`machine`] puts the parts together. What a guest can reach is pure: chains
//! of descriptors ([`virtio::chain`]), a transport's registers ([`virtio::Transport`]), the devices behind them ([`blk`],
//! [`vsock`], [`net`], [`rng`]), the second I/O APIC ([`io_apic`]) and what is loaded ([`load`]) work on plain memory, and their tests need no
//! KVM. The rim is in `sys`, and in [`machine`] and [`vcpu`], which run threads.
//!
//! Trusts: its description, and the files it names. Everything the guest writes, to memory or a register, is the guest's.
//! Never: believes a length, an index or an address of the guest; opens a file by name once the guest runs; shows the guest
//! another box.

pub mod description;
pub mod end;

pub mod virtio;

pub mod blk;
pub mod net;
pub mod rng;
pub mod vsock;

pub mod bus;
pub mod io_apic;
pub mod ports;

pub mod cpuid;
pub mod entry;
pub mod load;

pub mod jail;
pub mod machine;
pub mod vcpu;

pub mod snp;

mod sys;

pub use description::{Card, Description, Disk, Snp};
pub use end::End;
pub use machine::MachineError;

/// Guest memory: one range from address 0.
pub type Memory = vm_memory::GuestMemoryMmap<()>;
