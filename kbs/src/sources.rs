//! Accepts TCP connections within what one source address may have, before any cryptography.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use coffer_ratls::{Source, Sourced};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_stream::Stream;

use crate::limits::{Buckets, Rate};

/// What one source may have: an IPv4 address, or the /64 network of an IPv6 address, which its holder picks at will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceLimits {
    /// Connections at once. All boxes of one host come from one address.
    pub connections: usize,
    /// Connections of all sources at once, those that wait for a place among strangers too. Beyond it only a source comes in that
    /// has less than its share, and nobody at twice as many.
    pub all_told: usize,
    /// New connections.
    pub rate: Rate,
}

/// Who has how many connections.
#[derive(Default)]
struct Open {
    by_source: HashMap<Source, usize>,
    all: usize,
}

impl Open {
    fn have_room(&self, source: Source, limits: &SourceLimits) -> bool {
        let count = self.by_source.get(&source).copied().unwrap_or(0);
        let sources = self.by_source.len() + usize::from(count == 0);
        // However many sources there are, each has one before any has another.
        let share = (limits.all_told / sources.max(1)).max(1);
        let room = self.all < limits.all_told || count < share && self.all < 2 * limits.all_told;
        count < limits.connections && room
    }
}

/// A listener that closes what is too much, and counts what it lets in.
pub struct Sources {
    listener: TcpListener,
    limits: SourceLimits,
    rate: Buckets<Source>,
    open: Arc<Mutex<Open>>,
    dropped: u64,
    all_dropped: Arc<AtomicU64>,
    told: Option<Instant>,
}

/// A counted connection.
pub struct Counted {
    stream: TcpStream,
    source: Source,
    open: Arc<Mutex<Open>>,
}

impl Sources {
    /// Wraps a listener.
    pub fn new(listener: TcpListener, limits: SourceLimits) -> Self {
        let (rate, open, all_dropped) = (Buckets::new(limits.rate), Arc::default(), Arc::default());
        Self { listener, limits, rate, open, dropped: 0, all_dropped, told: None }
    }

    /// Tells how many were closed for what their source may have.
    pub fn all_dropped(&self) -> Arc<AtomicU64> {
        self.all_dropped.clone()
    }

    fn admit(&mut self, stream: TcpStream, peer: SocketAddr) -> Option<Counted> {
        let source = source_of(peer.ip());
        let now = Instant::now();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if !open.have_room(source, &self.limits) || !self.rate.take(source, now) {
            drop(open);
            self.dropped += 1;
            self.all_dropped.fetch_add(1, Ordering::Relaxed);
            self.tell(source, now);
            return None;
        }
        *open.by_source.entry(source).or_default() += 1;
        open.all += 1;
        drop(open);
        // Requests are small and wait for each other.
        let _ = stream.set_nodelay(true);
        Some(Counted { stream, source, open: self.open.clone() })
    }

    /// At most one line in ten seconds, whatever strangers do.
    fn tell(&mut self, source: Source, now: Instant) {
        if self.told.is_none_or(|told| now.saturating_duration_since(told).as_secs() >= 10) {
            let source = source_name(source);
            tracing::warn!(source, dropped = self.dropped, "connections over the limits of their source were closed");
            self.told = Some(now);
            self.dropped = 0;
        }
    }
}

impl Stream for Sources {
    type Item = io::Result<Counted>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match self.listener.poll_accept(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Ok((stream, peer))) => {
                    if let Some(counted) = self.admit(stream, peer) {
                        return Poll::Ready(Some(Ok(counted)));
                    }
                }
            }
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all = open.all.saturating_sub(1);
        if let Some(count) = open.by_source.get_mut(&self.source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.by_source.remove(&self.source);
            }
        }
    }
}

impl Sourced for Counted {
    fn source(&self) -> Source {
        self.source
    }
}

fn source_of(address: IpAddr) -> Source {
    match address {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        // One who has an IPv6 address has the network it lies in.
        IpAddr::V6(address) => u64::try_from(address.to_bits() >> 64).unwrap_or(0),
    }
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A source for people: an address, or the network of one.
pub fn source_name(source: Source) -> String {
    match u32::try_from(source) {
        Ok(address) => Ipv4Addr::from_bits(address).to_string(),
        Err(_) => format!("{}/64", Ipv6Addr::from_bits(u128::from(source) << 64)),
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;

    #[test]
    fn sources_have_names() {
        assert_eq!(source_name(0x7f00_0002), "127.0.0.2");
        assert_eq!(source_name(0x2001_0db8_0000_0001), "2001:db8:0:1::/64");
    }

    #[tokio::test]
    async fn one_source_has_its_connections_and_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = SourceLimits { connections: 2, all_told: 100, rate: Rate { burst: 100, per_second: 100 } };
        let mut sources = Sources::new(listener, limits);
        let clients: Vec<_> = vec![
            TcpStream::connect(address).await.unwrap(),
            TcpStream::connect(address).await.unwrap(),
            TcpStream::connect(address).await.unwrap(),
        ];
        let first = sources.next().await.unwrap().unwrap();
        let _second = sources.next().await.unwrap().unwrap();
        let third = tokio::time::timeout(core::time::Duration::from_millis(100), sources.next()).await;
        assert!(third.is_err());
        assert_eq!(sources.all_dropped().load(Ordering::Relaxed), 1);
        drop(first);
        let _fourth = TcpStream::connect(address).await.unwrap();
        assert!(sources.next().await.unwrap().is_ok());
        drop(clients);
    }

    #[test]
    fn many_sources_leave_room_for_one_more_and_all_of_them_have_an_end() {
        let limits = SourceLimits { connections: 100, all_told: 100, rate: Rate { burst: 1, per_second: 1 } };
        let of = |source: u8| source_of(IpAddr::from([127, 0, 0, source]));
        let mut open = Open { by_source: (1..=4).map(|source| (of(source), 25)).collect(), all: 100 };
        assert!(!open.have_room(of(1), &limits), "it has its share");
        assert!(open.have_room(of(9), &limits), "somebody new is let in all the same");
        open.by_source.insert(of(9), 19);
        open.all = 119;
        assert!(open.have_room(of(9), &limits));
        open.by_source.insert(of(9), 20);
        assert!(!open.have_room(of(9), &limits), "up to a share");
        open.all = 200;
        assert!(!open.have_room(of(10), &limits), "and there is an end to it");
        open.all = 99;
        assert!(open.have_room(of(1), &limits));
    }

    #[test]
    fn a_network_is_one_source_and_whoever_has_none_gets_one_however_many_there_are() {
        let limits = SourceLimits { connections: 100, all_told: 100, rate: Rate { burst: 1, per_second: 1 } };
        let network = |last: u16| source_of(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]));
        assert_eq!(network(1), network(2));
        let mut open = Open { by_source: (1..=150).map(|source| (source, 1)).collect(), all: 150 };
        assert!(!open.have_room(7, &limits), "it has one");
        assert!(open.have_room(151, &limits), "it has none");
        open.all = 200;
        assert!(!open.have_room(151, &limits));
    }
}
