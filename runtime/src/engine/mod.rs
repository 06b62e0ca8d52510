//! What can be done with boxes: the operations that a command line, a CRI, a compose file or an SDK call.
//!
//! Takes typed requests, gives typed answers. What lasts is a stream that the caller reads at its own pace ([`Live`],
//! [`LogStream`], [`ExecSession`], [`Events`]); what only takes a while says how far it is ([`Progress`]). Each operation has
//! an error of its own, and every error has a class and a hint ([`Fault`]).
//! Trusts: the operator's files under the home. Believes of a guest only what it proved, where that matters.
//! Never: prints, reads the environment or the command line, ends the process.

mod fault;
mod hint;
mod progress;

mod create;
mod describe;
mod held_inside;
mod identity;
mod kept;
pub mod measure;
mod named;
mod networks;
mod places;
mod volumes;

mod attach;
mod kill;
mod pause;
mod restart;
mod resume;
mod start;
mod stdin_room;
mod stop;
mod wait;

mod elsewhere;
mod exec;
mod files;
mod guest;
mod inject;
mod join;
mod log_file;
mod logs;
mod owners;
mod owners_told;
mod prove;
mod refresh;
mod seal;
mod usage;
mod window;

mod events;
mod inspect;
mod leftovers;
mod list;
mod prune;
mod remove;
mod rename;
mod room;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use coffer_spec::Document;

use crate::boxes::unix_ms;
use crate::endpoint::AddressError;
use crate::home::{Home, HomeError};
use crate::spec_file::own_spec;
use crate::state::{BoxRecord, State, StateError};
use crate::tools::Search;
use crate::{Class, Failure};

pub use crate::launch::check_hardware;
pub use crate::spec_file::read_spec;
pub use attach::{Happening, Live, LiveError, RUNNING, Wait};
pub use create::{CreateError, CreateRequest};
pub use describe::{BoxRequest, DescribeError, Described, Pull, Workload};
pub use elsewhere::ElsewhereError;
pub use events::Events;
pub use exec::{ExecError, ExecInput, ExecInputs, ExecOutput, ExecRequest, ExecSession, TerminalSize};
pub use fault::Fault;
pub use files::WriteFiles;
pub use guest::Guest;
pub use held_inside::HeldInsideError;
pub use hint::Hint;
pub use identity::{LaunchIdentity, UncheckedIdBlock};
pub use inject::{InjectError, InjectRequest, VALUE_LIMIT};
pub use inspect::Inspection;
pub use join::{AttachRequest, Shown};
pub use kept::{KeptError, Listed, PrunedVolumes};
pub use kill::KillError;
pub use list::{Filter, Port};
pub use logs::{LogStream, LogsError, LogsRequest};
pub use measure::{ManifestRequest, MeasureError, MeasureRequest, Measured};
pub use named::NamedFilter;
pub use networks::{ListedNetwork, NetworkRequest, NetworksError, Placed};
pub use owners_told::OwnersTold;
pub use pause::PauseError;
pub use places::{Asked, PlaceError};
pub use progress::{Progress, ProgressFn};
pub use prove::{Attestation, OwnerMayNot, ProveError, Trust};
pub use prune::Pruned;
pub use refresh::{RefreshError, Refreshed};
pub use remove::RemoveError;
pub use rename::RenameError;
pub use restart::RestartError;
pub use resume::UpdateError;
pub use seal::{SealAs, SealCounter, SealError, Sealed, Unsealed};
pub use start::{StartError, Started};
pub use stop::{How, StopError};
pub use usage::{Meter, Usage};
pub use volumes::VolumeError;
pub use window::Window;

/// Where an engine works and what it works with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The home's folder; made when it is first needed.
    pub home: PathBuf,
    /// Where programs and platform files are looked for.
    pub search: Search,
    /// Docker's configuration file, for credentials of registries.
    pub docker_config: Option<PathBuf>,
    /// The executable that supervises a box when called as `exe --home HOME supervise ID`.
    pub supervisor: PathBuf,
}

/// One installation, opened once. Cheap to clone; clones share what is open.
#[derive(Clone, Debug)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    home: OnceLock<Home>,
    state: OnceLock<Mutex<State>>,
}

/// Why an installation does not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Its folder.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Its database.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its trail.
    #[error("cannot read what was done here")]
    Trail(#[source] std::io::Error),
    /// No address of a guest elsewhere.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A guest elsewhere is no box here.
    #[error("{0} is a guest elsewhere: its own host alone does that")]
    Elsewhere(String),
}

impl OpenError {
    /// There is no such box.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::State(StateError::Unknown(_)))
    }
}

impl Fault for OpenError {
    fn class(&self) -> Class {
        match self {
            Self::Home(error) => Fault::class(error),
            Self::State(error) => error.class(),
            Self::Trail(_) => Class::Config,
            Self::Address(_) | Self::Elsewhere(_) => Class::Usage,
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Home(error) => Fault::hint(error),
            Self::State(error) => Fault::hint(error),
            Self::Trail(_) | Self::Address(_) => None,
            Self::Elsewhere(_) => Some(Hint::NameBox),
        }
    }
}

impl Engine {
    /// An engine that has touched nothing yet: home and database open with the first operation that needs them.
    pub fn new(settings: Settings) -> Self {
        Self { inner: Arc::new(Inner { settings, home: OnceLock::new(), state: OnceLock::new() }) }
    }

    /// What it works with.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// The home, made if it is not there.
    ///
    /// # Errors
    /// [`HomeError`].
    pub fn home(&self) -> Result<&Home, HomeError> {
        if let Some(home) = self.inner.home.get() {
            return Ok(home);
        }
        let home = Home::open(&self.inner.settings.home)?;
        Ok(self.inner.home.get_or_init(|| home))
    }

    /// Home and database, with the records of supervisors that died mended.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self) -> Result<(), OpenError> {
        self.state().map(drop)
    }

    /// The database. The guard must not be held while anything is waited for.
    fn state(&self) -> Result<MutexGuard<'_, State>, OpenError> {
        let home = self.home()?;
        let state = if let Some(state) = self.inner.state.get() {
            state
        } else {
            let state = State::open(home)?;
            state.reconcile(home, unix_ms())?;
            self.inner.state.get_or_init(|| Mutex::new(state))
        };
        Ok(state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The box of this name, id or unique beginning of an id.
    ///
    /// # Errors
    /// [`OpenError::State`] if there is none, or more than one.
    pub fn find(&self, word: &str) -> Result<BoxRecord, OpenError> {
        is_here(word)?;
        Ok(self.state()?.find(word)?)
    }

    /// [`Self::find`], or a box that `--rm` took because it did not come to run its workload.
    fn find_even_removed(&self, word: &str) -> Result<BoxRecord, OpenError> {
        is_here(word)?;
        Ok(self.state()?.find_even_removed(word)?)
    }

    /// The workload spec a box was created with.
    ///
    /// # Errors
    /// As [`own_spec`].
    pub fn document(&self, record: &BoxRecord) -> Result<Document, Failure> {
        let home = self.home().map_err(|error| Failure::caused(Class::Config, &error))?;
        own_spec(&home.box_folder(&record.id), &record.options)
    }
}

/// No address of a guest elsewhere.
fn is_here(word: &str) -> Result<(), OpenError> {
    if Guest::is_elsewhere(word) { Err(OpenError::Elsewhere(word.to_owned())) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
