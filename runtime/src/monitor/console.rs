//! The serial line of a guest on its way into the box's console file, and the phases stage0 announces on it.
//!
//! Trusts: nothing that comes over the line. Only its first bytes can be stage0's, and only fixed words count.

use std::path::Path;

use coffer_machine::console;
use tokio::sync::mpsc;

use crate::bounded::BoundedLog;
use crate::boxes::files;

/// A console keeps this much, twice.
const LIMIT: u64 = 512 << 10;

/// Where a monitor puts what the serial line says.
#[derive(Debug)]
pub struct Console {
    file: Option<BoundedLog>,
    stage0: Stage0Phases,
    corrupt: Corrupt,
    reached: mpsc::UnboundedSender<&'static str>,
}

impl Console {
    /// The console of the box in `folder`; `reached` gets the phases stage0 announces. Without room for the file, the guest
    /// runs all the same.
    pub fn open(folder: &Path, reached: mpsc::UnboundedSender<&'static str>) -> Self {
        let file = BoundedLog::open(&folder.join(files::CONSOLE), LIMIT);
        let file = file.inspect_err(|error| tracing::warn!(%error, "the console is not kept")).ok();
        Self { file, stage0: Stage0Phases::default(), corrupt: Corrupt::default(), reached }
    }

    /// Takes the next bytes of the line.
    pub fn take(&mut self, bytes: &[u8]) {
        if let Some(file) = &mut self.file {
            // A full disk loses words, and must not stop the guest.
            let _ = file.write(bytes);
        }
        let reached = &self.reached;
        self.stage0.read(bytes, |phase| {
            let _ = reached.send(phase);
        });
        if self.corrupt.read(bytes) {
            let _ = reached.send(BLOCK_CORRUPT);
        }
    }
}

/// The word for a guest that ended itself because a block of a disk is not the one that was measured.
pub const BLOCK_CORRUPT: &str = "block-corrupt";

/// What its kernel says last, in TEE mode. Source: Linux drivers/md/dm-verity-target.c, `verity_handle_err`.
const PANIC: &[u8] = b"Kernel panic - not syncing: dm-verity device corrupted";

/// More than stands in front of it on its line: the kernel's time, and who of it speaks.
const LEAD: usize = 48;

/// Finds that, as the kernel says it: at the beginning of a line, in whatever pieces, once. What init says, in which names of the
/// workload's may stand, begins otherwise.
#[derive(Debug, Default)]
struct Corrupt {
    end: Vec<u8>,
    /// Something came before.
    cut: bool,
    found: bool,
}

impl Corrupt {
    /// True where it has just been said.
    fn read(&mut self, bytes: &[u8]) -> bool {
        if self.found {
            return false;
        }
        self.end.extend_from_slice(bytes);
        let mut found = self.end.windows(PANIC.len()).enumerate().filter(|(_, window)| *window == PANIC);
        self.found = found.any(|(at, _)| self.begins_a_line(&self.end[..at]));
        let beyond = self.end.len().saturating_sub(PANIC.len() + LEAD);
        self.cut |= self.end.drain(..beyond).count() > 0;
        self.found
    }

    fn begins_a_line(&self, before: &[u8]) -> bool {
        let line = match before.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => &before[at + 1..],
            None if self.cut => return false,
            None => before,
        };
        let of_stamp = |byte: &u8| byte.is_ascii_digit() || b"[]. TC".contains(byte);
        line.is_empty() || line.starts_with(b"[") && line.ends_with(b"] ") && line.iter().all(of_stamp)
    }
}

/// Phase words for the lines stage0 writes, in their order.
const STAGE0_LINES: [(&str, &str); 2] = [(console::START, "stage0-started"), (console::CHECKED, "kernel-checked")];

/// Finds stage0's lines at the start of a console, each once.
#[derive(Debug, Default)]
struct Stage0Phases {
    start: Vec<u8>,
    found: usize,
}

impl Stage0Phases {
    fn read(&mut self, bytes: &[u8], mut reached: impl FnMut(&'static str)) {
        let room = console::LIMIT.saturating_sub(self.start.len());
        self.start.extend_from_slice(&bytes[..bytes.len().min(room)]);
        while let Some((line, phase)) = STAGE0_LINES.get(self.found)
            && self.start.windows(line.len()).any(|window| window == line.as_bytes())
        {
            self.found += 1;
            reached(phase);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_met_a_changed_block_is_heard_in_pieces_and_once() {
        let mut corrupt = Corrupt::default();
        let said = [b"device-mapper: verity: 254:0: data block 7 is corrupted\n[  3.1] ", PANIC, b"\n"].concat();
        let heard = said.chunks(7).filter(|piece| corrupt.read(piece)).count();
        assert_eq!((heard, corrupt.read(&said)), (1, false));
        assert!(!Corrupt::default().read(b"Kernel panic - not syncing: Attempted to kill init!"));
        // As init would say it of a program of that name.
        let named = [b"coffer: failed workload-not-found start ", PANIC, b"\n"].concat();
        for length in [1, 7, 500] {
            let mut corrupt = Corrupt::default();
            assert!(!named.repeat(3).chunks(length).any(|piece| corrupt.read(piece)), "{length}");
            assert!([b"x\n[    3.123456][    T1] ", PANIC].concat().chunks(length).any(|piece| corrupt.read(piece)));
        }
    }

    #[test]
    fn stage0_is_read_in_pieces_once_and_only_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let (reached, mut phases) = mpsc::unbounded_channel();
        let mut line = Console::open(dir.path(), reached);
        let said = format!("{}\n{}, copy=1\n{0}\n", console::START, console::CHECKED);
        for piece in said.as_bytes().chunks(10) {
            line.take(piece);
        }
        let mut found = Vec::new();
        while let Ok(phase) = phases.try_recv() {
            found.push(phase);
        }
        assert_eq!(found, ["stage0-started", "kernel-checked"]);
        let kept = std::fs::read_to_string(dir.path().join(files::CONSOLE)).unwrap();
        assert_eq!(kept, said);

        let mut late = Stage0Phases::default();
        late.read(&[b'x'; console::LIMIT], |_| panic!("nothing was said"));
        late.read(console::START.as_bytes(), |_| panic!("a guest's later output is not stage0's"));
    }
}
