//! Reads a stream on a thread of its own, ahead of whoever wants it: unpacking a layer and looking at what comes out of it take turns on
//! one processor, and go beside each other on two.
//!
//! Never holds more than [`CHUNKS`] chunks, whatever the stream gives.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Bytes handed over together.
const CHUNK: usize = 256 << 10;
/// Chunks on the way: one that is filled, one that is read, and what waits between them.
const CHUNKS: usize = 4;

/// What was read, in order. After an error comes nothing.
type Chunk = io::Result<Vec<u8>>;

/// The stream, for whoever wants it.
pub(crate) struct Ahead {
    coming: Receiver<Chunk>,
    /// Chunks that were read go back, to be filled again.
    back: SyncSender<Vec<u8>>,
    chunk: Vec<u8>,
    position: usize,
    ended: bool,
}

/// Calls `work` with the stream that `open` gives, which is read ahead meanwhile. What `work` does not want of it is not read.
pub(crate) fn reading<S: Read, R>(open: impl FnOnce() -> io::Result<S> + Send, work: impl FnOnce(Ahead) -> R) -> R {
    let (give, coming) = sync_channel(CHUNKS - 2);
    let (back, used) = sync_channel(CHUNKS);
    thread::scope(|scope| {
        // Where no thread can be had, nothing is read ahead: it ends the stream by an error, and is never taken for an end.
        let started = thread::Builder::new().name("unpack".into()).spawn_scoped(scope, {
            let give = give.clone();
            move || match open() {
                Ok(stream) => fill(stream, &give, &used),
                Err(error) => drop(give.send(Err(error))),
            }
        });
        if let Err(error) = started {
            let _ = give.send(Err(error));
        }
        drop(give);
        work(Ahead { coming, back, chunk: Vec::new(), position: 0, ended: false })
    })
}

fn fill(mut stream: impl Read, give: &SyncSender<Chunk>, used: &Receiver<Vec<u8>>) {
    loop {
        let mut chunk = used.try_recv().unwrap_or_default();
        chunk.clear();
        chunk.reserve_exact(CHUNK);
        let read = (&mut stream).take(CHUNK as u64).read_to_end(&mut chunk);
        let failed = read.is_err();
        // What came before an error comes before it here too; an empty chunk is the end.
        let ended = chunk.is_empty();
        let handed = if ended && failed { Ok(()) } else { give.send(Ok(chunk)) };
        match (handed, read) {
            (Ok(()), Ok(_)) if !ended => {}
            (Ok(()), Err(error)) => {
                let _ = give.send(Err(error));
                return;
            }
            // Nobody wants it any more, or there is no more.
            _ => return,
        }
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended {
            return Ok(0);
        }
        if self.position == self.chunk.len() {
            // Only a stream that said so has ended; a thread that went away without a word has not.
            let next =
                self.coming.recv().map_err(|_| io::Error::other("the stream was read to its end, or broke"))??;
            let _ = self.back.try_send(std::mem::replace(&mut self.chunk, next));
            self.position = 0;
            self.ended = self.chunk.is_empty();
        }
        let count = buffer.len().min(self.chunk.len() - self.position);
        buffer[..count].copy_from_slice(&self.chunk[self.position..][..count]);
        self.position += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives so many bytes, in odd pieces, then an error or an end.
    struct Source {
        left: usize,
        error: bool,
        given: std::sync::Arc<std::sync::atomic::AtomicUsize>,
    }

    impl Read for Source {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len().min(self.left).min(70_001);
            buffer[..count].fill(7);
            self.left -= count;
            self.given.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
            if count == 0 && self.error { Err(io::Error::other("torn")) } else { Ok(count) }
        }
    }

    fn source(left: usize, error: bool) -> Source {
        Source { left, error, given: std::sync::Arc::default() }
    }

    #[test]
    fn every_byte_comes_and_then_the_end_as_often_as_asked() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 9 * CHUNK + 12_345] {
            let mut out = Vec::new();
            reading(
                || Ok(source(length, false)),
                |mut stream| {
                    stream.read_to_end(&mut out).unwrap();
                    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
                },
            );
            assert_eq!((out.len(), out.iter().all(|byte| *byte == 7)), (length, true));
        }
    }

    #[test]
    fn an_error_comes_after_what_came_before_it_and_is_no_end() {
        for length in [0, 5, 3 * CHUNK, 3 * CHUNK + 1] {
            let mut out = Vec::new();
            reading(
                || Ok(source(length, true)),
                |mut stream| {
                    assert_eq!(stream.read_to_end(&mut out).unwrap_err().to_string(), "torn");
                    stream.read(&mut [0; 8]).unwrap_err();
                },
            );
            assert_eq!(out.len(), length);
        }
    }

    #[test]
    fn what_is_not_wanted_is_not_read() {
        let source = source(1 << 30, false);
        let given = source.given.clone();
        reading(|| Ok(source), |mut stream| stream.read_exact(&mut [0; 100]).unwrap());
        let given = given.load(std::sync::atomic::Ordering::Relaxed);
        assert!(given <= (CHUNKS + 1) * CHUNK, "{given}");
    }
}
