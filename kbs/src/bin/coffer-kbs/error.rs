//! What failed, with its class and a hint.

use coffer_kbs::{
    ArchiveError, BackupError, CheckpointError, ConfigError, ReloadError, RowsError, ServerError, StateError,
    StoreError,
};
use coffer_rim::{Class, Failure};

/// The library's errors as this program says them.
pub trait Said {
    /// Class, words and hint.
    fn said(&self) -> Failure;
}

impl Said for StateError {
    fn said(&self) -> Failure {
        let class = match self {
            Self::Mistakes(error) => return error.said(),
            Self::Store(error) => class_of(error),
            _ => Class::Config,
        };
        hinted(Failure::caused(class, self), self.hint())
    }
}

impl Said for StoreError {
    fn said(&self) -> Failure {
        hinted(Failure::caused(class_of(self), self), self.hint())
    }
}

impl Said for BackupError {
    fn said(&self) -> Failure {
        match self {
            Self::State(error) => error.said(),
            Self::Damaged(faults) => {
                let failure = Failure::new(Class::NotAuthentic, "the state is damaged");
                hinted(failure.mistakes(faults), self.hint())
            }
            Self::OtherRootKey { .. } => hinted(Failure::caused(Class::NotAuthentic, self), self.hint()),
            _ => hinted(Failure::caused(Class::Config, self), self.hint()),
        }
    }
}

impl Said for ArchiveError {
    fn said(&self) -> Failure {
        let class = match self {
            Self::State(error) => return error.said(),
            Self::File { .. } | Self::Nothing { .. } | Self::Overtaken | Self::Twice { .. } => Class::Config,
            _ => Class::NotAuthentic,
        };
        hinted(Failure::caused(class, self), self.hint())
    }
}

impl Said for ConfigError {
    fn said(&self) -> Failure {
        let failure = match self.mistakes() {
            [] => Failure::caused(Class::Config, self),
            all => Failure::of_mistakes(Class::Config, "configuration", all),
        };
        hinted(failure, self.hint())
    }
}

impl Said for ServerError {
    fn said(&self) -> Failure {
        match self {
            Self::State(error) => error.said(),
            Self::Bind { .. } | Self::Tenant(_) => hinted(Failure::caused(Class::Config, self), self.hint()),
            _ => hinted(Failure::caused(Class::Internal, self), self.hint()),
        }
    }
}

impl Said for ReloadError {
    fn said(&self) -> Failure {
        match self {
            Self::Store(error) => error.said(),
            _ => hinted(Failure::caused(Class::Config, self), self.hint()),
        }
    }
}

fn class_of(error: &StoreError) -> Class {
    match error {
        StoreError::Audit(_)
        | StoreError::State(_)
        | StoreError::Tampered { .. }
        | StoreError::Rows(RowsError::Schema { .. })
        | StoreError::Checkpoint(
            CheckpointError::Behind { .. } | CheckpointError::Earlier { .. } | CheckpointError::Beside { .. },
        ) => Class::NotAuthentic,
        _ => Class::Config,
    }
}

/// A full disk has a hint of its own, which names nothing that this program has not.
fn hinted(failure: Failure, hint: &str) -> Failure {
    if failure.hint.is_some() { failure.hint(DISK_FULL) } else { failure.hint(hint) }
}

const DISK_FULL: &str = "the file system is full: free space, or name a place on another one";

/// `?` for them.
pub trait OrFail<T> {
    /// The value, or the failure as it is said.
    fn or_fail(self) -> Result<T, Failure>;
}

impl<T, E: Said> OrFail<T> for Result<T, E> {
    fn or_fail(self) -> Result<T, Failure> {
        self.map_err(|error| error.said())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_names_no_command_of_another_program() {
        let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let failure = ArchiveError::File { path: "trail.jsonl".into(), source }.said();
        assert_eq!(failure.hint.as_deref(), Some(DISK_FULL));
    }

    #[test]
    fn what_somebody_added_to_the_database_is_not_ours() {
        let error = StoreError::Rows(RowsError::Schema { what: "view v".into() });
        assert_eq!(error.said().class, Class::NotAuthentic);
    }
}
