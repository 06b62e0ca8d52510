//! Commands about what a launch measures, and who signed it.

pub mod export;
pub mod id_block;
pub mod id_flags;
pub mod id_key;
pub mod manifest;
pub mod measure;
pub mod measure_firmware;
pub mod measure_manifest;
pub mod platform;
pub mod re_endorse;
pub mod signed_manifest;
pub mod spec;

use crate::row::Group;

/// What is measured, and what was signed about it.
pub const GROUP: Group = Group {
    heading: "What a launch measures",
    commands: &[
        command!("measure": measure),
        command!("spec": spec),
        noun!("platform": platform),
        noun!("manifest": manifest),
        noun!("id-key": id_key),
        noun!("id-block": id_block),
    ],
};
