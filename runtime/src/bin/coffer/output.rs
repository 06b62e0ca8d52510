//! What a workload writes, on its way to whoever called: as it is, to the stream it was written to; with `--json` as one
//! document, an object with the pieces under `output` and what is known at the end behind them.
//!
//! Never: escapes anything as text. It is the workload's own, for whoever asked for it.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use coffer_rim::out;
use coffer_runtime::supervisor::message::LogPiece;
use serde_json::{Map, Value};

use crate::context::Context;
use crate::error::CliError;
use crate::table;

/// Clones show into one document.
#[derive(Clone, Debug)]
pub struct Output(Arc<Shown>);

#[derive(Debug)]
struct Shown {
    json: bool,
    /// What is known at the beginning.
    head: Map<String, Value>,
    count: Mutex<usize>,
    /// What stands first, and alone, where it is words of ours in the box.
    refusal: Mutex<Option<String>>,
}

impl Output {
    /// `head`: an object of what is known at the beginning.
    pub fn new(context: &Context, head: &Value) -> Self {
        let head = head.as_object().cloned().unwrap_or_default();
        Self(Arc::new(Shown { json: context.json, head, count: Mutex::default(), refusal: Mutex::default() }))
    }

    /// Shows a piece. False once nobody reads any more.
    pub fn show(&self, piece: &LogPiece) -> bool {
        if self.0.json { self.piece(piece) } else { self.raw(piece.is_stderr(), &piece.bytes()) }
    }

    /// The same of bytes that come without the time they were written at.
    pub fn show_bytes(&self, stderr: bool, bytes: Vec<u8>) -> bool {
        let words = if stderr && self.is_empty() { refusal(&bytes) } else { None };
        *self.0.refusal.lock().unwrap_or_else(PoisonError::into_inner) = words;
        if self.0.json { self.piece(&LogPiece::new(stderr, now(), bytes)) } else { self.raw(stderr, &bytes) }
    }

    fn piece(&self, piece: &LogPiece) -> bool {
        let mut count = self.0.count.lock().unwrap_or_else(PoisonError::into_inner);
        let before = if *count == 0 { opening(&self.0.head) } else { ",".to_owned() };
        print!("{before}{}", told(piece));
        *count += 1;
        !out::is_closed()
    }

    fn raw(&self, stderr: bool, bytes: &[u8]) -> bool {
        let mut count = self.0.count.lock().unwrap_or_else(PoisonError::into_inner);
        if stderr {
            let _ = std::io::stderr().write_all(bytes);
        } else {
            out::write_bytes(bytes);
        }
        *count += 1;
        !out::is_closed()
    }

    /// Why no program ran, where all that was shown are the words of a box that says so.
    pub fn refusal(&self) -> Option<String> {
        self.0.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It is one JSON document.
    pub fn is_json(&self) -> bool {
        self.0.json
    }

    /// Nothing was shown.
    pub fn is_empty(&self) -> bool {
        *self.0.count.lock().unwrap_or_else(PoisonError::into_inner) == 0
    }

    /// The end: an object of what is known now and the exit code, or why it came to none.
    ///
    /// # Errors
    /// The failure, if its caller is to say it: it is no part of a document that was begun.
    pub fn end(self, context: &Context, ended: Result<(Value, ExitCode), CliError>) -> Result<ExitCode, CliError> {
        if !self.0.json {
            return ended.map(|(_, code)| code);
        }
        let began = !self.is_empty();
        let (tail, code) = match ended {
            Ok((tail, code)) => (tail, code),
            Err(failure) if began => (failure.json(), context.exit(&failure)),
            Err(failure) => return Err(failure),
        };
        let before = if began { String::new() } else { opening(&self.0.head) };
        println!("{before}{}", closing(&tail));
        Ok(code)
    }
}

/// Unix nanoseconds.
fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A piece as in the box's log, but for the time: no number of nanoseconds survives a reader that has floating point alone.
fn told(piece: &LogPiece) -> Value {
    let mut value = serde_json::json!(piece);
    value["time"] = table::rfc3339_nanos(piece.time).into();
    value
}

/// A line that says why nothing runs.
fn refusal(bytes: &[u8]) -> Option<String> {
    let words = std::str::from_utf8(bytes).ok()?.strip_prefix("coffer: ")?.strip_suffix('\n')?;
    Some(words.to_owned()).filter(|words| !words.contains('\n'))
}

/// Up to the first piece.
fn opening(head: &Map<String, Value>) -> String {
    let fields = head.iter().map(|(name, value)| format!("{}:{value},", Value::from(name.as_str())));
    format!("{{{}\"output\":[", fields.collect::<String>())
}

/// Behind the last.
fn closing(tail: &Value) -> String {
    let fields = tail.as_object().into_iter().flatten();
    let fields = fields.map(|(name, value)| format!(",{}:{value}", Value::from(name.as_str())));
    format!("]{}}}", fields.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn beginning_pieces_and_end_are_one_document() {
        let head = json!({ "id": "a", "na\"me": "b" });
        let pieces = [LogPiece::new(false, 1, b"one\n".to_vec()), LogPiece::new(true, 2, vec![0xff])];
        for count in 0..=2 {
            let list: Vec<_> = pieces[..count].iter().map(|piece| told(piece).to_string()).collect();
            let text = opening(head.as_object().unwrap()) + &list.join(",") + &closing(&json!({ "exit_code": 3 }));
            let mut wanted = head.clone();
            (wanted["output"], wanted["exit_code"]) = (pieces[..count].iter().map(told).collect(), json!(3));
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), wanted, "{text}");
        }
        assert_eq!(
            told(&pieces[0]),
            json!({ "stream": "stdout", "time": "1970-01-01T00:00:00.000000001Z", "log": "one\n" })
        );
        assert_eq!(told(&pieces[1])["base64"], "/w==");
        let output = Output::new(&Context::new(true, None, crate::exits::Exits::Docker), &Value::Null);
        for (bytes, why) in [(&b"coffer: no such program\n"[..], Some("no such program")), (b"more\n", None)] {
            output.show_bytes(true, bytes.to_vec());
            assert_eq!(output.refusal().as_deref(), why);
        }
        assert_eq!(opening(&Map::new()) + &closing(&Value::Null), "{\"output\":[]}");
    }
}
