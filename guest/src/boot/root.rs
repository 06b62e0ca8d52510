//! The workload's root: dm-verity under EROFS, and over it the writable layer.

use coffer_machine::disks;
use coffer_spec::{Root, Scratch};
use rustix::mount::MountFlags;

use super::{
    devices::{self, Disk},
    mounts::{OWN, at},
    scratch,
    verity::{OnCorruption, open_verity},
};
use crate::{
    failure::{Code, Failure, OrFail},
    sys::dm::DeviceMapper,
};

/// Where the workload's root is mounted.
pub const ROOT: &str = "/run/coffer/root";
/// Where its image is found.
pub const LOWER: &str = "/run/coffer/lower";
/// What of it the workload wrote.
pub const UPPER: &str = "/run/coffer/scratch/upper";

/// Mounts the root at [`ROOT`].
///
/// # Errors
/// `root-corrupt` if the disk does not have the spec's root hash, else `internal`.
pub fn mount_root(mapper: &DeviceMapper, root: &Root, disk: &Disk, on_corruption: OnCorruption) -> Result<(), Failure> {
    let mapped = open_verity(mapper, disks::ROOT, &root.verity, disk, on_corruption, Code::RootCorrupt)?;
    let node = mapped.node.to_string_lossy();
    at(&node, LOWER, "erofs", MountFlags::RDONLY | MountFlags::NODEV, "")
        .map_err(|failure| Failure::new(Code::RootCorrupt, failure.detail))?;
    let (Scratch::Tmpfs { bytes } | Scratch::Disk { bytes }) = root.scratch;
    if let Scratch::Disk { bytes } = root.scratch {
        let disk = devices::find_disk(devices::SYS_BLOCK.as_ref(), disks::SCRATCH)?;
        scratch::swap_to(mapper, &disk, bytes)?;
    }
    lay_over(LOWER, bytes)
}

/// Lays a writable layer of `bytes` bytes over a mounted image, at [`ROOT`].
///
/// # Errors
/// `internal`.
pub fn lay_over(lower: &str, bytes: u64) -> Result<(), Failure> {
    let layer = format!("{OWN}/scratch");
    at("scratch", &layer, "tmpfs", MountFlags::NODEV, &format!("mode=755,size={bytes}"))?;
    for name in ["upper", "work"] {
        std::fs::create_dir(format!("{layer}/{name}")).or_fail(Code::Internal, name)?;
    }
    let mut marks = "";
    if lower != LOWER {
        std::os::unix::fs::symlink(lower, LOWER).or_fail(Code::Internal, LOWER)?;
        // In a user namespace nobody may write the overlay's own marks: of a folder that was removed and made anew nothing else says that
        // the image's is not below it. A tmpfs has these from Linux 6.6 on; before, making it anew fails.
        marks = ",userxattr";
    }
    // What is in the upper folder is there whole, so that it can be read without the image. `nofollow` is what a user namespace may say of
    // redirects; none is made either.
    let layers =
        format!("lowerdir={lower},upperdir={UPPER},workdir={layer}/work,redirect_dir=nofollow,metacopy=off{marks}");
    at("overlay", ROOT, "overlay", MountFlags::NODEV, &layers)
}
