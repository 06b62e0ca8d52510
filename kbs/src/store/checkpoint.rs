//! The last state head, kept outside the database, so that a whole older database is noticed.
//!
//! Written after each commit: before a change of state is acknowledged, and at most a second after a line that changes
//! nothing but the audit trail. When a store is opened its history must lead through the checkpoint: a database ahead of
//! it is fine (the process died in between), one behind or beside it is not served.
//! Where it lies is a [`CheckpointKeeper`]: a file now; a TPM, another broker or a witness is another file here.
//! Trusts: the root key. Believes a checkpoint only under its MAC.
//! Never: lowers a checkpoint by itself; [`Store::accept_rollback`](super::Store::accept_rollback) is a person's decision.

mod file;
mod memory;
mod noted;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use coffer_verifier::binding::length_prefixed;
use tokio::sync::Mutex;

pub use file::FileCheckpoint;
pub use memory::MemoryCheckpoint;
pub use noted::NotedCheckpoint;

use super::{head::Head, record::Fields};
use crate::{
    keys::{RootKey, RowKind},
    owner::NOT_MINE,
};

/// Why a checkpoint does not let a database be served, or was not kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Not read or written.
    #[error("checkpoint {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is none, although this database had one.
    #[error("the checkpoint {place} is missing")]
    Missing {
        /// Where it should be.
        place: String,
    },
    /// Nothing there carries this broker's MAC.
    #[error("the checkpoint {place} was not written by this broker")]
    Foreign {
        /// Where.
        place: String,
    },
    /// Something else lies there.
    #[error("{place} is there, and is no checkpoint")]
    Another {
        /// Where.
        place: String,
    },
    /// The database is older than the checkpoint.
    #[error("the database is older than its checkpoint: it ends with {found}, the checkpoint with {seen}")]
    Behind {
        /// Where the database ends.
        found: Position,
        /// What was seen of it.
        seen: Position,
    },
    /// The checkpoint is of an earlier epoch.
    #[error("the checkpoint is older than the database: it ends with {seen}, the database with {found}")]
    Earlier {
        /// Where the database ends.
        found: Position,
        /// What was seen of it.
        seen: Position,
    },
    /// The database has another history than the one the checkpoint stands in.
    #[error("the database has another history than its checkpoint: it ends with {found}, the checkpoint with {seen}")]
    Beside {
        /// Where the database ends.
        found: Position,
        /// What was seen of it.
        seen: Position,
    },
}

impl CheckpointError {
    /// The same, for somebody else.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::File { path, source } => {
                Self::File { path: path.clone(), source: io::Error::new(source.kind(), source.to_string()) }
            }
            Self::Missing { place } => Self::Missing { place: place.clone() },
            Self::Foreign { place } => Self::Foreign { place: place.clone() },
            Self::Another { place } => Self::Another { place: place.clone() },
            Self::Behind { found, seen } => Self::Behind { found: *found, seen: *seen },
            Self::Earlier { found, seen } => Self::Earlier { found: *found, seen: *seen },
            Self::Beside { found, seen } => Self::Beside { found: *found, seen: *seen },
        }
    }

    /// What the operator can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => NOT_MINE,
            Self::File { .. } => {
                "check free space and permissions where the checkpoint lies; nothing is changed without it"
            }
            Self::Foreign { .. } => {
                "put back the root.key that belongs to this database, if another lies there; or the checkpoint; or accept the state by name: `coffer-kbs restore --state DIR --accept-rollback`"
            }
            Self::Missing { .. } => {
                "put the checkpoint back, or accept the state by name: `coffer-kbs restore --state DIR --accept-rollback`"
            }
            Self::Another { .. } => {
                "name another place as `checkpoint` in config.toml; a checkpoint that is damaged is moved away first, and then the state accepted by name"
            }
            Self::Earlier { .. } => {
                "put back the checkpoint that was written last, or accept the state by name: `coffer-kbs restore --state DIR --accept-rollback`"
            }
            Self::Behind { .. } | Self::Beside { .. } => {
                "put the newer database back, or accept the older state by name: `coffer-kbs restore --state DIR --accept-rollback`"
            }
        }
    }
}

