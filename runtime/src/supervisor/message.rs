//! What a supervisor tells the command that started it: one JSON object per line on its standard output.

use coffer_rim::Failure;
use rustix::io::fcntl_dupfd_cloexec;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::boxes::Step;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Message {
    /// A point of the start was reached, as it is recorded.
    Phase(Step),
    /// The workload wrote.
    Log(LogPiece),
    /// So many bytes of its output, before what follows, are nowhere.
    Lost(u64),
    /// The box gave up before the workload ran.
    Failed(Failure),
    /// The workload ended.
    Exited(Ended),
    /// The same, and the box is started again by itself. Nothing follows.
    Restarting(Ended),
}

/// How a box ended whose workload ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Exit code.
    pub code: i32,
    /// Why, where it was not the workload's own doing.
    pub error: Option<String>,
}

/// A piece of the workload's output, as it lies in the log file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPiece {
    /// `stdout` or `stderr`.
    pub stream: String,
    /// Unix nanoseconds, by the guest's clock.
    pub time: u64,
    /// The text, where it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// The bytes in base64, where they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

impl LogPiece {
    /// From what the guest sent.
    pub fn new(stderr: bool, time: u64, data: Vec<u8>) -> Self {
        use base64::Engine as _;
        let stream = if stderr { "stderr" } else { "stdout" }.to_string();
        match String::from_utf8(data) {
            Ok(text) => Self { stream, time, log: Some(text), base64: None },
            Err(error) => {
                let base64 = base64::engine::general_purpose::STANDARD.encode(error.as_bytes());
                Self { stream, time, log: None, base64: Some(base64) }
            }
        }
    }

    /// The bytes as the workload wrote them.
    pub fn bytes(&self) -> Vec<u8> {
        use base64::Engine as _;
        match (&self.log, &self.base64) {
            (Some(text), _) => text.clone().into_bytes(),
            (None, Some(text)) => base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default(),
            (None, None) => Vec::new(),
        }
    }

    /// How many they are.
    pub fn len(&self) -> u64 {
        match &self.log {
            Some(text) => text.len() as u64,
            None => self.bytes().len() as u64,
        }
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True for standard error.
    pub fn is_stderr(&self) -> bool {
        self.stream == "stderr"
    }
}

/// A line of a box's log file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogLine {
    /// The workload wrote.
    Piece(LogPiece),
    /// So many bytes of its output come before this place since the log was begun. What of them is not in front of it, is gone.
    Before(u64),
}

/// The second of them, as it stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    before: u64,
}

impl LogLine {
    /// Nothing where it is none.
    pub fn read(line: &[u8]) -> Option<Self> {
        let piece = serde_json::from_slice(line).map(Self::Piece);
        piece.or_else(|_| serde_json::from_slice(line).map(|Place { before }| Self::Before(before))).ok()
    }

    /// As it stands in the file.
    pub fn line(&self) -> Vec<u8> {
        let line = match self {
            Self::Piece(piece) => serde_json::to_vec(piece),
            Self::Before(before) => serde_json::to_vec(&Place { before: *before }),
        };
        let mut line = line.unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// The sending end. Once the command is gone, messages go nowhere and nobody waits for it.
#[derive(Clone, Debug)]
pub struct Reporter {
    queue: mpsc::Sender<Message>,
}

/// Writes what was reported until every [`Reporter`] is gone.
pub type ReporterTask = tokio::task::JoinHandle<()>;

impl Reporter {
    /// To our standard output, if that is a pipe.
    pub fn to_stdout() -> (Self, ReporterTask) {
        let copy = fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3).map_err(std::io::Error::from);
        let pipe = copy.and_then(pipe::Sender::from_owned_fd).ok();
        let (queue, mut messages) = mpsc::channel::<Message>(64);
        let task = tokio::spawn(async move {
            let mut pipe = pipe;
            while let Some(message) = messages.recv().await {
                let Some(open) = &mut pipe else { continue };
                let mut line = serde_json::to_vec(&message).unwrap_or_default();
                line.push(b'\n');
                if open.write_all(&line).await.is_err() {
                    pipe = None;
                }
            }
        });
        (Self { queue }, task)
    }

    /// To a program of our own.
    #[cfg(test)]
    pub fn to(queue: mpsc::Sender<Message>) -> Self {
        Self { queue }
    }

    /// Sends one message, waiting while the command is slow to read.
    pub async fn send(&self, message: Message) {
        let _ = self.queue.send(message).await;
    }

    /// Sends one message without waiting; behind a command that is slow to read, in its own time.
    pub fn send_now(&self, message: Message) {
        if let Err(TrySendError::Full(message)) = self.queue.try_send(message) {
            let later = self.clone();
            tokio::spawn(async move { later.send_soon(message).await });
        }
    }

    /// Sends one message unless the command has stopped reading: for what the supervisor itself must not wait for.
    pub async fn send_soon(&self, message: Message) {
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), self.send(message)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_pieces_keep_every_byte() {
        for data in [&b"text\n"[..], b"\xff\x00\xfe", b""] {
            let piece = LogPiece::new(true, 7, data.to_vec());
            let line = serde_json::to_string(&piece).unwrap();
            let back: LogPiece = serde_json::from_str(&line).unwrap();
            assert_eq!(back.bytes(), data);
            assert!(back.is_stderr());
        }
        assert!(serde_json::to_string(&LogPiece::new(false, 0, b"plain".to_vec())).unwrap().contains("\"plain\""));
    }
}
