//! Variables of a program, as `-e` and `--env-file` set them: a name alone takes what it has here.

use std::path::PathBuf;

use coffer_rim::input;

use crate::error::{Class, CliError, NamedFile as _};

/// Variables as `--env-file` and `-e` set them, in this order.
///
/// # Errors
/// Class `usage` for one without a name, `config` for a file.
pub fn environment(files: &[PathBuf], entries: &[String]) -> Result<Vec<String>, CliError> {
    let mut all = Vec::new();
    for path in files {
        let text = input::read_text(path, input::DOCUMENT).named(format!("cannot read {}", path.display()))?;
        let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
        all.extend(lines.filter_map(from_ours));
    }
    all.extend(entries.iter().filter_map(|entry| from_ours(entry)));
    with_names(all)
}

fn with_names(all: Vec<String>) -> Result<Vec<String>, CliError> {
    match all.iter().find(|entry| entry.starts_with('=')) {
        Some(bad) => Err(CliError::new(Class::Usage, format!("invalid environment variable: {bad}"))),
        None => Ok(all),
    }
}

fn from_ours(entry: &str) -> Option<String> {
    if entry.contains('=') {
        return Some(entry.to_string());
    }
    std::env::var(entry).ok().map(|value| format!("{entry}={value}"))
}
