//! The only home of `unsafe` in this crate, one file per thing the kernel gives us.
#![allow(unsafe_code)]

pub mod allocator;
pub mod event;
pub mod memory;
pub mod namespaces;
pub mod sev;
pub mod vectored;