/// A place in the broker's history, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Epoch.
    pub epoch: u64,
    /// Lines of the audit trail.
    pub lines: u64,
    /// Changes of rows that decide something.
    pub changes: u64,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { epoch, lines, changes } = self;
        write!(f, "line {lines} and change {changes} of epoch {epoch}")
    }
}

/// Keeps the newest checkpoint.
#[tonic::async_trait]
pub trait CheckpointKeeper: Send + Sync {
    /// What it holds, newest or not, believed by nobody; nothing: it was never begun.
    async fn kept(&self) -> Result<Option<Vec<Vec<u8>>>, CheckpointError>;
    /// Begins to keep. Something that is there stays and is an error, unless `replace`.
    async fn begin(&self, checkpoint: &[u8], replace: bool) -> Result<(), CheckpointError>;
    /// Keeps a newer one; it lasts when this returns. If it fails the older one is still there. A keeper that outlives the
    /// process holds the last two: while the root key changes they are of two keys.
    async fn keep(&self, checkpoint: &[u8]) -> Result<(), CheckpointError>;
    /// Whether one could be begun or moved there now; asked before something is changed that cannot be taken back.
    async fn ready(&self) -> Result<(), CheckpointError> {
        Ok(())
    }
    /// Where, for people.
    fn place(&self) -> String;
}

/// Who notices a whole older database.
#[derive(Clone)]
pub enum Witness {
    /// This checkpoint.
    Kept(Arc<dyn CheckpointKeeper>),
    /// Nobody: for rows in memory, and to look at a copy that came without its checkpoint.
    OlderDatabaseIsNotNoticed,
}

/// A head as it is kept, whole: a database that lost its own can have it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checkpoint(pub(super) Head);

impl From<&Head> for Checkpoint {
    fn from(head: &Head) -> Self {
        Self(*head)
    }
}

impl Checkpoint {
    pub(super) fn position(&self) -> Position {
        Position { epoch: self.0.epoch, lines: self.0.lines, changes: self.0.changes }
    }

    fn to_bytes(self, root: &RootKey) -> Vec<u8> {
        let body = self.0.to_body();
        let mac = root.mac(RowKind::Checkpoint, &[&body]);
        length_prefixed(&[&body, &mac])
    }

    fn from_bytes(root: &RootKey, bytes: &[u8]) -> Option<Self> {
        let mut outer = Fields(bytes);
        let (body, mac) = (outer.bytes()?, outer.bytes()?);
        root.check_mac(RowKind::Checkpoint, &[body], mac).ok()?;
        Head::from_body(body).map(Self)
    }

    /// The newest that is believed.
    pub(super) async fn newest(keeper: &dyn CheckpointKeeper, root: &RootKey) -> Result<Option<Self>, CheckpointError> {
        let Some(kept) = keeper.kept().await? else { return Ok(None) };
        let believed = kept.iter().filter_map(|bytes| Self::from_bytes(root, bytes));
        let newest = believed.max_by_key(|one| (one.0.epoch, one.0.lines, one.0.changes));
        newest.ok_or_else(|| CheckpointError::Foreign { place: keeper.place() }).map(Some)
    }

    /// Refuses a head that ends before this one. Whether its history leads through here is asked on the way there.
    pub(super) fn is_reached_by(&self, head: &Head) -> Result<(), CheckpointError> {
        let found = Checkpoint::from(head).position();
        let seen = self.position();
        // An epoch begins where a state is accepted by name, and its checkpoint is written with that.
        if found.epoch > seen.epoch {
            return Err(CheckpointError::Earlier { found, seen });
        }
        if (found.epoch, found.lines) < (seen.epoch, seen.lines) || found.changes < seen.changes {
            return Err(CheckpointError::Behind { found, seen });
        }
        let other = found.epoch != seen.epoch
            || found.lines == seen.lines && head.line_hash != self.0.line_hash
            || found.changes == seen.changes && head.state_hash != self.0.state_hash
            || seen.changes < head.base;
        if other { Err(CheckpointError::Beside { found, seen }) } else { Ok(()) }
    }
}

