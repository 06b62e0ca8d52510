//! The workload's share of memory, where there is a scratch disk.
//!
//! To write a page to the scratch disk the kernel needs memory for its ciphertext and tags, and it waits for that memory
//! without end. So the workload must never take the last of it: it lives in a control group whose limit leaves
//! [`RESERVE`] free. At the limit its pages go to the scratch disk, and where that is full the kernel ends the workload
//! and not the agent.
//! Source: Linux Documentation/admin-guide/cgroup-v2.rst, "Memory Interface Files".

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::mount::MountFlags;

use super::mounts::{OWN, at};
use crate::failure::{Code, Failure, OrFail};

/// Left to the kernel and the agent.
pub const RESERVE: u64 = 32 << 20;

/// Makes the group, with all memory that is available now but [`RESERVE`], and gives its folder.
///
/// # Errors
/// `internal`: the kernel's refusal, or less than twice [`RESERVE`] available.
pub fn workload_share() -> Result<PathBuf, Failure> {
    let root = format!("{OWN}/cgroup");
    at("cgroup", &root, "cgroup2", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, "")?;
    let text = fs::read_to_string("/proc/meminfo").or_fail(Code::Internal, "read /proc/meminfo")?;
    let limit = limit(&text).map_err(|detail| Failure::new(Code::Internal, detail))?;
    let folder = Path::new(&root).join("workload");
    let write = |path: &Path, text: &str| fs::write(path, text).or_fail(Code::Internal, &path.to_string_lossy());
    write(&Path::new(&root).join("cgroup.subtree_control"), "+memory")?;
    fs::create_dir(&folder).or_fail(Code::Internal, "make the workload's control group")?;
    write(&folder.join("memory.max"), &limit.to_string())?;
    // Killed as one: half a workload is nobody's workload.
    write(&folder.join("memory.oom.group"), "1")?;
    Ok(folder)
}

fn limit(meminfo: &str) -> Result<u64, String> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let available = kibibytes.ok_or("/proc/meminfo does not say MemAvailable")? << 10;
    if available < 2 * RESERVE {
        let (available, needed) = (available >> 20, (2 * RESERVE) >> 20);
        return Err(format!(
            "{available} MiB of memory are left; a scratch disk needs {needed}: give the guest more with --memory"
        ));
    }
    Ok(available - RESERVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_left_and_too_little_memory_is_said() {
        let limit =
            |kibibytes: u64| super::limit(&format!("MemTotal: 1 kB\nMemAvailable:   {kibibytes} kB\nBuffers: 2 kB\n"));
        assert_eq!(limit(100 << 10), Ok((100 << 20) - RESERVE));
        assert_eq!(limit(64 << 10), Ok(RESERVE));
        assert!(limit((64 << 10) - 1).unwrap_err().contains("--memory"));
        assert!(super::limit("MemTotal: 1 kB\n").is_err());
        assert!(super::limit("MemAvailable: many kB\n").is_err());
    }
}
