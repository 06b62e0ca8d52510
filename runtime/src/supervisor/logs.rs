//! The workload's output on its way from the guest to the box's log file and to the command that is attached.

use std::path::Path;

use coffer_guest_proto::{LogsRequest, Stream};

use super::message::{Dropped, LogPiece, Message, Reporter};
use crate::agent;
use crate::bounded::BoundedLog;
use crate::boxes::{LogLimits, files};

/// Follows the output to its end.
pub async fn follow(folder: &Path, limits: LogLimits, reporter: Reporter) {
    if let Err(error) = try_follow(folder, limits, &reporter).await {
        tracing::warn!(error, "the workload's output is no longer read");
    }
}

async fn try_follow(folder: &Path, limits: LogLimits, reporter: &Reporter) -> Result<(), String> {
    let path = folder.join(files::LOG);
    let mut dropped = Dropped::noted_near_the_beginning(&path);
    let mut file = BoundedLog::open_parts(&path, limits.max_bytes, limits.files).map_err(|e| e.to_string())?;
    let mut control = agent::control(folder).await.map_err(|e| e.to_string())?;
    let request = LogsRequest { follow: true, from_sequence: 0 };
    let mut pieces = control.logs(request).await.map_err(|e| e.to_string())?.into_inner();
    let mut full = false;
    while let Some(piece) = pieces.message().await.map_err(|e| e.to_string())? {
        let piece = LogPiece::new(piece.stream == i32::from(Stream::Stderr), piece.unix_nanos, piece.data);
        let mut line = serde_json::to_vec(&piece).unwrap_or_default();
        line.push(b'\n');
        match file.write(&line) {
            Ok(gone) => {
                full = false;
                if gone > 0 {
                    dropped.dropped += gone;
                    let _ = file.write(&dropped.line());
                }
            }
            // A full disk must not stop the workload; said once, until it goes again.
            Err(error) if !full => {
                tracing::warn!(%error, "output is not stored");
                full = true;
            }
            Err(_) => {}
        }
        reporter.send(Message::Log(piece)).await;
    }
    Ok(())
}
