//! The guest's network card: virtio-net in front of a stream socket to whoever carries its frames.
//!
//! On the socket each frame stands behind its length, four bytes, big-endian: what QEMU's `-netdev stream` and passt speak.
//! Frames go through as they are; no checksum or segment is left for the other side to finish. A peer that stalls holds the guest's frames
//! up for a second, then they are dropped; one that is gone, or says a length no frame has, is a cable that is out, for good.
//!
//! Trusts: neither the guest nor the peer; lengths of both are bounded. Never: keeps more than one frame and one buffer of
//! each direction; looks into a frame; opens or connects anything. Which frames pass further, and to whom, is decided at the other end of
//! the socket, by the [`filter`] and the [`switch`].
//! Source: Virtio 1.2 §5.1; QEMU net/stream.c; passt tap.c.

pub mod datagrams;
mod device;
pub mod filter;
mod frame;
mod line;
mod refused;
pub mod switch;

pub use device::{Net, Traffic};
pub use line::{LONGEST, Lost, SHORTEST};
pub use refused::Refused;

#[cfg(test)]
mod tests;
