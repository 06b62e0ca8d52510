//! A verifier that is an endpoint: one request and one connection per case; the status line is all that counts.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use super::asked::{Answer, Asked, Prepared};
use coffer_rim::{Class, Failure};

/// Bytes of an answer that are read.
const MAX_ANSWER: u64 = 64 << 10;
/// Characters of it that are kept.
const MAX_OUTPUT: usize = 8 << 10;

/// Posts the record.
pub(super) fn ask(url: &str, prepared: &Prepared, timeout: Duration) -> Result<Asked, Failure> {
    let started = Instant::now();
    let unreachable = |error: std::io::Error| Failure::caused(Class::Unreachable, &error).while_doing(url);
    let rest = url.strip_prefix("http://").ok_or_else(|| {
        Failure::new(Class::Usage, format!("{url:?} is not an http:// URL")).hint("put a proxy in front, or use --cmd")
    })?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let address = address.to_socket_addrs().map_err(unreachable)?.next();
    let address = address.ok_or_else(|| Failure::new(Class::Unreachable, format!("{host} has no address")))?;
    let mut line = TcpStream::connect_timeout(&address, timeout).map_err(unreachable)?;
    line.set_write_timeout(Some(timeout)).map_err(unreachable)?;
    let head = format!(
        "POST /{path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/cmw+cbor\r\ncoffer-report-data: {}\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        prepared.report_data,
        prepared.record.len()
    );
    line.write_all(head.as_bytes()).map_err(unreachable)?;
    line.write_all(&prepared.record).map_err(unreachable)?;
    let Some(answer) = read(&mut line, started + timeout).map_err(unreachable)? else {
        return Ok(Asked { answer: Answer::TimedOut, output: String::new(), took: started.elapsed() });
    };
    let text = String::from_utf8_lossy(&answer);
    let status = text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
    let verdict = match status {
        Some(200..=299) => Answer::Accepted,
        Some(400 | 401 | 403 | 409 | 422) => Answer::NotAccepted,
        Some(code @ 100..=599_u16) => {
            return Err(Failure::new(Class::Unreachable, format!("{url} answered {code}, which is no verdict")));
        }
        _ => return Err(Failure::new(Class::Unreachable, format!("{url} did not answer in HTTP"))),
    };
    Ok(Asked { answer: verdict, output: text.chars().take(MAX_OUTPUT).collect(), took: started.elapsed() })
}

/// What comes until the peer is done; `None` where time is up before.
fn read(line: &mut TcpStream, end: Instant) -> std::io::Result<Option<Vec<u8>>> {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while (answer.len() as u64) < MAX_ANSWER {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        line.set_read_timeout(Some(left))?;
        match line.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) => match error.kind() {
                std::io::ErrorKind::Interrupted => {}
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => return Ok(None),
                // An answer that came whole before the peer hung up is one.
                std::io::ErrorKind::ConnectionReset if !answer.is_empty() => break,
                _ => return Err(error),
            },
        }
    }
    Ok(Some(answer))
}