/// Moves the checkpoint after commits.
pub(super) struct Follower {
    witness: Witness,
    /// The last write failed: nothing more is committed before one succeeds.
    failed: Arc<AtomicBool>,
    state: Arc<Mutex<Following>>,
}

struct Following {
    /// A head that is committed and not yet kept.
    pending: Option<Vec<u8>>,
    written: Option<Instant>,
    /// Somebody will come for what is pending.
    awaited: bool,
    failed: Arc<AtomicBool>,
}

impl Follower {
    pub(super) fn new(witness: Witness) -> Self {
        let failed = Arc::new(AtomicBool::new(false));
        let following = Following { pending: None, written: None, awaited: false, failed: failed.clone() };
        Self { witness, failed, state: Arc::new(Mutex::new(following)) }
    }

    /// Whether the last write failed. Waits for none.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    pub(super) fn witness(&self) -> &Witness {
        &self.witness
    }

    /// Before a commit: nothing goes on while the checkpoint cannot be moved.
    pub(super) async fn ready(&self) -> Result<(), CheckpointError> {
        let Witness::Kept(keeper) = &self.witness else { return Ok(()) };
        let mut state = self.state.lock().await;
        if self.has_failed() { state.write(&**keeper).await } else { Ok(()) }
    }

    /// After a commit. `at_once`: what was changed is acknowledged only when the checkpoint has moved.
    pub(super) async fn moved(&self, root: &RootKey, head: &Head, at_once: bool) -> Result<(), CheckpointError> {
        let Witness::Kept(keeper) = &self.witness else { return Ok(()) };
        let mut state = self.state.lock().await;
        state.pending = Some(Checkpoint::from(head).to_bytes(root));
        if at_once || state.written.is_none_or(|written| written.elapsed() >= LAG) {
            return state.write(&**keeper).await;
        }
        if !state.awaited {
            state.awaited = true;
            let (later, keeper) = (self.state.clone(), keeper.clone());
            tokio::spawn(async move {
                tokio::time::sleep(LAG).await;
                let mut state = later.lock().await;
                state.awaited = false;
                if let Err(error) = state.write(&*keeper).await {
                    tracing::error!(error = %coffer_rim::chain(&error), hint = error.hint(), "checkpoint was not moved");
                }
            });
        }
        Ok(())
    }

    /// Writes what waits.
    pub(super) async fn settle(&self) -> Result<(), CheckpointError> {
        match &self.witness {
            Witness::Kept(keeper) => self.state.lock().await.write(&**keeper).await,
            Witness::OlderDatabaseIsNotNoticed => Ok(()),
        }
    }

    /// Keeps the head under the key so far, and the one that is about to be committed under a new key.
    pub(super) async fn keep_both(
        &self,
        old: (&RootKey, &Head),
        new: (&RootKey, &Head),
    ) -> Result<(), CheckpointError> {
        self.keep(old.0, old.1).await?;
        self.keep(new.0, new.1).await
    }

    /// Keeps this head, whatever waits.
    pub(super) async fn keep(&self, root: &RootKey, head: &Head) -> Result<(), CheckpointError> {
        let Witness::Kept(keeper) = &self.witness else { return Ok(()) };
        let mut state = self.state.lock().await;
        state.pending = Some(Checkpoint::from(head).to_bytes(root));
        state.write(&**keeper).await
    }

    /// Begins to keep this head.
    pub(super) async fn begin(&self, root: &RootKey, head: &Head, replace: bool) -> Result<(), CheckpointError> {
        match &self.witness {
            Witness::Kept(keeper) => keeper.begin(&Checkpoint::from(head).to_bytes(root), replace).await,
            Witness::OlderDatabaseIsNotNoticed => Ok(()),
        }
    }
}

impl Following {
    async fn write(&mut self, keeper: &dyn CheckpointKeeper) -> Result<(), CheckpointError> {
        let Some(bytes) = &self.pending else { return Ok(()) };
        let kept = keeper.keep(bytes).await;
        self.failed.store(kept.is_err(), Ordering::Relaxed);
        if kept.is_ok() {
            (self.pending, self.written) = (None, Some(Instant::now()));
        }
        kept
    }
}

/// How far the checkpoint may lag behind lines that change no state.
const LAG: Duration = Duration::from_secs(1);
