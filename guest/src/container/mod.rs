//! How a program gets into the workload's place: own namespaces, own root, fewer rights.
//!
//! The agent starts its own binary again as a *helper* ([`helper::run`]), gives it [`Orders`] and reads [`Report`]s. The
//! helper makes the namespaces ([`place`]), forks, gives up rights ([`rights`]) and becomes the program; its other half
//! waits and exits with the program's status. Where the place wants an init, what forked is that ([`first`]), and forks the program.

mod exec_failure;
mod first;
pub mod helper;
mod own;
mod place;
pub mod rights;
mod terminal;
mod users;

use std::path::PathBuf;

use coffer_spec::{Mount, Network, Rights, Sysctl};
use rustix::process::WaitStatus;
use serde::{Deserialize, Serialize};

use crate::{passwd::Identity, sys::process_id::ProcessId};

/// What a helper shall start, and where. Travels as JSON in a memory file; what of the environment is secret stands behind it
/// ([`crate::secret_env::SecretEnv`]), never in it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Orders {
    /// Where.
    pub place: Place,
    /// What.
    pub program: Program,
    /// Folder of the control group it lives in, if there is one.
    pub control_group: Option<PathBuf>,
    /// Whose user ids and capabilities it has.
    pub users: Users,
}

/// Whose user ids and capabilities a program of the workload has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Users {
    /// Those of the machine, which is the workload's alone.
    Machine,
    /// Those of a user namespace of the workload's own. Its capabilities hold there and nowhere else: not over init, not
    /// over the namespaces the workload was put into.
    Own,
}

/// Where a program runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// In namespaces of its own.
    New {
        /// Becomes `/`.
        root: PathBuf,
        /// Appears read-only as `/run/secrets`.
        secrets: PathBuf,
        /// Appears as `/run/coffer`.
        agent: PathBuf,
        /// Host name.
        hostname: String,
        /// And its domain.
        domainname: Option<String>,
        /// Nothing in the root is written by the workload.
        read_only: bool,
        /// Size limit of `/dev/shm` in bytes.
        shm_bytes: u64,
        /// Settings of the kernel.
        sysctls: Vec<Sysctl>,
        /// Memory that appears as folders.
        tmpfs: Vec<Mount>,
        /// What else appears.
        volumes: Vec<Bind>,
        /// Whom it asks for names, and what names it knows; without a card nobody, and its own.
        network: Option<Box<Network>>,
    },
    /// Beside the workload, in its namespaces.
    Beside {
        /// The workload's process, as the agent sees it.
        workload: ProcessId,
    },
}

/// A file or folder that appears elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Where it is, as the agent sees it.
    pub from: PathBuf,
    /// Where it appears in the workload's root.
    pub to: String,
    /// Nothing is written through it.
    pub read_only: bool,
}

/// What runs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Program {
    /// Arguments; the first is looked up in PATH unless it has a slash.
    pub argv: Vec<String>,
    /// NAME=value, nothing secret; later ones win.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// Runs as.
    pub identity: Identity,
    /// What it may do less, or have more of, than any program of a box.
    pub rights: Rights,
    /// It gets a terminal of this size, and nothing of the standard streams it was started with: its standard input must be a
    /// socket, over which the terminal's other end comes before the program runs.
    pub terminal: Option<TerminalSize>,
    /// Something else is the first program of the place, and waits for those whose parents went.
    pub init: bool,
    /// What runs in place of `argv`.
    pub own: Option<Own>,
}

/// A program of the agent's own in the workload's place. It has the rights of one of the workload's, and no file is executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Own {
    /// Writes what is at a path to standard output.
    ReadFiles {
        /// Absolute.
        path: Vec<u8>,
        /// Where it is a link, what it leads to.
        follow: bool,
    },
    /// Makes what comes on standard input.
    WriteFiles {
        /// Absolute.
        to: Vec<u8>,
        /// Its name there.
        name: Vec<u8>,
        /// What is in it goes there, not the folder.
        contents: bool,
        /// Users and groups are kept.
        owners: bool,
    },
    /// Writes the programs that run to standard output.
    ListPrograms,
    /// Writes the workload's root to standard output, without what is mounted in it: a tar stream.
    ReadRoot,
    /// Writes what the root has that its image has not.
    ReadChanges {
        /// As a layer of an image, not only its names.
        contents: bool,
    },
}

/// Size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in each.
    pub columns: u16,
}

impl From<TerminalSize> for rustix::termios::Winsize {
    fn from(TerminalSize { rows, columns }: TerminalSize) -> Self {
        Self { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
    }
}

/// One line of JSON from the helper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The program's process exists; it may still fail to become the program.
    Forked {
        /// As the agent sees it.
        pid: i32,
    },
    /// It did not become the program.
    Failed {
        /// Whose fault it is.
        cause: Cause,
        /// What was being done.
        what: String,
        /// The kernel's error number, 0 if none.
        errno: i32,
    },
}

/// Why a program did not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// We failed.
    Ours,
    /// The image has no place for what the spec puts there.
    Place,
    /// The kernel does not set a limit that the spec asks for.
    Limit,
    /// The kernel does not take a setting that the spec asks for.
    Setting,
    /// The program is not there.
    NotFound,
    /// The program is there; what its first line or its ELF header says shall run it is not.
    Interpreter,
    /// The program is there, but cannot be executed.
    NotExecutable,
}

impl Cause {
    /// Docker's exit status for it.
    pub const fn status(self) -> i32 {
        match self {
            Self::Ours | Self::Place | Self::Limit | Self::Setting => STATUS_OURS,
            Self::NotExecutable => 126,
            Self::NotFound | Self::Interpreter => 127,
        }
    }
}

/// Docker's exit status for a failure of ours.
pub const STATUS_OURS: i32 = 125;

/// 0 to 255, or 128 plus the number of the signal that ended it.
pub fn exit_status(status: WaitStatus) -> i32 {
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(STATUS_OURS)
}
