//! What a program writes, to its last byte, and for a moment after its end what others write who hold its streams open.
//!
//! Never: counts how long whoever reads here takes with what was read; so a slow reader loses nothing of what the program wrote.

use std::{io, time::Duration};

use tokio::{
    sync::watch,
    task::unconstrained,
    time::{Instant, timeout},
};

use super::Output;

/// How long is waited for output, all told, once the program has ended.
const AFTERMATH: Duration = Duration::from_secs(1);
/// What a program has written before it ended lies in no longer a pipe: `fs.pipe-max-size`. A terminal holds less.
const HELD: usize = 1 << 20;

/// An output, and whether its program has ended.
#[derive(Debug)]
pub struct Outflow {
    output: Output,
    ended: watch::Receiver<bool>,
    aftermath: Duration,
    after: Option<After>,
}

/// Since the program's end.
#[derive(Debug)]
struct After {
    since: Instant,
    /// Time that may still be spent waiting.
    patience: Duration,
    /// Bytes that came.
    bytes: usize,
}

impl Outflow {
    /// `ended` becomes true, or is let go of, when the program has ended.
    pub fn new(output: Output, ended: watch::Receiver<bool>) -> Self {
        Self { output, ended, aftermath: AFTERMATH, after: None }
    }

    /// What comes next; nothing, or an error, at the end.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.after.is_none() {
            tokio::select! {
                biased;
                read = self.output.read(buffer) => return read,
                _ = self.ended.wait_for(|ended| *ended) => {}
            }
        }
        let aftermath = self.aftermath;
        let after = self.after.get_or_insert_with(|| After { since: Instant::now(), patience: aftermath, bytes: 0 });
        if after.bytes >= HELD && after.since.elapsed() >= aftermath {
            return Ok(0); // all of the program's has come: this is others'
        }
        let begun = Instant::now();
        // What lies there is read, however little time is left.
        let Ok(read) = timeout(after.patience, unconstrained(self.output.read(buffer))).await else { return Ok(0) };
        after.patience = after.patience.saturating_sub(begun.elapsed());
        after.bytes = after.bytes.saturating_add(*read.as_ref().unwrap_or(&0));
        read
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _};

    use super::*;
    use crate::lines::output_pipe;

    #[tokio::test]
    async fn whoever_reads_however_slowly_gets_all_that_a_program_wrote_before_it_ended() {
        let (ours, theirs) = output_pipe().unwrap();
        let mut held_open = File::from(theirs);
        held_open.write_all(&vec![b'x'; 64 << 10]).unwrap();
        let (end, ended) = watch::channel(false);
        // No time at all is left once it has ended, and what lies there is read all the same.
        let mut outflow = Outflow { aftermath: Duration::ZERO, ..Outflow::new(Output::Pipe(ours), ended) };
        let mut buffer = vec![0; 4096];
        let mut all = outflow.read(&mut buffer).await.unwrap();
        end.send_replace(true);
        while let count @ 1.. = outflow.read(&mut buffer).await.unwrap() {
            all += count;
        }
        assert_eq!(all, 64 << 10, "and it has an end, though the pipe has none");
        drop(held_open);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whoever_holds_a_programs_output_open_is_listened_to_for_a_moment() {
        for piece in [1, 64 << 10] {
            let (ours, theirs) = output_pipe().unwrap();
            let (end, ended) = watch::channel(false);
            let aftermath = Duration::from_millis(50);
            let mut outflow = Outflow { aftermath, ..Outflow::new(Output::Pipe(ours), ended) };
            let mut others = tokio::net::unix::pipe::Sender::from_owned_fd(theirs).unwrap();
            let writing = tokio::spawn(async move {
                let piece = vec![b'x'; piece];
                while tokio::io::AsyncWriteExt::write_all(&mut others, &piece).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
            let mut buffer = vec![0; 4096];
            assert!(outflow.read(&mut buffer).await.unwrap() > 0);
            end.send_replace(true);
            let to_its_end = async { while outflow.read(&mut buffer).await.unwrap() > 0 {} };
            tokio::time::timeout(Duration::from_mins(1), to_its_end).await.expect("it has an end");
            drop(outflow);
            writing.await.unwrap();
        }
    }
}
