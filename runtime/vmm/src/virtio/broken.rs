//! Why a device stops.

/// What a guest did that no driver does. The device stops until the driver resets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// A ring lies outside memory, or its index runs ahead of its size.
    #[error("a ring is not in memory, or its index is ahead of its size")]
    Ring,
    /// A chain has no end within its table, or leads out of it.
    #[error("a chain of descriptors has no end")]
    Endless,
    /// A buffer is not in memory.
    #[error("a buffer is not in memory")]
    Outside,
    /// A buffer to read stands behind one to write.
    #[error("a buffer to read stands behind one to write")]
    Order,
    /// More bytes than any request of a driver has.
    #[error("a request is longer than any driver's")]
    TooLong,
    /// The chain is not what this device's requests look like.
    #[error("a request does not have the parts it must have")]
    Parts,
}
