//! Everything known of a box.

use std::path::PathBuf;

use coffer_spec::Document;

use super::{Engine, Fault, Hint, OpenError};
use crate::health::Health;
use crate::id_block::{IdFacts, SignedLaunch};
use crate::publish::Publish;
use crate::published;
use crate::spec_file::own_spec;
use crate::state::BoxRecord;
use crate::{Class, Failure};

/// Everything known of a box.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Its record.
    pub record: BoxRecord,
    /// Its workload spec, if that can be read.
    pub document: Option<Document>,
    /// What was signed for its launch.
    pub id_block: Option<IdFacts>,
    /// Ports of the host that lead into it while it runs.
    pub ports: Option<Vec<Publish>>,
    /// Its health, while it runs and is looked at.
    pub health: Option<Health>,
    /// Where its files are.
    pub folder: PathBuf,
}

/// Why the ports of a box are not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortsError {
    /// The installation does not open, or has no such box.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The note of them.
    #[error(transparent)]
    File(#[from] Failure),
}

impl Fault for PortsError {
    fn class(&self) -> Class {
        match self {
            Self::Open(error) => error.class(),
            Self::File(failure) => failure.class(),
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Open(error) => error.hint(),
            Self::File(failure) => Fault::hint(failure),
        }
    }
}

impl Engine {
    /// Which ports of the host lead into a running box; of one that does not run, none.
    ///
    /// # Errors
    /// [`PortsError`].
    pub fn ports(&self, word: &str) -> Result<Vec<Publish>, PortsError> {
        let record = self.find(word)?;
        self.ports_of(&record)
    }

    /// As [`Self::ports`], of a record.
    ///
    /// # Errors
    /// The note of them is not readable.
    pub fn ports_of(&self, record: &BoxRecord) -> Result<Vec<Publish>, PortsError> {
        if !record.state.is_up() || record.options.publish.is_empty() {
            return Ok(Vec::new());
        }
        Ok(published::listening(&self.home().map_err(OpenError::from)?.box_folder(&record.id))?)
    }

    /// Looks at one box.
    ///
    /// # Errors
    /// [`OpenError`] if there is none of that name.
    pub fn inspect(&self, word: &str) -> Result<Inspection, OpenError> {
        let record = self.find_even_removed(word)?;
        let folder = self.home()?.box_folder(&record.id);
        let ports = self.ports_of(&record).ok();
        let document = own_spec(&folder, &record.options).ok();
        let id_block = SignedLaunch::of_box(&folder, &record.options).ok().flatten().map(|signed| signed.facts());
        let health = self.health(&record);
        Ok(Inspection { record, document, id_block, ports, health, folder })
    }
}
