//! Volumes that outlive boxes: made, listed, removed, and provided for a box that is made.

use std::collections::BTreeMap;
use std::path::PathBuf;

use coffer_spec::{DataVolume, Name, SealedVolume, Unclean, VolumePolicy, WorkloadSpec};

use super::named::NamedFilter;
use super::volumes::VolumeError;
use super::{Engine, Fault, Hint, OpenError};
use crate::binds::{DataMount, SealWords};
use crate::boxes::unix_ms;
use crate::id::BoxId;
use crate::state::StateError;
use crate::tools::Search;
use crate::volumes::{BoxVolume, Guard, KeptVolume, Kind, MKE2FS, VolumeRecord, VolumeStoreError, Volumes};
use crate::{Class, Failure};

/// Why something with a volume is not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeptError {
    /// The installation does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database does not answer.
    #[error(transparent)]
    State(#[from] StateError),
    /// The volumes.
    #[error(transparent)]
    Volumes(#[from] VolumeStoreError),
}

impl Fault for KeptError {
    fn class(&self) -> Class {
        match self {
            Self::Open(error) => error.class(),
            Self::State(error) => error.class(),
            Self::Volumes(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Open(error) => error.hint(),
            Self::State(error) => Fault::hint(error),
            Self::Volumes(error) => error.hint().map(Hint::Words),
        }
    }
}

/// A volume, and who has it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The volume.
    pub volume: KeptVolume,
    /// Names of the boxes that have it.
    pub boxes: Vec<String>,
}

/// What a prune took away.
#[derive(Clone, Debug, Default)]
pub struct PrunedVolumes {
    /// Which.
    pub names: Vec<Name>,
    /// Bytes of the disk that they took.
    pub bytes: u64,
}

/// Volumes provided for a box that is about to be recorded. Those that nobody named go again where it is not.
pub(super) struct Provided {
    /// As the record has them.
    pub data: Vec<BoxVolume>,
    volumes: Volumes,
    guard: Guard,
}

impl Provided {
    /// No box came of it.
    pub fn undo(self) {
        for volume in self.data.iter().filter(|volume| volume.anonymous) {
            let _ = self.volumes.remove(&self.guard, &volume.name);
        }
    }
}

impl Engine {
    pub(super) fn kept(&self) -> Result<Volumes, OpenError> {
        Ok(Volumes::at(self.home()?.volumes()))
    }

    /// The same, with the database open: opening it mends records, which may take volumes away, and nobody waits for himself.
    fn kept_and_open(&self) -> Result<Volumes, OpenError> {
        self.open()?;
        self.kept()
    }

    /// Makes a volume; without a name it gets one that nobody chose. One that is there is given as it is.
    ///
    /// # Errors
    /// [`KeptError`].
    pub fn create_volume(
        &self,
        name: Option<&Name>,
        bytes: Option<u64>,
        labels: BTreeMap<String, String>,
    ) -> Result<KeptVolume, KeptError> {
        let (volumes, random) = (self.kept()?, random_name());
        let record = VolumeRecord::new(unix_ms(), bytes, name.is_none(), labels);
        Ok(volumes.make(&volumes.guard()?, name.unwrap_or(&random), &record)?)
    }

    /// The volumes that a filter admits, by name.
    ///
    /// # Errors
    /// [`KeptError`].
    pub fn list_volumes(&self, filter: &NamedFilter) -> Result<Vec<Listed>, KeptError> {
        let mut all =
            self.kept()?.all()?.into_iter().map(|volume| self.listed(volume)).collect::<Result<Vec<_>, _>>()?;
        all.retain(|Listed { volume, boxes }| filter.admits(&volume.name, &volume.record.labels, boxes.is_empty()));
        Ok(all)
    }

    /// One volume.
    ///
    /// # Errors
    /// [`KeptError`].
    pub fn inspect_volume(&self, name: &Name) -> Result<Listed, KeptError> {
        self.listed(self.kept()?.find(name)?)
    }

    fn listed(&self, volume: KeptVolume) -> Result<Listed, KeptError> {
        let boxes = self.state()?.boxes_with(&volume.name)?;
        Ok(Listed { volume, boxes })
    }

    /// Removes a volume that no box has.
    ///
    /// # Errors
    /// [`VolumeStoreError::InUse`] in particular.
    pub fn remove_volume(&self, name: &Name) -> Result<(), KeptError> {
        let volumes = self.kept_and_open()?;
        let guard = volumes.guard()?;
        let boxes = self.state()?.boxes_with(name)?;
        if !boxes.is_empty() {
            return Err(VolumeStoreError::InUse { name: name.clone(), boxes }.into());
        }
        Ok(volumes.remove(&guard, name)?)
    }

    /// Removes every volume that no box has and a filter admits: those that nobody named, or `all`.
    ///
    /// # Errors
    /// [`KeptError`]; what was removed before it is gone.
    pub fn prune_volumes(&self, filter: &NamedFilter, all: bool) -> Result<PrunedVolumes, KeptError> {
        let volumes = self.kept_and_open()?;
        let guard = volumes.guard()?;
        let mut pruned = PrunedVolumes::default();
        for Listed { volume, .. } in self.list_volumes(&filter.unused())? {
            if all || volume.record.anonymous {
                let bytes = volume.disk_bytes();
                volumes.remove(&guard, &volume.name)?;
                pruned.names.push(volume.name);
                pruned.bytes += bytes;
            }
        }
        Ok(pruned)
    }

    /// Makes what a box wants and is not there yet, each of the kind that the box takes. Until the box is recorded nobody removes
    /// them.
    pub(super) fn provide(&self, wanted: &[DataMount], kind: Kind) -> Result<Option<Provided>, KeptError> {
        if wanted.is_empty() {
            return Ok(None);
        }
        let volumes = self.kept_and_open()?;
        let mut provided = Provided { data: Vec::new(), guard: volumes.guard()?, volumes };
        match self.provide_all(&mut provided, wanted, kind) {
            Ok(()) => Ok(Some(provided)),
            Err(error) => {
                provided.undo();
                Err(error)
            }
        }
    }

    fn provide_all(&self, provided: &mut Provided, wanted: &[DataMount], kind: Kind) -> Result<(), KeptError> {
        for DataMount { name, read_only, .. } in wanted {
            let anonymous = name.is_none();
            let name = name.clone().unwrap_or_else(random_name);
            if kind != Kind::Folder && provided.data.iter().any(|volume| volume.name == name) {
                return Err(VolumeStoreError::Twice(name).into());
            }
            let record = VolumeRecord::new(unix_ms(), None, anonymous, BTreeMap::new());
            let volume = provided.volumes.make(&provided.guard, &name, &record)?;
            provided.data.push(BoxVolume { name, read_only: *read_only, anonymous });
            let Provided { volumes, guard, .. } = &*provided;
            volumes.become_kind(guard, &volume, kind, || mke2fs(&self.settings().search))?;
        }
        Ok(())
    }
}

/// Where it is: the one that is named, one in the path, or where Debian has it, which the path of a user has not.
fn mke2fs(search: &Search) -> Result<PathBuf, Failure> {
    search.program(&MKE2FS).or_else(|failure| {
        let usual = ["/usr/sbin/mke2fs", "/sbin/mke2fs"].map(PathBuf::from);
        let found = usual.into_iter().find(|path| path.is_file() && !search.named.contains_key(MKE2FS.variable));
        found.ok_or(failure)
    })
}

/// 64 digits, as Docker has them.
fn random_name() -> Name {
    BoxId::random().as_str().parse().expect("64 digits are a name")
}

impl From<&DataMount> for DataVolume {
    fn from(mount: &DataMount) -> Self {
        Self { path: mount.path.clone(), read_only: mount.read_only, begins_empty: mount.begins_empty }
    }
}

/// As a spec has it. `bytes`: of the volume, or of one that is made.
pub(super) fn sealed(mount: &DataMount, bytes: u64) -> Result<SealedVolume, VolumeError> {
    let DataMount { name, path, read_only, begins_empty, seal } = mount;
    let SealWords { policy, unclean, rollback_unprotected } = seal;
    let Some(name) = name.clone() else { return Err(VolumeError::Unnamed { path: path.clone() }) };
    Ok(SealedVolume {
        name,
        path: path.clone(),
        bytes,
        policy: policy.unwrap_or(VolumePolicy::Workload),
        unclean: unclean.unwrap_or(Unclean::Refuse),
        rollback_protected: !rollback_unprotected,
        read_only: *read_only,
        begins_empty: *begins_empty,
    })
}

/// The mounts in the order of the spec's data volumes, or sealed ones: each is asked for as the spec has it, and none is left over.
pub(super) fn in_order(spec: &WorkloadSpec, wanted: &[DataMount]) -> Result<Vec<DataMount>, VolumeError> {
    let mut left = wanted.to_vec();
    let mut ordered = Vec::with_capacity(left.len());
    for volume in &spec.data_volumes {
        let Some(at) = left.iter().position(|mount| DataVolume::from(mount) == *volume) else {
            return Err(VolumeError::NoData { path: volume.path.clone() });
        };
        ordered.push(left.swap_remove(at));
    }
    for volume in &spec.sealed_volumes {
        // What was not said is as the spec has it.
        let fits = |mount: &DataMount| {
            mount.name.as_ref() == Some(&volume.name)
                && mount.path == volume.path
                && mount.read_only == volume.read_only
                && mount.begins_empty == volume.begins_empty
                && mount.seal.policy.is_none_or(|policy| policy == volume.policy)
                && mount.seal.unclean.is_none_or(|unclean| unclean == volume.unclean)
                && (!mount.seal.rollback_unprotected || !volume.rollback_protected)
        };
        let Some(at) = left.iter().position(fits) else {
            return Err(VolumeError::NoSealed { path: volume.path.clone(), name: volume.name.to_string() });
        };
        ordered.push(left.swap_remove(at));
    }
    match left.into_iter().next() {
        Some(left) => Err(VolumeError::NotInSpec { path: left.path }),
        None => Ok(ordered),
    }
}
