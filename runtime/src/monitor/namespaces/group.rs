//! What bounds a box in namespaces: a control group of its own, where it was asked for.
//!
//! Version 2 alone, in `coffer/` at the root of the hierarchy, as Docker's `cgroupfs` driver has its own there. A host whose
//! controllers are elsewhere bounds nothing, and a box that is to be bounded is not made.
//! Source: Linux Documentation/admin-guide/cgroup-v2.rst.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use coffer_rim::{Class, Classify as _, Failure};

use crate::monitor::Limits;

const CONTROLLERS: [&str; 2] = ["cpu", "memory"];
/// Microseconds in which a box has so many for each processor.
const PERIOD_US: u64 = 100_000;

/// A box's group; gone when dropped, if its processes are.
#[derive(Debug)]
pub struct Group {
    folder: PathBuf,
}

/// Whether this host can bound a box as asked.
///
/// # Errors
/// Class `platform`: it cannot.
pub fn check(limits: &Limits) -> Result<(), Failure> {
    if limits.is_none() { Ok(()) } else { root().map(drop) }
}

/// Where the control groups of this host are.
fn root() -> Result<PathBuf, Failure> {
    let mounts =
        fs::read_to_string("/proc/self/mountinfo").class_while(Class::Platform, "cannot tell what is mounted")?;
    root_of(&mounts).filter(|root| has_controllers(root)).ok_or_else(|| {
        let message = "this host cannot bound the memory or the processors of a box without a machine: its control groups (version 2) have not the controllers `cpu` and `memory`";
        Failure::new(Class::Platform, message).hint("leave --memory and --cpus out, and nothing bounds the box")
    })
}

/// Fields of a line: id, parent, device, root, mount point, options, tags, a hyphen, kind (proc(5)).
fn root_of(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let fields: Vec<_> = place.split(' ').collect();
        (kind.starts_with("cgroup2 ") && fields.get(3) == Some(&"/")).then(|| PathBuf::from(fields[4]))
    })
}

fn has_controllers(folder: &Path) -> bool {
    let text = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    CONTROLLERS.iter().all(|wanted| text.split_whitespace().any(|found| found == *wanted))
}

impl Group {
    /// Makes the group of the box in whose folder this process runs, if there is anything to bound.
    ///
    /// # Errors
    /// Class `platform`: what the host refuses.
    pub fn make(limits: &Limits) -> Result<Option<Self>, Failure> {
        if limits.is_none() {
            return Ok(None);
        }
        let folder = std::env::current_dir()?;
        let name = folder.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let made = Self::make_in(&root()?, Path::new(name), limits);
        made.map(Some).class_while(Class::Platform, "cannot bound the box by a control group")
    }

    fn make_in(root: &Path, name: &Path, limits: &Limits) -> io::Result<Self> {
        let ours = root.join("coffer");
        let share = |folder: &Path| fs::write(folder.join("cgroup.subtree_control"), "+cpu +memory");
        share(root)?;
        make_folder(&ours)?;
        share(&ours)?;
        let group = Self { folder: ours.join(name) };
        // One that was left by a holder that was killed is empty.
        make_folder(&group.folder)?;
        if let Some(bytes) = limits.memory_bytes {
            group.set("memory.max", &bytes.to_string())?;
            // Nor any more on a disk of the host's.
            match group.set("memory.swap.max", "0") {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
        if let Some(cpus) = limits.cpus {
            group.set("cpu.max", &format!("{} {PERIOD_US}", u64::from(cpus) * PERIOD_US))?;
        }
        Ok(group)
    }

    fn set(&self, name: &str, value: &str) -> io::Result<()> {
        // Never made where the kernel has none.
        fs::File::options().write(true).open(self.folder.join(name)).and_then(|mut file| {
            use std::io::Write as _;
            file.write_all(value.as_bytes())
        })
    }

    /// Moves this process into it, and so all that it starts.
    ///
    /// # Errors
    /// Class `platform`.
    pub fn join(&self) -> Result<(), Failure> {
        self.set("cgroup.procs", "0").class_while(Class::Platform, "cannot join the box's control group")
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Who has ended may be counted a little longer.
        for _ in 0..20 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            sleep(Duration::from_millis(5));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_where_it_is_mounted_whole() {
        let v1 = "33 32 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";
        let part = "41 30 0:26 /a/b /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n";
        let whole = "42 30 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(root_of(v1), None);
        assert_eq!(root_of(part), None);
        assert_eq!(root_of(&format!("{v1}{part}{whole}")), Some(PathBuf::from("/sys/fs/cgroup")));
    }

    #[test]
    fn what_is_asked_is_written_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        // A folder is no hierarchy: the kernel's files are put there by hand.
        fs::create_dir_all(root.join("coffer/box")).unwrap();
        for file in ["memory.max", "cpu.max"] {
            fs::write(root.join("coffer/box").join(file), "").unwrap();
        }
        let said = |file: &str| fs::read_to_string(root.join("coffer/box").join(file)).unwrap();
        let both = Limits { memory_bytes: Some(1 << 28), cpus: Some(2) };
        std::mem::forget(Group::make_in(root, Path::new("box"), &both).unwrap());
        assert_eq!((said("memory.max"), said("cpu.max")), ("268435456".to_string(), "200000 100000".to_string()));
        fs::remove_file(root.join("coffer/box/memory.max")).unwrap();
        let one = Limits { memory_bytes: Some(1), cpus: None };
        assert!(Group::make_in(root, Path::new("box"), &one).is_err(), "what the kernel cannot bound is not left out");
        let controllers = |text: &str| {
            fs::write(root.join("cgroup.controllers"), text).unwrap();
            has_controllers(root)
        };
        assert!(controllers("cpuset cpu io memory pids\n"));
        assert!(!controllers("hugetlb\n") && !controllers("cpuset memory\n"));
        assert!(check(&Limits::default()).is_ok());
    }
}
