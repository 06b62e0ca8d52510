//! Commands about images.

pub mod images;
pub mod progress;
pub mod pull;
pub mod rmi;
