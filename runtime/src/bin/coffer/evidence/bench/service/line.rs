//! One connection to the service that speaks HTTP/1.1, and as much of it as the load needs.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A connection that stays for as long as the service keeps it, and then another.
pub struct Line {
    to: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
    awake: bool,
}

impl Line {
    pub fn connect(to: SocketAddr) -> io::Result<Self> {
        Ok(Self { to, stream: Some(open(to)?), awake: false })
    }

    /// One that never sleeps while it waits. On loopback whoever answers pays for waking whoever asked, a processor away, which
    /// over a network nobody does.
    pub fn awake(self) -> Self {
        Self { awake: true, ..self }
    }

    /// Sends a whole request, and gives status and body.
    pub fn ask(&mut self, request: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        self.send(request)?;
        self.answer()
    }

    /// Sends a whole request.
    pub fn send(&mut self, request: &[u8]) -> io::Result<()> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => open(self.to)?,
        };
        self.stream.insert(stream).get_mut().write_all(request)
    }

    /// Status and body of the answer to what was sent.
    pub fn answer(&mut self) -> io::Result<(u16, Vec<u8>)> {
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "no answer in HTTP");
        let mut stream = self.stream.take().ok_or_else(bad)?;
        while self.awake && stream.buffer().is_empty() {
            let mut readable = [PollFd::new(stream.get_ref(), PollFlags::IN)];
            if poll(&mut readable, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0 {
                break;
            }
        }
        let (mut status, mut length, mut stays) = (None, None, true);
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if status.is_none() {
                status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
            }
            let Some((name, value)) = line.split_once(':') else { continue };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok();
            } else if name.eq_ignore_ascii_case("connection") {
                stays = !value.trim().eq_ignore_ascii_case("close");
            }
        }
        let mut body = vec![0; length.ok_or_else(bad)?];
        stream.read_exact(&mut body)?;
        self.stream = Some(stream).filter(|_| stays);
        Ok((status.ok_or_else(bad)?, body))
    }
}

fn open(to: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

/// `POST` there with this body.
pub fn post(key: &str, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json");
    format!("{head}\r\nAuthorization: Bearer {key}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}
