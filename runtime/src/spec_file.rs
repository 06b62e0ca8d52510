//! Workload specs in files: one that somebody names, and the one in a box's folder.
//!
//! Never: takes another spec for a box than the one it was created with. A guest that runs another proves another workload, and
//! whoever asks here what the box is would be told that all is well.

use std::path::Path;

use coffer_rim::{Class, Failure, input};
use coffer_spec::Document;

use crate::boxes::{BoxOptions, files};

/// Reads a spec document.
///
/// # Errors
/// Class `config`, naming the file.
pub fn read_spec(path: &Path) -> Result<Document, Failure> {
    let failed = |error: &(dyn std::error::Error + 'static), what: String| {
        Failure::caused(Class::Config, error).while_doing(what)
    };
    let bytes = input::read(path, input::DOCUMENT)
        .map_err(|error| failed(&error, format!("cannot read {}", path.display())))?;
    Document::parse(bytes).map_err(|error| failed(&error, path.display().to_string()))
}

/// The spec in a box's folder, which must be the one that the box was created with.
///
/// # Errors
/// Class `config` if it cannot be read or is none, `not-authentic` if it is another.
pub fn own_spec(folder: &Path, options: &BoxOptions) -> Result<Document, Failure> {
    let path = folder.join(files::SPEC);
    let document = read_spec(&path)?;
    let (found, expected) = (document.digest().to_string(), &options.workload_digest);
    if found == *expected {
        return Ok(document);
    }
    let message = format!(
        "{} is not the spec that the box was created with: workload digest {found}, expected {expected}",
        path.display()
    );
    Err(Failure::new(Class::NotAuthentic, message).hint("find out who changed it; remove the box and create it again"))
}
