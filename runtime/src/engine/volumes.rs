//! Snapshots of host files and folders that a box gets, and their match with the volumes of a spec.

use coffer_image::{ImageError, Snapshot, SnapshotKind, Store, layer::Limits};
use coffer_spec::{Volume, VolumeKind, WorkloadSpec};

use super::{Fault, Hint};
use crate::Class;
use crate::binds::{Bind, DataMount};
use crate::images::verity;

/// Why snapshots and a spec do not go together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// More than the machine model has room for.
    #[error("{found} binds and volumes, and a box has room for {most}", most = Volume::MOST)]
    TooMany {
        /// How many were asked for.
        found: usize,
    },
    /// A snapshot cannot be taken.
    #[error(transparent)]
    Snapshot(#[from] ImageError),
    /// The spec has a volume that nobody said the source of.
    #[error("the spec has a volume at {path}, and no bind says from where")]
    NoBind {
        /// Where it is to be.
        path: String,
    },
    /// The spec was written for other files.
    #[error("what is to be at {path} has root hash {found}, the spec expects {expected}")]
    Other {
        /// Where it is to be.
        path: String,
        /// Root hash of the files there are.
        found: String,
        /// Root hash in the spec.
        expected: String,
    },
    /// The spec has a data volume, and nobody said which of the host's it is.
    #[error("the spec has a data volume at {path}, and nothing says, as it has it, which volume that is")]
    NoData {
        /// Where it is to be.
        path: String,
    },
    /// The spec has a sealed volume, and nobody said which of the host's it is.
    #[error("the spec has sealed volume {name} at {path}, and nothing says that it is to be there")]
    NoSealed {
        /// Where it is to be.
        path: String,
        /// Which.
        name: String,
    },
    /// Its name is part of its key.
    #[error("a volume at {path} without a name: a box with a TEE seals it under its name")]
    Unnamed {
        /// Where it was to be.
        path: String,
    },
    /// There is nobody to have the key of.
    #[error(
        "a volume at {path}: a box with a TEE seals it, by policy {policy} with a key of a key broker, and no broker is named"
    )]
    NoBroker {
        /// Where it was to be.
        path: String,
        /// The policy.
        policy: &'static str,
    },
    /// What was said of older copies is not so.
    #[error(
        "a volume at {path}: with policy measurement-and-chip nobody notices an older copy of it, which has to be accepted by name, and with any other the key broker does; its policy is {policy}"
    )]
    Rollback {
        /// Where it was to be.
        path: String,
        /// The policy.
        policy: &'static str,
    },
    /// A plain box seals nothing.
    #[error("a volume at {path}: a box without a TEE has no key of its own, and seals nothing")]
    SealsNothing {
        /// Where it was to be.
        path: String,
    },
    /// There is nothing to make its devices of.
    #[error("a volume at {path}: a box of isolation process has no sealed volume: hosts have no device-mapper for it")]
    NeedsMachine {
        /// Where it was to be.
        path: String,
    },
    /// A bind that the spec does not have.
    #[error("the spec has no volume at {path}, and it fixes what runs")]
    NotInSpec {
        /// Where it was to be.
        path: String,
    },
}

impl Fault for VolumeError {
    fn class(&self) -> Class {
        match self {
            Self::Snapshot(error) => Fault::class(error),
            Self::Other { .. } => Class::Config,
            Self::TooMany { .. }
            | Self::NoBind { .. }
            | Self::NoData { .. }
            | Self::NoSealed { .. }
            | Self::Unnamed { .. }
            | Self::NoBroker { .. }
            | Self::Rollback { .. }
            | Self::SealsNothing { .. }
            | Self::NeedsMachine { .. }
            | Self::NotInSpec { .. } => Class::Usage,
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::TooMany { .. } => Some("put several folders below one, and bind that".into()),
            Self::Snapshot(error) => Fault::hint(error),
            Self::NoBind { path } => Some(Hint::BindVolume { path: path.clone() }),
            Self::Other { .. } => Some(
                "the files differ from those the spec was written for; contents, names and permissions count".into(),
            ),
            Self::NoData { path } | Self::NoSealed { path, .. } | Self::Unnamed { path } => {
                Some(Hint::NameVolume { path: path.clone() })
            }
            Self::NoBroker { .. } | Self::Rollback { .. } => Some(Hint::SealVolume),
            Self::SealsNothing { .. } => Some(Hint::WithProcessor),
            Self::NeedsMachine { .. } | Self::NotInSpec { .. } => None,
        }
    }
}

/// A snapshot, and the volume it is.
pub(super) struct Taken {
    /// As the spec says it.
    pub volume: Volume,
    /// The bytes.
    pub snapshot: Snapshot,
}

/// Refuses more than there is room for, before anything is read.
pub(super) fn check_count(binds: &[Bind], data: &[DataMount]) -> Result<(), VolumeError> {
    let found = binds.len() + data.len();
    if found > Volume::MOST { Err(VolumeError::TooMany { found }) } else { Ok(()) }
}

/// Takes the snapshots.
pub(super) fn take(store: &Store, binds: &[Bind]) -> Result<Vec<Taken>, VolumeError> {
    let one = |bind: &Bind| {
        let snapshot = store.snapshot(&bind.source, Volume::FILE, Limits::default())?;
        let kind = match snapshot.kind {
            SnapshotKind::Folder => VolumeKind::Folder,
            SnapshotKind::File => VolumeKind::File,
        };
        let volume = Volume { path: bind.path.clone(), kind, verity: verity(&snapshot.verity) };
        Ok(Taken { volume, snapshot })
    };
    binds.iter().map(one).collect()
}

/// The snapshots in the order of the spec's volumes: each is there, is the one the spec names, and none is left over.
pub(super) fn in_order(spec: &WorkloadSpec, mut taken: Vec<Taken>) -> Result<Vec<Snapshot>, VolumeError> {
    let mut ordered = Vec::with_capacity(taken.len());
    for Volume { path, kind, verity } in &spec.volumes {
        let Some(at) = taken.iter().position(|found| found.volume.path == *path) else {
            return Err(VolumeError::NoBind { path: path.clone() });
        };
        let Taken { volume, snapshot } = taken.swap_remove(at);
        if (volume.kind, &volume.verity) != (*kind, verity) {
            return Err(VolumeError::Other {
                path: path.clone(),
                found: volume.verity.root_hash,
                expected: verity.root_hash.clone(),
            });
        }
        ordered.push(snapshot);
    }
    match taken.into_iter().next() {
        Some(left) => Err(VolumeError::NotInSpec { path: left.volume.path }),
        None => Ok(ordered),
    }
}
