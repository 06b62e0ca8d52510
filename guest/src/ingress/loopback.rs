//! The workload, as clients of an ingress reach it: at the guest's own loopback, and nowhere else.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use coffer_ratls::StreamRefusal;
use tokio::net::TcpStream;

use crate::ending::{Ending, WorkloadStream};

/// How long the workload may take to accept.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to somebody who listens. Where nobody does, on a port of those that the kernel gives to clients, a connection may be given that
/// very port, and then meets itself: it would be open, answer each byte with itself, and keep the workload from the port.
async fn another(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    if stream.local_addr()? == stream.peer_addr()? {
        // No trace of it is to stay on the port either.
        stream.set_zero_linger()?;
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

/// The workload, at the guest's loopback.
pub async fn connect(port: u16, ending: &Ending) -> Result<WorkloadStream, StreamRefusal> {
    let connect = async {
        match another((Ipv4Addr::LOCALHOST, port).into()).await {
            // It may listen at one address alone.
            Err(_) => another((Ipv6Addr::LOCALHOST, port).into()).await,
            connected => connected,
        }
    };
    match tokio::time::timeout(PATIENCE, connect).await {
        Ok(Ok(stream)) => {
            // Best effort: without it small answers wait.
            let _ = stream.set_nodelay(true);
            Ok(WorkloadStream::new(stream, ending.clone()))
        }
        Ok(Err(_)) | Err(_) => Err(StreamRefusal::PortClosed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_meets_himself() {
        // A port for clients, with nobody on it: the kernel gives it to one connection in so many thousands. Clients get every other
        // port, those of the first one's parity.
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let port: u16 = range.split_whitespace().next().unwrap().parse::<u16>().unwrap() + 2;
        let itself = async |bound: SocketAddr| {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind(bound)?;
            socket.connect(bound).await
        };
        // That there are such connections at all.
        let mut at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let met = loop {
            match itself(at).await {
                Ok(stream) => break stream,
                Err(_) => at.set_port(at.port() + 2),
            }
        };
        assert_eq!(met.local_addr().unwrap(), met.peer_addr().unwrap());
        met.set_zero_linger().unwrap();
        drop(met);
        for _ in 0..40_000 {
            if let Ok(stream) = another(at).await {
                panic!("{:?} is connected to {:?}", stream.local_addr(), stream.peer_addr());
            }
        }
    }
}
