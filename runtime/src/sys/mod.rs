//! The only home of `unsafe` in this crate, one file per thing the kernel gives us.

pub mod child;
pub mod namespaces;
pub mod standard_output;
pub mod tap;
