//! Logs: to standard error, one line each, without a byte that a terminal would obey.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;

use crate::foreign::escape;

/// Starts logging. `COFFER_LOG` or `RUST_LOG` says what is logged; without them `default`, such as `warn`.
pub fn init(default: &str) {
    let filter = ["COFFER_LOG", "RUST_LOG"].iter().find_map(|name| std::env::var(name).ok());
    let filter = EnvFilter::new(filter.unwrap_or_else(|| default.into()));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(|| Escaped(io::stderr())).init();
}

/// Escapes what passes through it, but for the ends of lines.
///
/// Each log event is one write, and its line ends with the event.
struct Escaped<W>(W);

impl<W: Write> Write for Escaped<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let (text, end) = match text.strip_suffix('\n') {
            Some(line) => (line, "\n"),
            None => (&*text, ""),
        };
        self.0.write_all(format!("{}{end}", escape(text, |_| false)).as_bytes())?;
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
    fn a_logged_line_stays_one_harmless_line() {
        let mut out = Vec::new();
        Escaped(&mut out).write_all(b"WARN a\nb \x1b[2J\xff\n").unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "WARN a\\nb \\u{1b}[2J\u{fffd}\n");
    }
}
