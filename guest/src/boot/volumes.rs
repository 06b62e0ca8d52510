//! Volumes: snapshots of host files and folders, each on a disk of its own under dm-verity, as the root is.

use std::path::PathBuf;

use coffer_machine::disks;
use coffer_spec::{Volume, VolumeKind};
use rustix::mount::MountFlags;

use super::{
    devices,
    mounts::{OWN, at},
    verity::{OnCorruption, open_verity},
};
use crate::{
    container::Bind,
    failure::{Code, Failure},
    sys::dm::DeviceMapper,
};

/// Mounts every volume out of the workload's sight, and says what is to appear where.
///
/// # Errors
/// `volume-corrupt` if a disk does not have the spec's root hash, else `internal`.
pub fn mount_volumes(
    mapper: &DeviceMapper,
    volumes: &[Volume],
    on_corruption: OnCorruption,
) -> Result<Vec<Bind>, Failure> {
    let mut binds = Vec::with_capacity(volumes.len());
    for (index, volume) in volumes.iter().enumerate() {
        let name = disks::volume(index).to_string();
        let disk = devices::find_disk(devices::SYS_BLOCK.as_ref(), &name)?;
        let mapped = open_verity(mapper, &name, &volume.verity, &disk, on_corruption, Code::VolumeCorrupt)?;
        let folder = format!("{OWN}/volumes/{index}");
        let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
        at(&mapped.node.to_string_lossy(), &folder, "erofs", flags, "")
            .map_err(|failure| Failure::new(Code::VolumeCorrupt, failure.detail))?;
        binds.push(bind(volume, folder));
    }
    Ok(binds)
}

/// What of a volume mounted in `folder` appears, and where.
pub fn bind(volume: &Volume, folder: String) -> Bind {
    let from = match volume.kind {
        VolumeKind::Folder => PathBuf::from(folder),
        VolumeKind::File => PathBuf::from(folder).join(Volume::FILE),
    };
    Bind { from, to: volume.path.clone(), read_only: true }
}
