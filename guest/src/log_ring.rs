//! The workload's output: a ring of the last bytes with sequence numbers, and readers that follow it.
//!
//! A reader of the log that falls behind holds the workload back, once and for a bounded time; after it, the oldest entries go, the
//! reader is told how many bytes, and it holds nobody back before it reads on. Who looks at what comes from now on never does.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use coffer_guest_proto::Stream;
use tokio::sync::watch;

/// Bytes of the largest piece of output: with what stands before them in an answer, they are one frame of HTTP/2 and not two. vsock on 6.12
/// stalls on packets above 32 KiB with some devices.
pub const PIECE: usize = (16 << 10) - 64;

/// Bytes kept.
pub const CAPACITY: usize = 1024 * 1024;
/// How long the workload waits for followers that stand still behind it.
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
    /// Bytes that came before it.
    pub before: u64,
    /// The bytes.
    pub data: Vec<u8>,
}

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<Entry>,
    bytes: usize,
    last: u64,
    /// Bytes that ever came.
    written: u64,
    followers: BTreeMap<u64, Reads>,
    follower_ids: u64,
    /// Followers that have read everything to the end.
    finished: u64,
    ended: bool,
}

/// How far somebody reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reads {
    /// The next sequence number wanted.
    next: u64,
    /// The workload waits for it before what it wants goes: not for those who only look, and not once it was waited for in vain.
    holds: bool,
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

