//! A stream of files between a session, which waits on the event loop, and what makes or reads files, which blocks.

use std::io::{self, BufWriter, Read, Write};

use coffer_rim::carry::ABSENT;
use coffer_rim::foreign;
use coffer_runtime::engine::{ExecInput, ExecOutput, ExecSession};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::error::{self, Class, Classify as _, CliError};

/// Pieces on their way.
const ROOM: usize = 16;
/// Bytes of a piece.
const PIECE: usize = 16 * 1024;
/// Bytes of what the other side says that are shown.
const WORDS: usize = 4096;

/// What comes out of a box, as it comes.
pub struct Coming {
    pieces: mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Coming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            match self.pieces.blocking_recv() {
                Some(piece) => (self.piece, self.at) = (piece, 0),
                None => return Ok(0),
            }
        }
        let rest = self.piece.get(self.at..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) else { return Ok(0) };
        to.copy_from_slice(from);
        self.at += count;
        Ok(count)
    }
}

/// What goes into a box.
pub struct Going(mpsc::Sender<Vec<u8>>);

impl Write for Going {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = bytes.get(..bytes.len().min(PIECE)).unwrap_or_default();
        self.0.blocking_send(piece.to_vec()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the agent's program said, and its end.
struct Said {
    words: Vec<u8>,
    status: i32,
}

impl Said {
    fn hear(&mut self, bytes: &[u8]) {
        self.words.extend(bytes.iter().take(WORDS.saturating_sub(self.words.len())));
    }

    /// Its failure is the reason of ours.
    fn verdict<T>(self, ours: Result<T, CliError>, quiet: bool) -> Result<T, CliError> {
        let words = String::from_utf8_lossy(&self.words);
        let words = words.trim().strip_prefix("coffer: ").unwrap_or(words.trim());
        if self.status != 0 {
            let message = if words.is_empty() { "it was ended there" } else { words };
            let class = if self.status == ABSENT { Class::NotFound } else { Class::Config };
            return Err(CliError::new(class, format!("in the box: {message}")));
        }
        if !words.is_empty() && !quiet {
            eprintln!("coffer: in the box: {}", foreign(words));
        }
        ours
    }
}

/// Has `make` take what comes.
pub async fn take<T: Send + 'static>(
    session: &mut ExecSession,
    quiet: bool,
    make: impl FnOnce(Coming) -> Result<T, CliError> + Send + 'static,
) -> Result<T, CliError> {
    let (sender, pieces) = mpsc::channel(ROOM);
    let making = tokio::task::spawn_blocking(move || make(Coming { pieces, piece: Vec::new(), at: 0 }));
    let mut said = Said { words: Vec::new(), status: 0 };
    let ended = loop {
        match session.next().await {
            Ok(ExecOutput::Stdout(bytes)) => {
                if sender.send(bytes).await.is_err() {
                    break Ok(()); // it has seen enough, and says why
                }
            }
            Ok(ExecOutput::Stderr(bytes)) => said.hear(&bytes),
            Ok(ExecOutput::Exited(status)) => {
                said.status = status;
                break Ok(());
            }
            Ok(ExecOutput::Detached) => break Ok(()),
            Ok(ExecOutput::Lost(_) | ExecOutput::SignalRefused(_)) => {}
            Err(broken) => break Err(error::of(broken)),
        }
    };
    // It clears away what is not whole before this program ends.
    drop(sender);
    let made = making.await.class(Class::Internal)?;
    ended?;
    said.verdict(made, quiet)
}

/// Sends what `read` gives.
pub async fn give<T: Send + 'static>(
    session: &mut ExecSession,
    quiet: bool,
    read: impl FnOnce(BufWriter<Going>) -> Result<T, CliError> + Send + 'static,
) -> Result<T, CliError> {
    let (sender, mut pieces) = mpsc::channel(ROOM);
    let reading = tokio::task::spawn_blocking(move || read(BufWriter::with_capacity(PIECE, Going(sender))));
    let inputs = session.inputs();
    let sending = tokio::spawn(async move {
        while let Some(piece) = pieces.recv().await {
            if !inputs.send(ExecInput::Stdin(piece)).await {
                return;
            }
        }
        inputs.send(ExecInput::StdinClosed).await;
    });
    finish(async || session.next().await.map_err(error::of), sending, reading, quiet).await
}

/// Hears the other side to its end, however it ends; then nobody sends any more, so that whoever reads sees that, and ends.
async fn finish<T>(
    mut next: impl AsyncFnMut() -> Result<ExecOutput, CliError>,
    sending: JoinHandle<()>,
    reading: JoinHandle<Result<T, CliError>>,
    quiet: bool,
) -> Result<T, CliError> {
    let mut said = Said { words: Vec::new(), status: 0 };
    let ended = loop {
        match next().await {
            Ok(ExecOutput::Stdout(_) | ExecOutput::Lost(_) | ExecOutput::SignalRefused(_)) => {}
            Ok(ExecOutput::Stderr(bytes)) => said.hear(&bytes),
            Ok(ExecOutput::Exited(status)) => {
                said.status = status;
                break Ok(());
            }
            Ok(ExecOutput::Detached) => break Ok(()),
            Err(broken) => break Err(broken),
        }
    };
    sending.abort();
    let read = reading.await.class(Class::Internal)?;
    ended?;
    let read = match read {
        // What could not be read here is why nothing whole came there.
        Err(ours) if said.status == 0 || !ours.message.contains("roken pipe") => return Err(ours),
        read => read,
    };
    said.verdict(read, quiet)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn whoever_reads_ends_when_the_other_side_breaks_off_and_takes_nothing_more() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let failure = runtime.block_on(async {
            let (sender, pieces) = mpsc::channel(1);
            let sending = tokio::spawn(async move {
                // It waits for room that nobody gives.
                let _pieces = pieces;
                std::future::pending::<()>().await;
            });
            let at_end = ended.clone();
            let reading = tokio::task::spawn_blocking(move || {
                let copied = io::copy(&mut io::repeat(0), &mut Going(sender));
                at_end.store(true, Ordering::SeqCst);
                copied.class(Class::Config)
            });
            let gone = || CliError::new(Class::NotFound, "the box has ended");
            finish(async || Err(gone()), sending, reading, true).await.unwrap_err()
        });
        // Whoever has not ended would be waited for.
        runtime.shutdown_background();
        assert!(ended.load(Ordering::SeqCst));
        assert_eq!(failure.message, "the box has ended");
    }
}
