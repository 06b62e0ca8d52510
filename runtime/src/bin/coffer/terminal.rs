//! The terminal we were started from.
//!
//! Never: leaves it raw. What was set is set back when [`Raw`] is dropped, and it is dropped before anything of ours is printed;
//! of the signals that end a program only SIGKILL passes that by.

pub mod detach_keys;

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::sync::Arc;

use coffer_runtime::engine::TerminalSize;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::Notify;

/// Whether somebody types at us.
pub fn is_there() -> bool {
    io::stdin().is_terminal()
}

/// Whether somebody sees what we write.
pub fn shows() -> bool {
    io::stdout().is_terminal()
}

/// Its size: of what is shown on, else of what is typed at.
pub fn size() -> TerminalSize {
    let size = tcgetwinsize(stdout()).or_else(|_| tcgetwinsize(stdin()));
    size.map_or_else(|_| TerminalSize::default(), |size| TerminalSize { rows: size.ws_row, columns: size.ws_col })
}

/// A terminal that hands on every key as it is, until this is dropped.
#[derive(Debug)]
pub struct Raw(Termios);

impl Raw {
    /// Takes the terminal behind standard input.
    ///
    /// # Errors
    /// The kernel's, if there is none.
    pub fn take() -> io::Result<Self> {
        let before = tcgetattr(stdin())?;
        make_raw(&before)?;
        Ok(Self(before))
    }

    /// Once more, after a stop, in which whoever else had it set it back.
    pub fn again(&self) {
        let _ = make_raw(&self.0);
    }
}

fn make_raw(before: &Termios) -> io::Result<()> {
    let mut raw = before.clone();
    raw.make_raw();
    Ok(tcsetattr(stdin(), OptionalActions::Now, &raw)?)
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &self.0);
    }
}

/// A line that is typed and not shown, up to 64 KiB.
///
/// # Errors
/// The kernel's, if there is no terminal.
pub fn hidden_line(prompt: &str) -> io::Result<String> {
    let before = tcgetattr(stdin())?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    print!("{prompt}");
    io::stdout().flush()?;
    tcsetattr(stdin(), OptionalActions::Flush, &hidden)?;
    let _restore = Raw(before);
    let mut line = String::new();
    io::stdin().lock().take(64 << 10).read_line(&mut line)?;
    println!();
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// Comes when nobody reads our standard output any more, also if we write nothing.
pub fn reader_gone() -> Arc<Notify> {
    let gone = Arc::new(Notify::new());
    let tell = gone.clone();
    std::thread::spawn(move || {
        let stdout = stdout();
        loop {
            let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
            match poll(&mut polled, None) {
                Ok(_) if polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) => break,
                Err(rustix::io::Errno::INTR) => {}
                // Whoever looks after its writes will see it there.
                Ok(_) | Err(_) => return,
            }
        }
        tell.notify_one();
    });
    gone
}
