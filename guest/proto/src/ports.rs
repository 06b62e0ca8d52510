//! vsock port numbers. On the guest the agent listens; on the host the runtime does. Who has which CID is the machine
//! model's, `coffer_machine::vsock`.
//!
//! Source: docs/design/guest.md §8.

/// gRPC `Control` for the host; `host_may` decides.
pub const CONTROL: u32 = 4088;
/// gRPC `Exec` for the host; `host_may` decides.
pub const EXEC: u32 = 4089;
/// RA-TLS for owners, ALPN `coffer-control/1`, who come by a port of the host's that is open to others.
pub const RA_TLS_ELSEWHERE: u32 = 4090;
/// RA-TLS for owners on the host.
pub const RA_TLS: u32 = 4091;

/// RA-TLS in front of a TCP port of the workload, ALPN `coffer-ingress/1/<port>`: behind every number that TCP has.
pub const fn ingress(port: u16) -> u32 {
    0x1_0000 | port as u32
}

/// Where the ports towards the host begin. A monitor's vsock device numbers its own side of each connection to the guest from
/// 0 upwards, and one of them (QEMU's, `vhost-device-vsock`) makes no more connections once it meets a number that the guest
/// has a connection to: so these are where no counter comes.
const fn host(number: u32) -> u32 {
    0xF000_0000 + number
}

/// Host side: takes [`event`](crate::event) frames.
pub const HOST_EVENTS: u32 = host(0);
/// Host side: the simulated secure processor.
pub const HOST_PROCESSOR: u32 = host(1);
/// Host side: copies bytes to and from the key broker of the spec.
pub const HOST_KBS_RELAY: u32 = host(2);
/// Host side: writes the certificate table of this host's chip and hangs up, for guests on hardware.
pub const HOST_CERTIFICATES: u32 = host(3);
/// Host side: copies bytes to and from the address of the spec's peer of this index.
pub const fn peer(index: u32) -> u32 {
    host(0x1_0000) + index
}
