//! What init finds where there is no machine: a box in Linux namespaces of the host's own kernel (`--isolation process`).
//!
//! init is started with [`STAGE`] and the numbers of the descriptors that it was left: the socket it is reached on, the
//! secrets page or [`NOTHING`], and one for each disk but the spec's, in the order of [`crate::disks`]. In a virtual machine the
//! words that Linux starts init with stand on the measured command line, so that no host says [`STAGE`] there.

/// First argument of init.
pub const STAGE: &str = "in-namespaces";
/// In place of a descriptor that there is none of.
pub const NOTHING: &str = "-";

/// The measured command line, without its NUL.
pub const COMMAND_LINE: &str = "/coffer/command-line";
/// What a machine has on its spec disk.
pub const SPEC: &str = "/coffer/spec";
/// Folder of the host's sockets, each named by its port.
pub const LINES: &str = "/coffer/lines";
/// Folder of the mounted images, each named by the serial of its disk.
pub const IMAGES: &str = "/coffer/images";

/// User and group ids of a box, counted from 0.
pub const IDS: u32 = 65_536;

/// Processes and threads of a box, those of its init among them.
pub const PROCESSES: u64 = 4096;

/// And those of them that its workload never has: init's threads, and the programs that it starts, are never refused for its sake.
pub const OF_INIT: u64 = 64;
