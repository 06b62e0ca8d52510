//! What touches the machine; the only home of `unsafe` in stage0.
#![allow(unsafe_code)]
#![allow(clippy::borrow_as_ptr, reason = "operands of LIDT")]

pub mod cpu;
pub mod memory;
mod runtime;
mod start;
