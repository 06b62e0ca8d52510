//! What touches the machine; the only home of `unsafe` in stage0.
#![allow(unsafe_code)]

pub mod cpu;
pub mod memory;
mod runtime;
