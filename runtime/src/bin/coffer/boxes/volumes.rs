//! Snapshots that `-v` and `--mount` ask for, and their match with the volumes of a spec.

use std::path::Path;

use coffer_image::{Snapshot, SnapshotKind, Store, layer::Limits};
use coffer_runtime::binds::{self, Bind, MountWish};
use coffer_runtime::images::{of_image, verity};
use coffer_spec::{Mount, Volume, VolumeKind, WorkloadSpec};

use crate::error::{Class, CliError};

/// What the two flags ask for. The order within a flag is the order of the disks, those of `-v` first.
#[derive(Debug, Default)]
pub struct Asked {
    /// Snapshots.
    pub binds: Vec<Bind>,
    /// Memory.
    pub tmpfs: Vec<Mount>,
}

/// Reads the flags. `here`: what a relative host path begins at.
pub fn asked(volumes: &[String], mounts: &[String], here: &Path) -> Result<Asked, CliError> {
    let mut asked = Asked::default();
    for text in volumes {
        asked.binds.push(binds::volume(text, here)?);
    }
    for text in mounts {
        match binds::mount(text, here)? {
            MountWish::Bind(bind) => asked.binds.push(bind),
            MountWish::Tmpfs(mount) => asked.tmpfs.push(mount),
        }
    }
    if asked.binds.len() > Volume::MOST {
        let message = format!("{} binds, and a box has room for {}", asked.binds.len(), Volume::MOST);
        return Err(CliError::new(Class::Usage, message).hint("put several folders below one, and bind that"));
    }
    Ok(asked)
}

/// A snapshot, and the volume it is.
pub struct Taken {
    /// As the spec says it.
    pub volume: Volume,
    /// The bytes.
    pub snapshot: Snapshot,
}

/// Takes the snapshots.
pub fn take(store: &Store, binds: &[Bind]) -> Result<Vec<Taken>, CliError> {
    let one = |bind: &Bind| {
        let snapshot =
            store.snapshot(&bind.source, Volume::FILE, Limits::default()).map_err(|error| of_image(&error))?;
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
pub fn in_order(spec: &WorkloadSpec, mut taken: Vec<Taken>) -> Result<Vec<Snapshot>, CliError> {
    let mut ordered = Vec::with_capacity(taken.len());
    for Volume { path, kind, verity } in &spec.volumes {
        let Some(at) = taken.iter().position(|found| found.volume.path == *path) else {
            return Err(CliError::new(
                Class::Usage,
                format!("the spec has a volume at {path}, and no bind says from where"),
            )
            .hint(format!("add --volume HOST:{path}:ro")));
        };
        let Taken { volume, snapshot } = taken.swap_remove(at);
        if (volume.kind, &volume.verity) != (*kind, verity) {
            let (found, expected) = (&volume.verity.root_hash, &verity.root_hash);
            let message = format!("what is to be at {path} has root hash {found}, the spec expects {expected}");
            return Err(CliError::new(Class::Config, message)
                .hint("the files differ from those the spec was written for; contents, names and permissions count"));
        }
        ordered.push(snapshot);
    }
    match taken.first() {
        Some(left) => {
            let message = format!("the spec has no volume at {}, and --spec fixes what runs", left.volume.path);
            Err(CliError::new(Class::Usage, message))
        }
        None => Ok(ordered),
    }
}
