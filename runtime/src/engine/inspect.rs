//! Everything known of a box.

use std::path::PathBuf;

use coffer_spec::Document;

use super::{Engine, OpenError};
use crate::id_block::{IdFacts, SignedLaunch};
use crate::spec_file::own_spec;
use crate::state::BoxRecord;

/// Everything known of a box.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Its record.
    pub record: BoxRecord,
    /// Its workload spec, if that can be read.
    pub document: Option<Document>,
    /// What was signed for its launch.
    pub id_block: Option<IdFacts>,
    /// Where its files are.
    pub folder: PathBuf,
}

impl Engine {
    /// Looks at one box.
    ///
    /// # Errors
    /// [`OpenError`] if there is none of that name.
    pub fn inspect(&self, word: &str) -> Result<Inspection, OpenError> {
        let record = self.find_even_removed(word)?;
        let folder = self.home()?.box_folder(&record.id);
        let document = own_spec(&folder, &record.options).ok();
        let id_block = SignedLaunch::of_box(&folder, &record.options).ok().flatten().map(|signed| signed.facts());
        Ok(Inspection { record, document, id_block, folder })
    }
}
