//! Commands about this machine and this program.

pub mod audit;
pub mod completion;
pub mod doctor;
pub mod help;
pub mod manual;
pub mod metrics;
pub mod snp;
pub mod version;

use crate::row::Group;

/// What is about neither boxes nor evidence.
pub const GROUP: Group = Group {
    heading: "This machine and this program",
    commands: &[
        command!("doctor": doctor),
        noun!("host": snp),
        entry!(audit),
        command!("metrics": metrics),
        command!("completion": completion),
        command!("manual": manual),
        command!("help": help),
        command!("version": version),
    ],
};
