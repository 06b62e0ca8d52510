//! A folder that goes with us, however we end: when it is dropped, and when a signal ends us. Who is killed leaves it.

use std::path::Path;
use std::process;
use std::sync::mpsc;
use std::{fs, io, thread};

use tempfile::TempDir;

use crate::signals::{Manner, coming};

/// Has this folder go with us.
///
/// # Errors
/// The kernel's, if a signal cannot be waited for.
pub fn with_us(folder: TempDir) -> io::Result<TempDir> {
    let (sender, waits) = mpsc::channel();
    let path = folder.path().to_owned();
    thread::Builder::new().name("signals".into()).spawn(move || leave(&path, &sender))?;
    waits.recv().map_err(|_| io::ErrorKind::BrokenPipe)??;
    Ok(folder)
}

/// Waits for a signal that ends us; says first whether it can.
fn leave(folder: &Path, waits: &mpsc::Sender<io::Result<()>>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(waits.send(Err(error))),
    };
    runtime.block_on(async {
        let mut signals = match coming(Manner::EXEC.proxied(false), false) {
            Ok(signals) => signals,
            Err(error) => return drop(waits.send(Err(error))),
        };
        let _ = waits.send(Ok(()));
        if let Some(number) = signals.recv().await {
            // It may be written to right now, by us and by programs of ours.
            while fs::remove_dir_all(folder).is_err_and(|error| error.kind() == io::ErrorKind::DirectoryNotEmpty) {}
            process::exit(128 + number);
        }
    });
}
