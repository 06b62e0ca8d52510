//! The vsock transport between guest and host. Which port is whose is the agent's protocol, `coffer_guest_proto::ports`.

/// CID of the host, as every guest sees it.
pub const HOST_CID: u32 = 2;
/// CID of a guest. Every one has the same: a vsock device of its own stands between it and the host.
pub const GUEST_CID: u32 = 3;
/// Bytes of a guest's packets that the host's end takes in one buffer. Kernels since 6.12 cut longer ones in two, which
/// vhost-device-vsock does not read; told as its credit, no guest sends any.
pub const TX_BUFFER: u32 = 32768;
