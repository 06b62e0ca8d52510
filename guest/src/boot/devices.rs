//! Kernel modules and disks.

use std::{
    ffi::CString,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use coffer_machine::spec_disk;

use crate::failure::{Code, Failure, OrFail};

/// Where the kernel lists block devices.
pub const SYS_BLOCK: &str = "/sys/block";

/// How long a disk may take to appear.
const PATIENCE: Duration = Duration::from_secs(5);

/// Loads the modules in a folder of the initrd, in the order of their names; `parameters` of each by its name.
///
/// # Errors
/// `internal`, naming the module. One that is built in or already there is no error, nor is a missing folder.
pub fn load_modules(folder: &str, parameters: impl Fn(&str) -> String) -> Result<(), Failure> {
    let mut names: Vec<PathBuf> = match fs::read_dir(Path::new("/").join(folder)) {
        Ok(entries) => entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
            .map(|entry| entry.path())
            .collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).or_fail(Code::Internal, "list modules"),
    };
    names.sort();
    for path in names {
        let what = format!("load {}", path.display());
        let file = File::open(&path).or_fail(Code::Internal, &what)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let parameters = CString::new(parameters(&name)).or_fail(Code::Internal, &what)?;
        match rustix::system::finit_module(&file, &parameters, 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST | rustix::io::Errno::NOENT | rustix::io::Errno::NODEV) => {}
            Err(error) => return Err(error).or_fail(Code::Internal, &what),
        }
    }
    Ok(())
}

/// Has the kernel say on the console, which is the host's, that it ends, and nothing else: no name, number or address of a program.
///
/// # Errors
/// `internal`.
pub fn quiet_console() -> Result<(), Failure> {
    std::fs::write("/proc/sys/kernel/printk", "1").or_fail(Code::Internal, "quiet the console")
}

/// A disk the host attached under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Device node.
    pub node: PathBuf,
    /// `major:minor`.
    pub numbers: String,
}

/// Waits for the disk with this serial.
///
/// # Errors
/// `internal` if it does not appear.
pub fn find_disk(sys_block: &Path, serial: &str) -> Result<Disk, Failure> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(disk) = look_for_disk(sys_block, serial) {
            return Ok(disk);
        }
        if Instant::now() > end {
            return Err(Failure::new(Code::Internal, format!("the host attached no disk {serial}")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn look_for_disk(sys_block: &Path, serial: &str) -> Option<Disk> {
    let mut entries: Vec<_> = fs::read_dir(sys_block).ok()?.filter_map(Result::ok).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    entries.iter().find_map(|entry| {
        let read = |name: &str| fs::read_to_string(entry.path().join(name)).ok();
        if read("serial")?.trim_end() != serial {
            return None;
        }
        let node = Path::new("/dev").join(entry.file_name());
        Some(Disk { node, numbers: read("dev")?.trim_end().to_owned() })
    })
}

/// Reads the start of the spec disk, once, into memory the host cannot change afterwards.
///
/// # Errors
/// `internal`.
pub fn read_spec_disk(disk: &Disk) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    File::open(&disk.node)
        .and_then(|file| file.take(spec_disk::LIMIT as u64).read_to_end(&mut bytes))
        .or_fail(Code::Internal, "read the spec disk")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_machine::disks;

    #[test]
    fn disks_are_found_by_serial_alone() {
        let sys = tempfile::tempdir().unwrap();
        for (name, serial, dev) in [("vda", disks::SPEC, "254:0"), ("vdb", "coffer-root\n", "254:16")] {
            fs::create_dir(sys.path().join(name)).unwrap();
            fs::write(sys.path().join(name).join("serial"), serial).unwrap();
            fs::write(sys.path().join(name).join("dev"), format!("{dev}\n")).unwrap();
        }
        let disk = find_disk(sys.path(), disks::ROOT).unwrap();
        assert_eq!(disk, Disk { node: "/dev/vdb".into(), numbers: "254:16".into() });
        assert_eq!(look_for_disk(sys.path(), "coffer"), None);
    }
}
