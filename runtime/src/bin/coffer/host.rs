//! Commands about this machine and this program.

pub mod completion;
pub mod doctor;
pub mod version;
