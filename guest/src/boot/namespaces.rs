//! The boot of a box that has no machine: init was put into namespaces by the host's runtime, with a root of its own.
//!
//! No kernel, clock, module or device here is the guest's, so none is touched. Images come mounted and, to be checked, open;
//! root is checked whole ([`whole`]) before anything of it is used. That memory is private nobody claims: such a box has the
//! simulated processor or none.
//! Source: docs/design/boot.md §3.2.

use std::{
    fs::{self, File},
    io::Read,
    os::fd::OwnedFd,
    path::Path,
};

use coffer_machine::{disks, namespaces};
use coffer_spec::{Scratch, Tee, WorkloadSpec};
use rustix::mount::MountFlags;

use super::{data, mounts::at, root, volumes::bind, whole};
use crate::{
    container::Bind,
    failure::{Code, Failure, OrFail},
    processor::Page,
    sys::process::take_descriptor,
};

/// What init was left.
#[derive(Debug)]
pub struct Left {
    /// The socket the host connects to.
    pub listener: OwnedFd,
    secrets: Option<OwnedFd>,
    /// Root, then the volumes.
    images: Vec<File>,
}

impl Left {
    /// Takes over what the words behind [`namespaces::STAGE`] name.
    ///
    /// # Errors
    /// `internal` for a word that names no open descriptor.
    pub fn take(words: &[String]) -> Result<Self, Failure> {
        let take = |word: &String| -> std::io::Result<OwnedFd> {
            take_descriptor(word.parse().map_err(std::io::Error::other)?)
        };
        let what = "take over what init was left";
        let [listener, secrets, images @ ..] = words else {
            return Err(Failure::new(Code::Internal, "init was left nothing"));
        };
        let secrets = (secrets != namespaces::NOTHING).then(|| take(secrets)).transpose();
        let images = images.iter().map(|word| take(word).map(File::from)).collect::<Result<_, _>>();
        Ok(Self {
            listener: take(listener).or_fail(Code::Internal, what)?,
            secrets: secrets.or_fail(Code::Internal, what)?,
            images: images.or_fail(Code::Internal, what)?,
        })
    }

    /// Takes the secrets page: out of a pipe, so that it is read once.
    ///
    /// # Errors
    /// `NotFound` where there is none.
    pub fn take_page(&mut self) -> std::io::Result<Page> {
        let pipe = self.secrets.take().ok_or(std::io::ErrorKind::NotFound)?;
        let mut page = Box::new([0; 4096]);
        File::from(pipe).read_exact(&mut page[..])?;
        Ok(page)
    }

    fn image(&self, index: usize) -> Result<&File, Failure> {
        self.images.get(index).ok_or_else(|| Failure::new(Code::Internal, format!("the host left no image {index}")))
    }
}

/// The mounts init itself needs.
///
/// # Errors
/// `internal`.
pub fn early() -> Result<(), Failure> {
    at("tmpfs", "/run", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, "mode=755")
}

/// Reads what a machine has on its kernel's command line.
///
/// # Errors
/// `internal`.
pub fn command_line() -> Result<String, Failure> {
    fs::read_to_string(namespaces::COMMAND_LINE).or_fail(Code::Internal, "read the command line")
}

/// Reads what a machine has on its spec disk.
///
/// # Errors
/// `internal`.
pub fn read_spec() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    File::open(namespaces::SPEC)
        .and_then(|file| file.take(coffer_machine::spec_disk::LIMIT as u64).read_to_end(&mut bytes))
        .or_fail(Code::Internal, "read the spec")?;
    Ok(bytes)
}

/// Refuses what needs a machine.
///
/// # Errors
/// `tee-mismatch` for hardware, `internal` for a scratch disk.
pub fn check_needs(spec: &WorkloadSpec) -> Result<(), Failure> {
    if spec.tee == Tee::Snp {
        return Err(Failure::new(Code::TeeMismatch, "spec demands SEV-SNP, and this is no machine"));
    }
    if let Scratch::Disk { .. } = spec.root.scratch {
        return Err(Failure::new(
            Code::Internal,
            "spec demands a scratch disk, for which this host has no device-mapper",
        ));
    }
    if !spec.sealed_volumes.is_empty() {
        let detail = "spec demands sealed volumes, for which this host has no device-mapper";
        return Err(Failure::new(Code::Internal, detail));
    }
    if spec.process.rights.programs.is_some() {
        return Err(Failure::new(Code::Internal, "spec bounds the number of programs, and there is no control group"));
    }
    Ok(())
}

/// Lets the workload have the ports below 1024, and ping: its capabilities are those of a user namespace that does not own the
/// network.
pub fn open_low_ports() {
    for (name, value) in [("ip_unprivileged_port_start", "0"), ("ping_group_range", "0 65535")] {
        // Where the kernel does not have it, such a port is refused when it is wanted.
        let _ = fs::write(format!("/proc/sys/net/ipv4/{name}"), value);
    }
}

/// Checks root and volumes, lays the writable layer over the root, and says what is to appear where.
///
/// # Errors
/// `root-corrupt`, `volume-corrupt`, `volume-unusable`, else `internal`.
pub fn mount_images(left: &Left, spec: &WorkloadSpec) -> Result<Vec<Bind>, Failure> {
    let mounted = |serial: &str| format!("{}/{serial}", namespaces::IMAGES);
    whole::check(left.image(0)?, &spec.root.verity, disks::ROOT, Code::RootCorrupt)?;
    let (Scratch::Tmpfs { bytes } | Scratch::Disk { bytes }) = spec.root.scratch;
    root::lay_over(&mounted(disks::ROOT), bytes)?;
    let check = |(index, volume): (usize, &coffer_spec::Volume)| {
        let serial = disks::volume(index).to_string();
        whole::check(left.image(index + 1)?, &volume.verity, &serial, Code::VolumeCorrupt)?;
        Ok(bind(volume, mounted(&serial)))
    };
    let mut binds = spec.volumes.iter().enumerate().map(check).collect::<Result<Vec<_>, _>>()?;
    for (index, volume) in spec.data_volumes.iter().enumerate() {
        binds.push(data::bind(volume, Path::new(&mounted(&disks::data(index).to_string())), Path::new(root::ROOT))?);
    }
    Ok(binds)
}
