//! The workload's output: a ring of the last bytes with sequence numbers, and readers that follow it.
//!
//! A follower that falls behind holds the workload back, for a bounded time; after it, the oldest entries go and the
//! follower sees a gap in the sequence.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use coffer_guest_proto::Stream;
use tokio::sync::watch;

/// Bytes kept.
pub const CAPACITY: usize = 1024 * 1024;
/// How long one write of the workload waits for followers that are behind.
const PATIENCE: Duration = Duration::from_secs(1);

/// One read of the workload's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Counts from 1.
    pub sequence: u64,
    /// Which output.
    pub stream: Stream,
    /// Guest clock when it was read, nanoseconds since 1970.
    pub unix_nanos: u64,
    /// The bytes.
    pub data: Vec<u8>,
}

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<Entry>,
    bytes: usize,
    last: u64,
    /// Next sequence number each follower wants.
    followers: BTreeMap<u64, u64>,
    follower_ids: u64,
    /// Followers that have read everything to the end.
    finished: u64,
    ended: bool,
}

/// The ring, shared by the workload's pipes and every reader.
#[derive(Debug)]
pub struct LogRing {
    ring: Mutex<Ring>,
    capacity: usize,
    patience: Duration,
    written: watch::Sender<u64>,
    read: watch::Sender<u64>,
}

/// What an entry takes of the ring: its bytes, and what is kept around them, or output a byte at a time would take as much again for each.
const fn cost(data: &[u8]) -> usize {
    data.len() + AROUND
}

/// An entry, and the allocation of its bytes.
const AROUND: usize = size_of::<Entry>() + 32;

impl LogRing {
    /// An empty ring that takes `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        Self {
            ring: Mutex::default(),
            capacity,
            patience: PATIENCE,
            written: watch::Sender::new(0),
            read: watch::Sender::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what the workload wrote; waits a while for followers that would lose entries.
    pub async fn push(&self, stream: Stream, unix_nanos: u64, data: &[u8]) {
        let mut read = self.read.subscribe();
        let patience = tokio::time::sleep(self.patience);
        tokio::pin!(patience);
        while self.would_lose(cost(data)) {
            tokio::select! {
                _ = read.changed() => {}
                () = &mut patience => break,
            }
        }
        {
            let mut ring = self.lock();
            ring.last += 1;
            let sequence = ring.last;
            ring.bytes += cost(data);
            ring.entries.push_back(Entry { sequence, stream, unix_nanos, data: data.to_vec() });
            while ring.bytes > self.capacity && ring.entries.len() > 1 {
                let gone = ring.entries.pop_front().map_or(0, |entry| cost(&entry.data));
                ring.bytes -= gone;
            }
        }
        self.written.send_modify(|count| *count += 1);
    }

    fn would_lose(&self, more: usize) -> bool {
        let ring = self.lock();
        let Some(slowest) = ring.followers.values().min() else { return false };
        let mut over = (ring.bytes + more).saturating_sub(self.capacity);
        for entry in &ring.entries {
            if over == 0 {
                return false;
            }
            if entry.sequence >= *slowest {
                return true;
            }
            over = over.saturating_sub(cost(&entry.data));
        }
        false
    }

    /// No more output will come.
    pub fn end(&self) {
        self.lock().ended = true;
        self.written.send_modify(|count| *count += 1);
    }

    /// Entries kept now, from a sequence number on; 0 means from the oldest.
    pub fn snapshot(&self, from: u64) -> Vec<Entry> {
        self.lock().entries.iter().filter(|entry| entry.sequence >= from).cloned().collect()
    }

    /// A reader that waits for more until the output ends.
    pub fn follow(self: &std::sync::Arc<Self>, from: u64) -> Follower {
        self.follower(self.lock(), from)
    }

    /// The same, of what comes from now on.
    pub fn follow_new(self: &std::sync::Arc<Self>) -> Follower {
        let ring = self.lock();
        let from = ring.last + 1;
        self.follower(ring, from)
    }

    /// Whether somebody reads along.
    pub fn is_followed(&self) -> bool {
        !self.lock().followers.is_empty()
    }

    fn follower(self: &std::sync::Arc<Self>, mut ring: MutexGuard<'_, Ring>, from: u64) -> Follower {
        ring.follower_ids += 1;
        let id = ring.follower_ids;
        ring.followers.insert(id, from);
        Follower { logs: self.clone(), id, next: from, written: self.written.subscribe() }
    }

