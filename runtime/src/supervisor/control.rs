//! Commands to a supervisor: one line per connection to `control.sock` in the box folder.
//!
//! `stop <seconds>` asks the guest to end and kills it after the grace; `kill` ends it now. The folder is 0700: whoever can
//! open the socket may do both.

use std::path::Path;
use std::time::Duration;

use coffer_rim::{Class, Failure};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::boxes::files;
use crate::lock::BoxLock;
use crate::socket::connect_socket;

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
    while !commands.is_closed() {
        let Ok((line, _)) = listener.accept().await else {
            // Out of descriptors, say: the box must stay within reach.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
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

/// Ends a box and waits until it has ended. One that is just being started or already ending is waited for as well; one
/// that does not run has ended.
///
/// # Errors
/// Class `internal` if its supervisor does not bring it about in time.
pub async fn end(folder: &Path, command: Command) -> Result<(), Failure> {
    let patience = match command {
        Command::Stop(grace) => Duration::from_secs(u64::from(grace) + 30),
        Command::Kill => Duration::from_secs(30),
    };
    let late = Instant::now() + patience;
    let mut sent = false;
    while BoxLock::is_held(folder) {
        // Before the supervisor listens, and once it has stopped listening, there is a lock and no socket.
        sent = sent || send(folder, command).await.is_ok();
        if Instant::now() >= late {
            let why = if sent { "did not end" } else { "takes no commands" };
            return Err(Failure::new(Class::Internal, format!("the box {why} within {} s", patience.as_secs())));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn commands_arrive_and_noise_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (commands, mut received) = mpsc::channel(4);
        tokio::spawn(serve(crate::socket::bind_socket(dir.path(), files::CONTROL).unwrap(), commands));
        for line in ["", "stop", "stop x\n", "stop -1\n", "die\n"] {
            assert_eq!(Command::parse(line), None, "{line}");
        }
        send(dir.path(), Command::Stop(7)).await.unwrap();
        assert_eq!(received.recv().await, Some(Command::Stop(7)));
        send(dir.path(), Command::Kill).await.unwrap();
        assert_eq!(received.recv().await, Some(Command::Kill));
    }

    #[tokio::test]
    async fn a_stop_waits_for_a_supervisor_that_does_not_listen_yet_or_no_longer() {
        let dir = tempfile::tempdir().unwrap();
        end(dir.path(), Command::Stop(1)).await.unwrap();

        let lock = BoxLock::take(dir.path()).unwrap();
        let folder = dir.path().to_path_buf();
        let starting = tokio::spawn(async move { end(&folder, Command::Stop(1)).await });
        tokio::time::sleep(Duration::from_millis(30)).await;
        let (commands, mut received) = mpsc::channel(4);
        tokio::spawn(serve(crate::socket::bind_socket(dir.path(), files::CONTROL).unwrap(), commands));
        assert_eq!(received.recv().await, Some(Command::Stop(1)));
        std::fs::remove_file(dir.path().join(files::CONTROL)).unwrap();
        let folder = dir.path().to_path_buf();
        let ending = tokio::spawn(async move { end(&folder, Command::Stop(1)).await });
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(received.try_recv().is_err(), "asked once");
        drop(lock);
        starting.await.unwrap().unwrap();
        ending.await.unwrap().unwrap();
    }
}
