//! A guest platform's folder, and what is said of one that cannot be used.

use std::path::Path;

use coffer_platform::files::{Installed, Platform, PlatformError};
use coffer_rim::{Class, Failure};

/// A box boots from the folder it was made for, whatever is named today.
const OTHER_PLATFORM: &str =
    "the box was made for the guest platform in that folder: put it back there, or remove the box and create it again";

/// Loads a platform folder.
///
/// # Errors
/// Class `config` with the remedy.
pub fn load_platform(folder: &Path) -> Result<Platform, Failure> {
    Platform::load(folder).map_err(|error| of_platform(&error))
}

/// Opens a platform folder, whose files are checked when they are read.
///
/// # Errors
/// Class `config` with the remedy.
pub fn open_platform(folder: &Path) -> Result<Installed, Failure> {
    Installed::open(folder).map_err(|error| of_platform(&error))
}

/// Class `config` with the remedy.
pub fn of_platform(error: &PlatformError) -> Failure {
    Failure::caused(Class::Config, error).hint(error.hint())
}

/// The same of the folder that a box was made for.
pub fn of_boxs_platform(error: &PlatformError) -> Failure {
    of_platform(error).hint(OTHER_PLATFORM)
}
