//! The guest's vsock: streams between its sockets and Unix sockets in the folder of its box.
//!
//! Hybrid protocol, as everything of ours speaks it: who connects to the socket writes `CONNECT <port>\n`, reads `OK <number>\n`
//! and then has the guest's stream; what the guest opens to port N goes to a socket that listens at `<socket>_N`.
//!
//! Trusts: nothing the guest sends; a packet that does not belong to a stream resets it, one that no driver sends breaks the
//! device. What a guest can make us keep is bounded: streams, bytes of a stream, answers. Never: addresses anybody but host
//! and guest; names a file but `<socket>_<number>`.
//! Source: Virtio 1.2 §5.10.

mod device;
mod packet;
mod stream;
mod streams;

pub use device::Vsock;

pub use packet::{Header, Operation};

#[cfg(test)]
mod tests;
