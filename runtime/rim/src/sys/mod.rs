//! The only home of `unsafe` in this crate.
#![allow(unsafe_code)]

pub mod heap;
