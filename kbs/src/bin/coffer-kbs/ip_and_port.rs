//! Addresses to listen on.

use std::net::SocketAddr;

/// An IP address and a port. A name is none: what it stands for may change.
pub fn ip_and_port(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected IP:PORT, such as 127.0.0.1:4480 or [::]:4480, and no name".to_owned())
}
