//! Commands about evidence in files.

pub mod bench;
pub mod beside;
pub mod collateral;
pub mod decisions;
pub mod endpoint;
pub mod fetching;
pub mod judging;
pub mod new_key;
pub mod policy;
pub mod rego;
pub mod report;
pub mod revoked;
pub mod shown;
pub mod token;
pub mod verify;

use crate::row::Group;

/// What decides about evidence, or shows it.
pub const GROUP: Group = Group {
    heading: "Evidence in files",
    commands: &[
        command!("verify": verify),
        noun!("token": token),
        noun!("collateral": collateral),
        noun!("policy": policy),
        noun!("report": report),
        noun!("bench": bench),
    ],
};
