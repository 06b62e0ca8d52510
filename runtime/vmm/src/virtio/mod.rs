//! virtio 1 over MMIO: what the guest's driver and our devices say to each other through memory and registers.
//!
//! Trusts: nothing in guest memory. Source: Virtio 1.2 §2.7 (split virtqueues), §4.2 (MMIO).

mod broken;
pub mod chain;
mod features;
mod transport;

pub use broken::Broken;
pub use features::{COMMON_FEATURES, EVENT_INDEX, QUEUE_SIZE, VERSION_1};
pub use transport::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET};
pub use transport::{Device, Interrupt, Transport, Waits, read_empty, register};

#[cfg(test)]
pub mod driver;
#[cfg(test)]
mod tests;
