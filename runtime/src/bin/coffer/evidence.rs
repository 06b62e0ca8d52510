//! Commands about evidence in files.

pub mod bench;
pub mod report;
pub mod verify;
