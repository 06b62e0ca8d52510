//! Why what came out of a box goes nowhere, in the words of a command line.

use coffer_rim::carry::UnpackError;

use crate::error::{Class, CliError};

/// What came out of a box and goes nowhere.
pub fn of_unpacking(error: &UnpackError) -> CliError {
    let class = if error.is_absent() { Class::NotFound } else { Class::Config };
    let failure = CliError::caused(class, error);
    match error {
        UnpackError::TooMuch { what: "bytes", .. } => failure.hint("--limit takes more; what was made before stays"),
        UnpackError::TooMuch { .. } => failure.hint("copy it as a tar stream made in the box, or folder by folder"),
        _ => failure,
    }
}
