//! Commands to a supervisor: one line per connection to `control.sock` in the box folder.
//!
//! `stop <seconds>` asks the guest to end and kills it after the grace; `kill` ends it now. The folder is 0700: whoever can
//! open the socket may do both.

use std::path::Path;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixListener;
use tokio::sync::mpsc;

use crate::boxes::files;
use crate::hybrid::connect_socket;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// End in good order; seconds until the end is forced.
    Stop(u32),
    /// End now.
    Kill,
}

impl Command {
    fn parse(line: &str) -> Option<Self> {
        match line.trim().split_once(' ') {
            Some(("stop", seconds)) => seconds.parse().ok().map(Self::Stop),
            None if line.trim() == "kill" => Some(Self::Kill),
            _ => None,
        }
    }

    fn line(self) -> String {
        match self {
            Self::Stop(seconds) => format!("stop {seconds}\n"),
            Self::Kill => "kill\n".into(),
        }
    }
}

/// Takes commands until nobody listens any more.
pub async fn serve(listener: UnixListener, commands: mpsc::Sender<Command>) {
    while let Ok((line, _)) = listener.accept().await {
        let commands = commands.clone();
        tokio::spawn(async move {
            let mut text = String::new();
            if BufReader::new(line.take(64)).read_line(&mut text).await.is_ok()
                && let Some(command) = Command::parse(&text)
            {
                let _ = commands.send(command).await;
            }
        });
    }
}

/// Sends a command to the supervisor of a box.
///
/// # Errors
/// If no supervisor listens.
pub async fn send(folder: &Path, command: Command) -> std::io::Result<()> {
    let mut line = connect_socket(folder, files::CONTROL)?;
    line.write_all(command.line().as_bytes()).await?;
    line.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn commands_arrive_and_noise_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (commands, mut received) = mpsc::channel(4);
        tokio::spawn(serve(crate::hybrid::bind_socket(dir.path(), files::CONTROL).unwrap(), commands));
        for line in ["", "stop", "stop x\n", "stop -1\n", "die\n"] {
            assert_eq!(Command::parse(line), None, "{line}");
        }
        send(dir.path(), Command::Stop(7)).await.unwrap();
        assert_eq!(received.recv().await, Some(Command::Stop(7)));
        send(dir.path(), Command::Kill).await.unwrap();
        assert_eq!(received.recv().await, Some(Command::Kill));
    }
}
