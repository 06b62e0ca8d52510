//! One connection to the service that speaks HTTP/1.1, and as much of it as the load needs.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

/// A connection that stays.
pub struct Line(BufReader<TcpStream>);

impl Line {
    pub fn connect(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a whole request, and gives status and body.
    pub fn ask(&mut self, request: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        self.0.get_mut().write_all(request)?;
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "no answer in HTTP");
        let (mut status, mut length) = (None, None);
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line)?;
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if status.is_none() {
                status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().ok();
            }
        }
        let mut body = vec![0; length.ok_or_else(bad)?];
        self.0.read_exact(&mut body)?;
        Ok((status.ok_or_else(bad)?, body))
    }
}

/// `POST /v1/appraise` with this body.
pub fn appraise(key: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = "POST /v1/appraise HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json";
    format!("{head}\r\nAuthorization: Bearer {key}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}
