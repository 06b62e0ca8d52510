//! The line by which a supervisor notices that the command it serves is gone, even by `kill -9`.
//!
//! The command holds the writing end of a pipe that is the supervisor's standard input. One byte `D` lets the box live on
//! without the command; an end without it stops the box.

use std::os::fd::OwnedFd;

use rustix::io::fcntl_dupfd_cloexec;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

/// Written to let go of a box.
pub const DETACH: u8 = b'D';

/// How the line ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The box lives on.
    Detached,
    /// The command is gone.
    Lost,
}

/// Waits for the end of the line on our standard input; without a pipe there is nobody to lose.
pub async fn watch_stdin() -> End {
    match fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3) {
        Ok(copy) => watch(copy).await,
        Err(_) => End::Detached,
    }
}

/// Waits for the end of the line.
pub async fn watch(line: OwnedFd) -> End {
    let Ok(mut line) = pipe::Receiver::from_owned_fd(line) else { return End::Detached };
    loop {
        match line.read_u8().await {
            Ok(DETACH) => return End::Detached,
            Ok(_) => {}
            Err(_) => return End::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_line_is_a_lost_command_and_a_d_is_not() {
        let (reading, writing) = rustix::pipe::pipe().unwrap();
        drop(writing);
        assert_eq!(watch(reading).await, End::Lost);

        let (reading, writing) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&writing, b"xD").unwrap();
        drop(writing);
        assert_eq!(watch(reading).await, End::Detached);
    }

    #[tokio::test]
    async fn without_a_pipe_there_is_nobody_to_lose() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(watch(file.into()).await, End::Detached);
    }
}
