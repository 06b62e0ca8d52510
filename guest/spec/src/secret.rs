//! A secret of the key broker that a spec wants: from where, to where, and what follows when there is a new version of it.

use serde::{Deserialize, Serialize};

use crate::{FileMode, Name, SecretPath};

/// One secret the guest fetches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretWanted {
    /// Where it lies at the broker.
    pub from: SecretPath,
    /// Permissions of the file.
    #[serde(default, skip_serializing_if = "FileMode::is_usual")]
    pub mode: FileMode,
    /// User whose file it is; the workload's own where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group whose file it is; the workload's own where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Where it goes.
    pub to: SecretTarget,
    /// What follows when the file was replaced by a new version; nothing where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<OnChange>,
}

impl SecretWanted {
    /// To this place, in the usual way.
    pub fn new(from: SecretPath, to: SecretTarget) -> Self {
        Self { from, mode: FileMode::default(), uid: None, gid: None, to, changed: None }
    }
}

/// Where a secret goes inside the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum SecretTarget {
    /// `/run/secrets/NAME`.
    File(Name),
    /// Environment variable of the workload. It keeps the version that was there at the start.
    Env(Name),
}

/// What follows a new version of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum OnChange {
    /// This signal to the workload's first process.
    Signal(i32),
    /// This program beside the workload, with its user, folder and environment.
    Command(Vec<String>),
}
