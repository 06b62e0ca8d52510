//! The workload's own user namespace: the program's half enters it, the half that waits maps it.
//!
//! Each id is mapped to itself, so files keep their owners; what differs is where a capability holds, and how many processes there may be.
//! Source: user_namespaces(7).

use std::{
    fs::{self, File},
    io::{self, Read, Write},
};

use coffer_machine::namespaces::{IDS, OF_INIT, PROCESSES};
use rustix::{
    pipe::{PipeFlags, pipe_with},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use crate::sys::process;

/// What the two halves tell each other: that there is a namespace, and that it is mapped.
pub(super) struct Mapping {
    made: (File, File),
    mapped: (File, File),
}

impl Mapping {
    /// To be made before the halves part.
    pub(super) fn new() -> io::Result<Self> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map(|(read, write)| (File::from(read), File::from(write)));
        Ok(Self { made: pipe()?, mapped: pipe()? })
    }

    /// The program's half: into the namespace, once its ids mean something.
    pub(super) fn enter(self) -> io::Result<()> {
        let ((_, mut made), (mut mapped, other)) = (self.made, self.mapped);
        drop(other);
        // The kernel bounds what is in a namespace, and in those inside it, by the limit that its maker had. Whoever makes it is
        // counted with it, so that what is left is init's own.
        let before = getrlimit(Resource::Nproc);
        setrlimit(Resource::Nproc, Rlimit { current: Some(PROCESSES - OF_INIT), maximum: before.maximum })?;
        process::new_users()?;
        setrlimit(Resource::Nproc, before)?;
        made.write_all(&[1])?;
        mapped.read_exact(&mut [0])
    }

    /// The half that waits. Where the program's half fails before, nothing is mapped, and it says itself why.
    pub(super) fn write(self, pid: i32) -> io::Result<()> {
        let ((mut made, other), (_, mut mapped)) = (self.made, self.mapped);
        drop(other);
        if made.read(&mut [0])? == 0 {
            return Ok(());
        }
        let map = format!("0 0 {IDS}\n");
        fs::write(format!("/proc/{pid}/gid_map"), &map)?;
        fs::write(format!("/proc/{pid}/uid_map"), &map)?;
        mapped.write_all(&[1])
    }
}
