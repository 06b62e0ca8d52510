//! What is typed of things that have names and labels: volumes, networks. Pure.

use coffer_runtime::engine::NamedFilter;
use coffer_spec::Name;

use crate::boxes::filters;
use crate::error::{Class, CliError};

/// A name as it is typed: what is none is the name of no `what`.
pub fn name(what: &str, text: &str) -> Result<Name, CliError> {
    let no_name = |error| CliError::new(Class::Usage, format!("invalid {what} name {text:?}: {error}"));
    text.parse().map_err(no_name)
}

/// Filters, of those that `keys` say; `driver`: the one there is.
pub fn filter(texts: &[String], keys: &str, driver: &str) -> Result<NamedFilter, CliError> {
    let mut filter = NamedFilter::default();
    for text in texts {
        let invalid =
            || CliError::new(Class::Usage, format!("invalid filter '{text}'")).hint(format!("filters are {keys}"));
        match text.split_once('=').ok_or_else(invalid)? {
            (key, value) if value.is_empty() || !keys.contains(&format!("{key}=")) => return Err(invalid()),
            ("name", value) => filter.names.push(value.into()),
            ("label", value) => filter.labels.push(filters::label(value)),
            ("dangling", "true" | "1") => filter.dangling = Some(true),
            ("dangling", "false" | "0") => filter.dangling = Some(false),
            ("driver", value) if value == driver => {}
            _ => return Err(invalid()),
        }
    }
    Ok(filter)
}