impl Ring {
    /// The first entry kept that has this sequence number, or a later one.
    fn from(&self, sequence: u64) -> Option<&Entry> {
        self.entries.get(self.entries.partition_point(|entry| entry.sequence < sequence))
    }
}

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

    /// Adds what the workload wrote; waits a while for followers that would lose entries, and then for them no more.
    pub async fn push(&self, stream: Stream, unix_nanos: u64, data: &[u8]) {
        let mut read = self.read.subscribe();
        let patience = tokio::time::sleep(self.patience);
        tokio::pin!(patience);
        while self.would_lose(cost(data)) {
            tokio::select! {
                _ = read.changed() => {}
                () = &mut patience => self.leave_behind(cost(data)),
            }
        }
        self.push_at_once(stream, unix_nanos, data);
    }

    /// Adds what the workload wrote, and waits for nobody: a follower is told how much it loses.
    pub fn push_at_once(&self, stream: Stream, unix_nanos: u64, data: &[u8]) {
        {
            let mut ring = self.lock();
            ring.last += 1;
            let sequence = ring.last;
            ring.bytes += cost(data);
            let before = ring.written;
            ring.written += data.len() as u64;
            ring.entries.push_back(Entry { sequence, stream, unix_nanos, before, data: data.to_vec() });
            while ring.bytes > self.capacity && ring.entries.len() > 1 {
                let gone = ring.entries.pop_front().map_or(0, |entry| cost(&entry.data));
                ring.bytes -= gone;
            }
        }
        self.written.send_modify(|count| *count += 1);
    }

    fn would_lose(&self, more: usize) -> bool {
        let ring = self.lock();
        let gone = self.would_go(&ring, more);
        ring.followers.values().any(|reads| reads.holds && reads.next <= gone)
    }

    /// Nobody waits any more for those who would lose something.
    fn leave_behind(&self, more: usize) {
        let mut ring = self.lock();
        let gone = self.would_go(&ring, more);
        ring.followers.values_mut().filter(|reads| reads.next <= gone).for_each(|reads| reads.holds = false);
    }

    /// The last sequence number that goes to make room for so much.
    fn would_go(&self, ring: &Ring, more: usize) -> u64 {
        let mut over = (ring.bytes + more).saturating_sub(self.capacity);
        let mut gone = 0;
        for entry in &ring.entries {
            if over == 0 {
                break;
            }
            gone = entry.sequence;
            over = over.saturating_sub(cost(&entry.data));
        }
        gone
    }

    /// No more output will come.
    pub fn end(&self) {
        self.lock().ended = true;
        self.written.send_modify(|count| *count += 1);
    }

    /// A reader that waits for more until the output ends. The workload waits for it, within bounds.
    pub fn follow(self: &std::sync::Arc<Self>, from: u64) -> Follower {
        self.follower(self.lock(), from, None, true)
    }

    /// A reader of what is there by now, from a sequence number on; 0 means from the oldest. The workload does not wait for it.
    pub fn read(self: &std::sync::Arc<Self>, from: u64) -> Follower {
        let ring = self.lock();
        let until = Until { sequence: ring.last, bytes: ring.written };
        self.follower(ring, from, Some(until), false)
    }

    /// Somebody who looks at what comes from now on, and loses what comes faster than that.
    pub fn follow_new(self: &std::sync::Arc<Self>) -> Follower {
        let ring = self.lock();
        let from = ring.last + 1;
        self.follower(ring, from, None, false)
    }

    /// Whether somebody reads along.
    pub fn is_followed(&self) -> bool {
        !self.lock().followers.is_empty()
    }

    fn follower(
        self: &std::sync::Arc<Self>,
        mut ring: MutexGuard<'_, Ring>,
        from: u64,
        until: Option<Until>,
        holds: bool,
    ) -> Follower {
        ring.follower_ids += 1;
        let id = ring.follower_ids;
        let from = from.max(1);
        ring.followers.insert(id, Reads { next: from, holds });
        // From the beginning: what is kept no more counts as lost.
        let at = if from <= 1 { 0 } else { ring.from(from).map_or(ring.written, |entry| entry.before) };
        Follower { logs: self.clone(), id, next: from, until, holds, at, lost: 0, written: self.written.subscribe() }
    }

    /// Whether anything was written.
    pub fn has_output(&self) -> bool {
        self.lock().last > 0
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

/// The end of what a reader wants that does not wait for more: the last entry, and all bytes up to its end.
#[derive(Debug, Clone, Copy)]
struct Until {
    sequence: u64,
    bytes: u64,
}

/// One reader.
#[derive(Debug)]
pub struct Follower {
    logs: std::sync::Arc<LogRing>,
    id: u64,
    next: u64,
    until: Option<Until>,
    holds: bool,
    /// Bytes that came before what is read next.
    at: u64,
    lost: u64,
    written: watch::Receiver<u64>,
}

impl Follower {
    /// The next entry, or nothing when the output has ended, or what was asked for has.
    pub async fn next(&mut self) -> Option<Entry> {
        loop {
            self.written.mark_unchanged();
            {
                let mut ring = self.logs.lock();
                let next = ring
                    .from(self.next)
                    .filter(|entry| self.until.is_none_or(|until| entry.sequence <= until.sequence))
                    .cloned();
                if let Some(entry) = next {
                    self.next = entry.sequence + 1;
                    self.lost += entry.before.saturating_sub(self.at);
                    self.at = entry.before + entry.data.len() as u64;
                    ring.followers.insert(self.id, Reads { next: self.next, holds: self.holds });
                    drop(ring);
                    self.logs.read.send_modify(|count| *count += 1);
                    return Some(entry);
                }
                if let Some(until) = self.until {
                    self.lost += until.bytes.saturating_sub(self.at);
                    self.at = self.at.max(until.bytes);
                    return None;
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

    /// Bytes that are gone before the entry that was read last, or before the end, since this was asked last.
    pub fn lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
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

    async fn kept(ring: &Arc<LogRing>, from: u64) -> Vec<Entry> {
        let (mut reader, mut all) = (ring.read(from), Vec::new());
        while let Some(entry) = reader.next().await {
            all.push(entry);
        }
        all
    }

    #[tokio::test]
    async fn whoever_reads_what_is_there_gets_nothing_that_comes_later_and_holds_nobody_back() {
        let ring = Arc::new(LogRing { patience: Duration::from_hours(100), ..LogRing::new(9 + 3 * AROUND) });
        for text in ["aaa", "bbb", "ccc"] {
            ring.push(Stream::Stdout, 0, text.as_bytes()).await;
        }
        let (mut reads, mut behind) = (ring.read(0), ring.read(0));
        assert_eq!(reads.next().await.unwrap().sequence, 1);
        for text in ["ddd", "eee"] {
            ring.push(Stream::Stdout, 0, text.as_bytes()).await;
        }
        // What is kept no more by then is counted.
        assert_eq!((reads.next().await.unwrap().sequence, reads.lost()), (3, 3));
        assert!(reads.next().await.is_none());
        ring.push(Stream::Stdout, 0, b"fff").await;
        assert!(behind.next().await.is_none());
        assert_eq!(behind.lost(), 9, "all of it");
    }

    #[tokio::test]
    async fn keeps_the_last_bytes_and_numbers_on() {
        let ring = Arc::new(LogRing::new(6 + 2 * AROUND));
        for text in ["aaa", "bbb", "ccc"] {
            ring.push(Stream::Stdout, 0, text.as_bytes()).await;
        }
        let all = kept(&ring, 0).await;
        assert_eq!(texts(&all), ["bbb", "ccc"]);
        assert_eq!(all[0].sequence, 2);
        assert_eq!(texts(&kept(&ring, 3).await), ["ccc"]);
    }

    #[tokio::test]
    async fn output_a_byte_at_a_time_takes_no_more_memory_than_any_other() {
        let ring = Arc::new(LogRing::new(64 * (1 + AROUND)));
        for _ in 0..1000 {
            ring.push(Stream::Stdout, 0, b"x").await;
        }
        let all = kept(&ring, 0).await;
        assert_eq!((all.len(), all[0].sequence), (64, 937));
    }

    #[tokio::test]
    async fn one_entry_larger_than_the_ring_is_kept_whole() {
        let ring = Arc::new(LogRing::new(2));
        ring.push(Stream::Stderr, 0, b"long").await;
        assert_eq!(texts(&kept(&ring, 0).await), ["long"]);
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
        assert_eq!((stuck.lost(), stuck.lost()), (6, 0));
    }

    #[tokio::test]
    async fn the_workload_waits_once_for_a_reader_that_stands_still_and_never_for_who_only_looks() {
        let brief = Arc::new(LogRing { patience: Duration::from_millis(1), ..LogRing::new(4 + AROUND) });
        let mut stuck = brief.follow(0);
        for text in ["aaa", "bbb"] {
            brief.push(Stream::Stdout, 0, text.as_bytes()).await;
        }
        assert!(!brief.would_lose(cost(b"ccc")), "it was waited for");
        assert_eq!(stuck.next().await.unwrap().sequence, 2);
        brief.push(Stream::Stdout, 0, b"ccc").await;
        assert!(brief.would_lose(cost(b"ddd")), "it reads on");

        let endless = Arc::new(LogRing { patience: Duration::from_hours(100), ..LogRing::new(4 + AROUND) });
        let mut looks = endless.follow_new();
        for text in ["aaa", "bbb", "ccc"] {
            endless.push(Stream::Stdout, 0, text.as_bytes()).await;
        }
        endless.end();
        assert_eq!((looks.next().await.unwrap().sequence, looks.lost()), (3, 6));
        assert!(looks.next().await.is_none());
        // Nor does it lose what came before it, or who begins later.
        assert_eq!(endless.follow_new().lost(), 0);
        let mut late = endless.follow(3);
        assert_eq!((late.next().await.unwrap().sequence, late.lost()), (3, 0));
    }
}
