//! The only home of `unsafe`: one file per device or kernel interface, each with a safe handle on top.
#![allow(unsafe_code)]

pub mod bpf;
pub mod descriptor;
pub mod dev_mem;
pub mod dm;
pub mod net;
pub mod own_binary;
pub mod process;
pub mod process_id;
pub mod seccomp;
pub mod sev_guest;
pub mod signals;
pub mod swap;
pub mod vsock;
