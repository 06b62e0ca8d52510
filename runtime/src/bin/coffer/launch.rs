//! Commands about what a launch measures, and who signed it.

pub mod id_block;
pub mod id_flags;
pub mod id_key;
pub mod manifest;
pub mod measure;
pub mod measure_firmware;
pub mod measure_manifest;
pub mod platform;
pub mod spec;
