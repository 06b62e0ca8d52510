//! Commands about images.

pub mod images;
pub mod progress;
pub mod pull;
pub mod rmi;

use crate::row::Group;

/// What boxes are made from.
pub const GROUP: Group =
    Group { heading: "Images", commands: &[command!("pull": pull), command!("images": images), command!("rmi": rmi)] };
