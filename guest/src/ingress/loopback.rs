//! The workload, as clients of an ingress reach it: at the guest's own loopback, and nowhere else.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use coffer_ratls::StreamRefusal;
use tokio::net::TcpStream;

/// How long the workload may take to accept.
const PATIENCE: Duration = Duration::from_secs(10);

/// The workload, at the guest's loopback.
pub async fn connect(port: u16) -> Result<TcpStream, StreamRefusal> {
    let connect = async {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
            // It may listen at one address alone.
            Err(_) => TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await,
            connected => connected,
        }
    };
    match tokio::time::timeout(PATIENCE, connect).await {
        Ok(Ok(stream)) => {
            // Best effort: without it small answers wait.
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(_)) | Err(_) => Err(StreamRefusal::PortClosed),
    }
}
