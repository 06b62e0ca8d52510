//! Device mapper: makes a mapped device from one table line.
//!
//! A table line may hold a key: every request is wiped when it is dropped, and the kernel is told to wipe its copies.
//!
//! Source: Linux include/uapi/linux/dm-ioctl.h.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
};

use rustix::fs::{Mode, OFlags};
use zeroize::Zeroize;

/// `struct dm_ioctl`.
#[repr(C)]
#[derive(Clone, Copy)]
struct dm_ioctl {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_nr: u32,
    padding: u32,
    dev: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    data: [u8; 7],
}
const _: () = assert!(size_of::<dm_ioctl>() == 312);

/// `struct dm_target_spec`.
#[repr(C)]
#[derive(Clone, Copy)]
struct dm_target_spec {
    sector_start: u64,
    length: u64,
    status: i32,
    next: u32,
    target_type: [u8; 16],
}
const _: () = assert!(size_of::<dm_target_spec>() == 40);

/// Room for one target and its parameters after the header; every line of ours is below 700 bytes.
const DATA: usize = 4096;

#[repr(C, align(8))]
struct Request {
    head: dm_ioctl,
    data: [u8; DATA],
}

impl Drop for Request {
    fn drop(&mut self) {
        self.data.zeroize();
    }
}

const DM_READONLY_FLAG: u32 = 1;
const DM_SECURE_DATA_FLAG: u32 = 1 << 15;
const DM_DEV_CREATE: u32 = 3;
const DM_DEV_REMOVE: u32 = 4;
const DM_DEV_SUSPEND: u32 = 6; // resumes, where DM_SUSPEND_FLAG is not set
const DM_TABLE_LOAD: u32 = 9;

/// `_IOWR(DM_IOCTL, nr, struct dm_ioctl)`.
const fn request_code(nr: u32) -> libc::c_ulong {
    const READ_WRITE: u32 = 3;
    const DM_IOCTL: u32 = 0xfd;
    ((READ_WRITE << 30) | ((size_of::<dm_ioctl>() as u32) << 16) | (DM_IOCTL << 8) | nr) as libc::c_ulong
}

/// `/dev/mapper/control`.
pub struct DeviceMapper {
    control: File,
}

/// What may be done with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing is ever written to it.
    ReadOnly,
    /// Everything.
    ReadWrite,
}

impl Access {
    fn flags(self) -> u32 {
        DM_SECURE_DATA_FLAG | if self == Self::ReadOnly { DM_READONLY_FLAG } else { 0 }
    }
}

/// One target: a table of one line.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// Such as `verity`.
    pub kind: &'a str,
    /// Length of the device in sectors of 512 bytes.
    pub sectors: u64,
    /// The target's own words; may hold a key.
    pub parameters: &'a str,
}

/// One active mapped device; stays until [`DeviceMapper::remove`].
#[derive(Debug)]
pub struct Mapped {
    name: String,
    /// Its node, which devtmpfs made.
    pub node: PathBuf,
    /// `major:minor`, as the table of a device above it names it.
    pub numbers: String,
}

impl DeviceMapper {
    /// Opens the control node.
    ///
    /// # Errors
    /// The kernel's, if dm-mod is absent.
    pub fn open() -> io::Result<Self> {
        let control: OwnedFd = rustix::fs::open("/dev/mapper/control", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { control: control.into() })
    }

    /// Makes a device `name` with one target.
    ///
    /// # Errors
    /// The kernel's; the half-made device is removed.
    pub fn create(&self, name: &str, access: Access, target: &Target<'_>) -> io::Result<Mapped> {
        let mut create = request(name, access.flags())?;
        self.call(DM_DEV_CREATE, &mut create)?;
        // `huge_encode_dev`: 8 bits of minor, 12 of major, the rest of minor.
        let (major, minor) =
            ((create.head.dev >> 8) & 0xfff, (create.head.dev & 0xff) | ((create.head.dev >> 12) & 0xf_ff00));
        let node = PathBuf::from(format!("/dev/dm-{minor}"));
        let mapped = Mapped { name: name.into(), node, numbers: format!("{major}:{minor}") };
        let activated = table(name, access, target).and_then(|mut load| {
            self.call(DM_TABLE_LOAD, &mut load)?;
            self.call(DM_DEV_SUSPEND, &mut *request(name, access.flags())?)
        });
        if let Err(error) = activated {
            let _ = self.call(DM_DEV_REMOVE, &mut *request(name, 0)?);
            return Err(error);
        }
        Ok(mapped)
    }

