//! The workload's share of memory and processes: a control group of its own, so that it never takes the last of either from the
//! kernel and the agent, whatever it does.
//!
//! With a scratch disk that is a matter of life: to write a page there the kernel needs memory for its ciphertext and tags, and
//! waits for that memory without end. At the limit the workload's pages go to the scratch disk, and where there is none, or it is
//! full, the kernel ends a program of the workload and not the agent.
//! Source: Linux Documentation/admin-guide/cgroup-v2.rst, "Memory Interface Files" and "PID".

use std::{
    fs,
    path::{Path, PathBuf},
};

use coffer_spec::{Scratch, WorkloadSpec};
use rustix::mount::MountFlags;

use super::mounts::{OWN, at};
use crate::failure::{Code, Failure, OrFail};

/// Makes the group, with all memory that is available now but what is left to others, and gives its folder.
///
/// # Errors
/// `internal`: the kernel's refusal, or less memory than there must be.
pub fn workload_share(spec: &WorkloadSpec) -> Result<PathBuf, Failure> {
    let root = format!("{OWN}/cgroup");
    at("cgroup", &root, "cgroup2", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, "")?;
    let read = |path: &str| fs::read_to_string(path).or_fail(Code::Internal, &format!("read {path}"));
    let limit = limit(&read("/proc/meminfo")?, spec).map_err(|detail| Failure::new(Code::Internal, detail))?;
    let threads = threads(&read("/proc/sys/kernel/threads-max")?, &read("/proc/sys/kernel/pid_max")?);
    let threads = spec.process.rights.programs.map_or(threads, |most| most.min(threads));
    let folder = Path::new(&root).join("workload");
    let write = |path: &Path, text: &str| fs::write(path, text).or_fail(Code::Internal, &path.to_string_lossy());
    write(&Path::new(&root).join("cgroup.subtree_control"), "+memory +pids")?;
    fs::create_dir(&folder).or_fail(Code::Internal, "make the workload's control group")?;
    write(&folder.join("memory.max"), &limit.to_string())?;
    write(&folder.join("pids.max"), &threads.to_string())?;
    if let Scratch::Disk { .. } = spec.root.scratch {
        // Killed as one: half a workload is nobody's workload.
        write(&folder.join("memory.oom.group"), "1")?;
    }
    Ok(folder)
}

fn limit(meminfo: &str, spec: &WorkloadSpec) -> Result<u64, String> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let available = kibibytes.ok_or("/proc/meminfo does not say MemAvailable")? << 10;
    if available < spec.least_available() {
        let (available, needed) = (available >> 20, spec.least_available() >> 20);
        let what = spec.needs_memory_for();
        return Err(format!(
            "{available} MiB of memory are left, and this spec ({what}) needs {needed}: give the guest more with --memory"
        ));
    }
    Ok(available - spec.reserve())
}

/// Threads of the workload: half of what the kernel would make. Twice as many would take its memory first, and itself with that.
fn threads(threads_max: &str, pid_max: &str) -> u64 {
    let number = |text: &str| text.trim().parse::<u64>().unwrap_or(0);
    (number(threads_max).min(number(pid_max)) / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_left_and_too_little_memory_is_said() {
        let mut spec = coffer_spec::sample::workload(coffer_spec::Tee::Simulated);
        spec.root.scratch = Scratch::Disk { bytes: 1 << 20 };
        let limit = |kibibytes: u64| {
            super::limit(&format!("MemTotal: 1 kB\nMemAvailable:   {kibibytes} kB\nBuffers: 2 kB\n"), &spec)
        };
        assert_eq!(limit(100 << 10), Ok(52 << 20));
        assert_eq!(limit(60 << 10), Ok(12 << 20));
        let little = limit((60 << 10) - 1).unwrap_err();
        assert!(little.contains("(scratch disk)") && little.contains("--memory"), "{little}");
        assert!(super::limit("MemTotal: 1 kB\n", &spec).is_err());
        assert!(super::limit("MemAvailable: many kB\n", &spec).is_err());
    }

    #[test]
    fn some_threads_are_left_of_few_and_of_many() {
        assert_eq!(threads("1900\n", "32768\n"), 950);
        assert_eq!(threads("100000\n", "32768\n"), 16384);
        // A kernel that does not say gives the workload one, and not all.
        assert_eq!(threads("many\n", "32768\n"), 1);
    }
}
