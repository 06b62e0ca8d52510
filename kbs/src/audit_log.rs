//! Where committed audit lines are printed, beside the database.
//!
//! One thread writes, behind a queue that has an end: a reader that stalls holds up no call and no end of the program. Never: lets a line
//! go unprinted without counting it and saying so.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

/// Takes one committed line at a time.
#[derive(Clone)]
pub struct AuditLog {
    write: Arc<dyn Fn(&str) + Send + Sync>,
    queue: Option<SyncSender<Item>>,
    unprinted: Unprinted,
}

/// How many lines were not printed since the start.
#[derive(Clone, Default)]
pub struct Unprinted(Arc<AtomicU64>);

enum Item {
    Line(String),
    /// Everything before it is written.
    Written(std::sync::mpsc::Sender<()>),
}

/// Lines that wait for the writer. Each is some kilobytes.
const QUEUE: usize = 4096;
/// Words about lines that were not printed, which wait for standard error.
const SAID: usize = 16;

impl AuditLog {
    /// Gives each line to `write`, there and then.
    pub fn new(write: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { write: Arc::new(write), queue: None, unprinted: Unprinted::default() }
    }

    /// Prints with `write` on a thread of its own.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn queued(write: impl FnMut(&str) -> io::Result<()> + Send + 'static) -> io::Result<Self> {
        Self::queued_behind(QUEUE, write)
    }

    fn queued_behind(limit: usize, write: impl FnMut(&str) -> io::Result<()> + Send + 'static) -> io::Result<Self> {
        let (queue, lines) = sync_channel(limit);
        let (say, said) = sync_channel(SAID);
        let unprinted = Unprinted::default();
        thread::Builder::new().name("audit-log".into()).spawn(move || tell(&said))?;
        let (told, lost) = (say.clone(), unprinted.clone());
        thread::Builder::new().name("audit-lines".into()).spawn(move || print(&lines, write, &told, &lost))?;
        let (into, lost) = (queue.clone(), unprinted.clone());
        let write = move |line: &str| {
            let why = match into.try_send(Item::Line(line.to_owned())) {
                Ok(()) => return,
                Err(TrySendError::Full(_)) => "nobody reads standard output, and the lines that wait are too many",
                Err(TrySendError::Disconnected(_)) => "the thread that prints has ended",
            };
            // Not here: standard error may have the same reader.
            let _ = say.try_send((why.to_owned(), lost.one_more()));
        };
        Ok(Self { write: Arc::new(write), queue: Some(queue), unprinted })
    }

    /// The same, after `look` has seen the line.
    #[must_use]
    pub fn seen_by(&self, look: impl Fn(&str) + Send + Sync + 'static) -> Self {
        let write = self.write.clone();
        let both = move |line: &str| {
            look(line);
            write(line);
        };
        Self { write: Arc::new(both), ..self.clone() }
    }

    /// Prints a line.
    pub fn write(&self, line: &str) {
        (self.write)(line);
    }

    /// How many were not printed.
    pub fn unprinted(&self) -> Unprinted {
        self.unprinted.clone()
    }

    /// Waits until what was given so far is written, and no longer than `patience`. True if it is.
    pub fn settle(&self, patience: Duration) -> bool {
        let Some(queue) = &self.queue else { return true };
        let (done, written) = channel();
        let (until, mut item) = (Instant::now() + patience, Item::Written(done));
        loop {
            item = match queue.try_send(item) {
                Ok(()) => break,
                Err(TrySendError::Full(item)) => item,
                Err(TrySendError::Disconnected(_)) => return false,
            };
            if Instant::now() >= until {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let left = until.saturating_duration_since(Instant::now());
        !matches!(written.recv_timeout(left), Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected))
    }
}

impl Unprinted {
    /// How many.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn one_more(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Writes what comes. A line that could not be written may have been begun: the next one begins on a line of its own.
fn print(
    lines: &Receiver<Item>,
    mut write: impl FnMut(&str) -> io::Result<()>,
    say: &SyncSender<(String, u64)>,
    unprinted: &Unprinted,
) {
    let mut begun = false;
    while let Ok(item) = lines.recv() {
        match item {
            Item::Written(done) => {
                let _ = done.send(());
            }
            Item::Line(line) => {
                let line = if begun { format!("\n{line}\n") } else { format!("{line}\n") };
                let written = write(&line);
                begun = written.is_err();
                if let Err(error) = written {
                    let _ = say.try_send((format!("standard output: {error}"), unprinted.one_more()));
                }
            }
        }
    }
}

fn tell(said: &Receiver<(String, u64)>) {
    while let Ok((why, unprinted)) = said.recv() {
        tracing::error!(
            why,
            unprinted,
            "a line of the audit trail was not printed: the database has it, the log has not"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::*;

    #[test]
    fn what_cannot_be_written_is_counted_each_time_and_tried_again_with_the_next() {
        let (heard, mut calls) = (Arc::new(Mutex::new(String::new())), 0);
        let sink = heard.clone();
        let log = AuditLog::queued(move |line| {
            calls += 1;
            if calls == 2 || calls == 3 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            sink.lock().unwrap().push_str(line);
            Ok(())
        })
        .unwrap();
        for line in ["a", "b", "c", "d", "e"] {
            log.write(line);
        }
        assert!(log.settle(Duration::from_secs(10)));
        assert_eq!(log.unprinted().count(), 2);
        assert_eq!(*heard.lock().unwrap(), "a\n\nd\ne\n");
    }

    #[test]
    fn a_reader_that_stalls_holds_nobody_up_and_what_does_not_fit_is_counted() {
        let (go_on, stalled) = mpsc::channel::<()>();
        let log = AuditLog::queued_behind(4, move |_| {
            let _ = stalled.recv();
            Ok(())
        })
        .unwrap();
        let seen = Arc::new(AtomicU64::new(0));
        let counter = seen.clone();
        let log = log.seen_by(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let begun = Instant::now();
        for _ in 0..100 {
            log.write("line");
        }
        assert!(!log.settle(Duration::from_millis(50)));
        assert!(begun.elapsed() < Duration::from_mins(1), "{:?}", begun.elapsed());
        let unprinted = log.unprinted().count();
        assert!((95..=96).contains(&unprinted), "{unprinted}");
        assert_eq!(seen.load(Ordering::Relaxed), 100, "counted as decisions all the same");
        drop(go_on);
        assert!(log.settle(Duration::from_secs(10)), "and it goes on where the reader does");
    }
}