    /// True when the output has ended, somebody has read it to its end, and nobody is still reading.
    fn is_drained(&self) -> bool {
        let ring = self.lock();
        ring.ended && ring.finished > 0 && ring.followers.is_empty()
    }

    /// Waits for that, once the output has ended.
    pub async fn drained(&self) {
        let mut read = self.read.subscribe();
        while !self.is_drained() {
            let _ = read.changed().await;
        }
    }
}

/// One reader.
#[derive(Debug)]
pub struct Follower {
    logs: std::sync::Arc<LogRing>,
    id: u64,
    next: u64,
    written: watch::Receiver<u64>,
}

impl Follower {
    /// The next entry, or nothing when the output has ended.
    pub async fn next(&mut self) -> Option<Entry> {
        loop {
            self.written.mark_unchanged();
            {
                let mut ring = self.logs.lock();
                let found = ring.entries.partition_point(|entry| entry.sequence < self.next);
                if let Some(entry) = ring.entries.get(found).cloned() {
                    self.next = entry.sequence + 1;
                    ring.followers.insert(self.id, self.next);
                    drop(ring);
                    self.logs.read.send_modify(|count| *count += 1);
                    return Some(entry);
                }
                if ring.ended {
                    ring.finished += 1;
                    return None;
                }
            }
            // The sender lives in `logs`, so this only ever waits.
            let _ = self.written.changed().await;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.logs.lock().followers.remove(&self.id);
        self.logs.read.send_modify(|count| *count += 1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn texts(entries: &[Entry]) -> Vec<String> {
        entries.iter().map(|entry| String::from_utf8_lossy(&entry.data).into_owned()).collect()
    }

    #[tokio::test]
    async fn keeps_the_last_bytes_and_numbers_on() {
        let ring = LogRing::new(6 + 2 * AROUND);
        for text in ["aaa", "bbb", "ccc"] {
            ring.push(Stream::Stdout, 0, text.as_bytes()).await;
        }
        let kept = ring.snapshot(0);
        assert_eq!(texts(&kept), ["bbb", "ccc"]);
        assert_eq!(kept[0].sequence, 2);
        assert_eq!(texts(&ring.snapshot(3)), ["ccc"]);
    }

    #[tokio::test]
    async fn output_a_byte_at_a_time_takes_no_more_memory_than_any_other() {
        let ring = LogRing::new(64 * (1 + AROUND));
        for _ in 0..1000 {
            ring.push(Stream::Stdout, 0, b"x").await;
        }
        let kept = ring.snapshot(0);
        assert_eq!((kept.len(), kept[0].sequence), (64, 937));
    }

    #[tokio::test]
    async fn one_entry_larger_than_the_ring_is_kept_whole() {
        let ring = LogRing::new(2);
        ring.push(Stream::Stderr, 0, b"long").await;
        assert_eq!(texts(&ring.snapshot(0)), ["long"]);
    }

    #[tokio::test]
    async fn a_follower_sees_everything_to_the_end() {
        let ring = Arc::new(LogRing::new(6 + 2 * AROUND));
        let mut follower = ring.follow(0);
        let writer = tokio::spawn({
            let ring = ring.clone();
            async move {
                for text in ["aaa", "bbb", "ccc", "ddd"] {
                    ring.push(Stream::Stdout, 0, text.as_bytes()).await;
                }
                ring.end();
            }
        });
        let mut seen = Vec::new();
        while let Some(entry) = follower.next().await {
            seen.push(entry);
        }
        writer.await.unwrap();
        assert_eq!(texts(&seen), ["aaa", "bbb", "ccc", "ddd"]);
        assert!(!ring.is_drained());
        assert!(ring.follow_new().next().await.is_none(), "nothing new came");
        drop(follower);
        assert!(ring.is_drained());
    }

    #[tokio::test]
    async fn a_follower_that_never_reads_does_not_stop_the_workload() {
        let ring = Arc::new(LogRing { patience: Duration::from_millis(1), ..LogRing::new(4 + AROUND) });
        let mut stuck = ring.follow(0);
        for text in ["aaa", "bbb", "ccc"] {
            ring.push(Stream::Stdout, 0, text.as_bytes()).await;
        }
        assert_eq!(stuck.next().await.unwrap().sequence, 3, "the gap shows in the sequence");
    }
}