    /// Removes a device nobody has open.
    ///
    /// # Errors
    /// The kernel's, such as EBUSY.
    pub fn remove(&self, mapped: &Mapped) -> io::Result<()> {
        self.call(DM_DEV_REMOVE, &mut *request(&mapped.name, 0)?)
    }

    fn call(&self, nr: u32, request: &mut Request) -> io::Result<()> {
        // SAFETY: `request` is a live, exclusively borrowed dm_ioctl of `data_size` bytes, and the kernel writes no
        // further than `data_size`; it keeps no pointer to it.
        let result = unsafe {
            libc::ioctl(self.control.as_raw_fd(), request_code(nr) as _, core::ptr::from_mut::<Request>(request))
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn request(name: &str, flags: u32) -> io::Result<Box<Request>> {
    let mut head = dm_ioctl {
        version: [4, 0, 0],
        data_size: size_of::<Request>() as u32,
        data_start: size_of::<dm_ioctl>() as u32,
        target_count: 0,
        open_count: 0,
        flags,
        event_nr: 0,
        padding: 0,
        dev: 0,
        name: [0; 128],
        uuid: [0; 129],
        data: [0; 7],
    };
    // The last byte stays zero: the kernel reads a C string.
    let room = head.name.len() - 1;
    let field = head.name.get_mut(..name.len()).filter(|field| field.len() <= room).ok_or_else(too_long)?;
    field.copy_from_slice(name.as_bytes());
    Ok(Box::new(Request { head, data: [0; DATA] }))
}

fn table(name: &str, access: Access, target: &Target<'_>) -> io::Result<Box<Request>> {
    let mut load = request(name, access.flags())?;
    load.head.target_count = 1;
    let (spec, text) = load.data.split_at_mut(size_of::<dm_target_spec>());
    spec[8..16].copy_from_slice(&target.sectors.to_ne_bytes());
    let kind = spec[24..39].get_mut(..target.kind.len()).ok_or_else(too_long)?;
    kind.copy_from_slice(target.kind.as_bytes());
    let (room, parameters) = (text.len() - 1, target.parameters.as_bytes());
    let line = text.get_mut(..parameters.len()).filter(|line| line.len() <= room).ok_or_else(too_long)?;
    line.copy_from_slice(parameters);
    Ok(load)
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "device mapper name or table too long")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_codes_are_those_of_the_kernel_header() {
        assert_eq!(request_code(DM_DEV_CREATE), 0xc138_fd03);
        assert_eq!(request_code(DM_TABLE_LOAD), 0xc138_fd09);
    }

    #[test]
    fn a_table_has_the_fields_of_dm_target_spec() {
        let target = Target { kind: "verity", sectors: 0x1122, parameters: "1 a b" };
        let load = table("root", Access::ReadOnly, &target).unwrap();
        assert_eq!(load.head.target_count, 1);
        assert_eq!(load.data[..8], [0; 8]);
        assert_eq!(load.data[8..16], 0x1122_u64.to_ne_bytes());
        assert_eq!(&load.data[24..31], b"verity\0");
        assert_eq!(&load.data[40..46], b"1 a b\0");
        assert_eq!(load.head.flags, DM_READONLY_FLAG | DM_SECURE_DATA_FLAG);
        assert_eq!(table("root", Access::ReadWrite, &target).unwrap().head.flags, DM_SECURE_DATA_FLAG);
    }

    #[test]
    fn names_and_tables_that_do_not_fit_are_refused() {
        assert!(request(&"n".repeat(128), 0).is_err());
        let refused = |kind: &str, parameters: &str| {
            table("n", Access::ReadOnly, &Target { kind, sectors: 8, parameters }).is_err()
        };
        assert!(refused(&"t".repeat(16), "") && refused("t", &"p".repeat(DATA)));
        assert!(!refused("t", "p"));
    }
}
