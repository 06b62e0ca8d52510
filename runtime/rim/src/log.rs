//! Logs: to standard error, one line each, without a byte that a terminal would obey.

use std::borrow::Cow;
use std::io::{self, Write};

use tracing_subscriber::EnvFilter;

use crate::foreign::escape;

/// Starts logging. `COFFER_LOG` or `RUST_LOG` says what is logged; without them `default`, such as `warn`.
pub fn init(default: &str) {
    let filter = ["COFFER_LOG", "RUST_LOG"].iter().find_map(|name| std::env::var(name).ok());
    let filter = EnvFilter::new(filter.unwrap_or_else(|| default.into()));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(|| Escaped(io::stderr())).init();
}

/// Starts logging of a service: what it does itself, and of the libraries that strangers speak to their failures alone. Each connection
/// could make them warn.
pub fn init_service() {
    init(SERVICE);
}

const SERVICE: &str = "info,h2=error,hyper=error,hyper_util=error,rustls=error,tower_http=error";

/// Escapes what passes through it, but for the ends of lines.
///
/// Each log event is one write, and its line ends with the event.
struct Escaped<W>(W);

impl<W: Write> Write for Escaped<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let escaped = |text: &str| {
            let (text, end) = text.strip_suffix('\n').map_or((text, ""), |line| (line, "\n"));
            match escape(text, |_| false) {
                Cow::Borrowed(_) => None,
                Cow::Owned(escaped) => Some(escaped + end),
            }
        };
        match String::from_utf8_lossy(bytes) {
            // Nearly every line is what it is.
            Cow::Borrowed(text) => self.0.write_all(escaped(text).as_deref().unwrap_or(text).as_bytes())?,
            Cow::Owned(text) => self.0.write_all(escaped(&text).unwrap_or(text).as_bytes())?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_logs_what_it_does_and_not_what_strangers_make_its_libraries_say() {
        EnvFilter::try_new(SERVICE).unwrap();
        let said: Vec<_> = SERVICE.split(',').collect();
        assert_eq!(said[0], "info");
        for library in ["h2=error", "hyper=error", "rustls=error"] {
            assert!(said.contains(&library), "{library}");
        }
    }

    #[test]
    fn a_logged_line_stays_one_harmless_line() {
        let mut out = Vec::new();
        Escaped(&mut out).write_all(b"WARN a\nb \x1b[2J\xff\n").unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "WARN a\\nb \\u{1b}[2J\u{fffd}\n");
        for (said, logged) in [
            (&b"INFO plain\n"[..], "INFO plain\n"),
            (b"no end", "no end"),
            ("INFO gr\u{fc}n \u{202e}\n".as_bytes(), "INFO gr\u{fc}n \\u{202e}\n"),
            (b"cut \xf0\x90\x80\n", "cut \u{fffd}\n"),
        ] {
            let mut out = Vec::new();
            Escaped(&mut out).write_all(said).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), logged);
        }
    }
}
