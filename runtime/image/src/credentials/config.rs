//! Docker's configuration file, as far as it says which programs keep logins.

use crate::error::{ImageError, Result};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// The document. No error has a word of it.
pub(super) fn parsed(file: &Path, bytes: &[u8]) -> Result<Map<String, Value>> {
    serde_json::from_slice(bytes).map_err(|at| {
        let reason = format!("not a Docker configuration (line {}, column {})", at.line(), at.column());
        ImageError::Credentials { path: file.to_owned(), reason }
    })
}

/// The helpers of single registries, by the name that the file has for each.
pub(super) fn helpers(config: &Map<String, Value>) -> BTreeMap<String, String> {
    let own = config.get("credHelpers").and_then(Value::as_object).into_iter().flatten();
    own.filter_map(|(name, helper)| Some((name.clone(), named(helper)?))).collect()
}

/// The helper of all others.
pub(super) fn every_helper(config: &Map<String, Value>) -> Option<String> {
    named(config.get("credsStore")?)
}

fn named(helper: &Value) -> Option<String> {
    helper.as_str().filter(|name| !name.is_empty()).map(str::to_owned)
}
