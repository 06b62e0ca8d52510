//! A connection to a program of the workload, whose end is one where it is the program's own.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::Ending;

/// A connection to the workload.
pub struct WorkloadStream {
    stream: TcpStream,
    ending: Ending,
}

impl WorkloadStream {
    /// Over this stream.
    pub fn new(stream: TcpStream, ending: Ending) -> Self {
        Self { stream, ending }
    }

    /// The connection itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Ends it by a reset, which no program takes for an end.
    pub fn break_off(self) {
        let _ = self.stream.set_zero_linger();
    }
}

impl AsyncRead for WorkloadStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.remaining();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let is_end = before > 0 && buf.remaining() == before;
        Poll::Ready(if is_end && !self.ending.is_own() { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) })
    }
}

impl AsyncWrite for WorkloadStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn an_end_of_who_was_told_to_end_is_a_break_and_what_was_said_before_comes() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let said = async |ending: &Ending| {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let mut near = WorkloadStream::new(stream, ending.clone());
            let (mut workload, _) = listener.accept().await.unwrap();
            workload.write_all(b"half").await.unwrap();
            drop(workload);
            let mut all = Vec::new();
            let end = near.read_to_end(&mut all).await;
            assert_eq!(all, b"half");
            end.map(drop).map_err(|error| error.kind())
        };
        let ending = Ending::default();
        assert_eq!(said(&ending).await, Ok(()));
        ending.is_told();
        assert_eq!(said(&ending).await, Err(io::ErrorKind::ConnectionReset));
    }
}
