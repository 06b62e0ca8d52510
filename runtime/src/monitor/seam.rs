//! What a monitor is given, and what it gives.

use std::path::PathBuf;

use coffer_machine::Refusal;
use coffer_rim::Failure;
use coffer_verifier::abi::HostData;
use futures_util::future::BoxFuture;

use super::{Console, Limits};

/// Ends when all that a guest may rely on outside is there.
pub type Ready<'a> = BoxFuture<'a, Result<(), Failure>>;

/// Ends with a guest that runs.
pub type Starting<'a> = BoxFuture<'a, Result<Box<dyn Running>, Failure>>;

/// Something that runs guests.
pub trait Monitor: Send + Sync {
    /// Its name in messages.
    fn name(&self) -> &'static str;

    /// Whether it can run guests on this machine, and how.
    ///
    /// # Errors
    /// Class `platform`, naming what is missing and how to get it.
    fn check(&self) -> Result<Capabilities, Failure>;

    /// Whether it can launch guests on SEV-SNP on this machine.
    ///
    /// # Errors
    /// Class `platform`, naming the first thing that is missing and how to get it.
    fn check_snp(&self) -> Result<(), Failure>;

    /// Starts a guest. The host's end of each vsock port the guest will open must be listened on before, and the socket of its card.
    /// Nothing of the guest runs before `ready` ends.
    ///
    /// To be called from the thread that lives as long as the process: the kernel ends the guest with that thread.
    ///
    /// # Errors
    /// Class `platform` if the guest does not start, or what `ready` failed with; nothing of it is left behind then.
    fn start<'a>(&'a self, launch: &'a Launch, console: Console, ready: Ready<'a>) -> Starting<'a>;
}

/// A guest that runs. Dropped, it is gone.
pub trait Running: Send {
    /// Process that the guest lives in, if it has one of its own.
    fn pid(&self) -> Option<u32>;

    /// Waits until the guest is gone. May be dropped and called again.
    fn wait(&mut self) -> BoxFuture<'_, End>;

    /// Ends the guest now; [`Running::wait`] then returns.
    fn kill(&mut self);

    /// Lets no virtual processor run until [`Running::resume`].
    ///
    /// # Errors
    /// Class `platform` if the monitor cannot.
    fn pause(&mut self) -> Result<(), Failure>;

    /// Lets a paused guest go on.
    ///
    /// # Errors
    /// As [`Running::pause`].
    fn resume(&mut self) -> Result<(), Failure>;
}

/// What a monitor can do on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The guest's instructions run on the processor, not in a translator.
    pub hardware: bool,
    /// One sentence on why that is so.
    pub why: String,
}

/// One guest, described completely. Nothing in it has to be looked up elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Folder of the box: every relative path below starts there, and the sockets of [`vsock`] are made there.
    pub folder: PathBuf,
    /// What is measured and loaded.
    pub measured: Measured,
    /// A secrets page, put into memory unmeasured: of a simulated secure processor.
    pub secrets: Option<PathBuf>,
    /// What the secure processor is told; without it the guest's memory is not encrypted. A monitor that cannot launch so
    /// refuses, and never launches without.
    pub snp: Option<SnpLaunch>,
    /// Virtual disks, in the order of their transports.
    pub disks: Vec<Disk>,
    /// Virtual processors.
    pub vcpus: u32,
    /// Guest memory in bytes.
    pub memory_bytes: u64,
    /// What bounds it where it has no machine, whose size is a bound.
    pub limits: Limits,
    /// Its network card, if it has one.
    pub card: Option<Card>,
}

/// A network card: a socket in the box folder where somebody of ours listens, and takes frames behind their lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Card {
    /// The socket.
    pub socket: &'static str,
    /// The card's address.
    pub mac: [u8; 6],
    /// Bytes of the longest packet.
    pub mtu: u16,
}

/// What an SEV-SNP launch is told beside the pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnpLaunch {
    /// POLICY.
    pub policy: u64,
    /// HOST_DATA.
    pub host_data: HostData,
    /// The ID block and its authentication block, where the box was made with them.
    pub id: Option<SnpId>,
    /// Type of the virtual processors, QEMU's name: the reset-vector form measures its signature.
    pub vcpu_type: String,
}

/// The blocks of SNP_LAUNCH_FINISH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnpId {
    /// ID_BLOCK.
    pub block: Vec<u8>,
    /// ID_AUTH.
    pub auth: Vec<u8>,
    /// AUTHOR_KEY_EN.
    pub author: bool,
}

/// Files whose bytes are measured: the launch digest follows from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// ROM image of stage0, with the hashes of the three below in it.
    pub stage0: PathBuf,
    /// The page of hashes by itself, for a monitor that starts no guest in the ROM.
    pub hashes: PathBuf,
    /// Kernel.
    pub kernel: PathBuf,
    /// Initrd.
    pub initrd: PathBuf,
    /// Its SHA-256, hex: whoever reads it where others can write holds it against this.
    pub initrd_sha256: String,
    /// Command line with its NUL.
    pub command_line: PathBuf,
}

/// One virtual disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// By which the guest knows it.
    pub serial: String,
    /// Its bytes.
    pub file: PathBuf,
    /// What the guest may do with them.
    pub access: Access,
}

/// What a guest may do with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read. The monitor refuses writes, whatever the guest thinks of the disk.
    ReadOnly,
    /// Read and write what nobody reads after the guest: nothing waits for the host's disk.
    Ephemeral,
    /// What outlives the guest, and no other guest has while one writes it. The monitor refuses writes where it may not write.
    Kept(Writes),
}

/// Whether a guest writes to what outlives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// It does: what it flushes is on the host's disk, and what it discards is freed there.
    Allowed,
    /// It does not.
    Refused,
}

/// How a guest ended, and what its monitor said last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// How.
    pub how: How,
    /// The last lines the monitor itself wrote, if it wrote any. Foreign text.
    pub last_words: Option<String>,
}

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// It ended itself. The machine has one way to end, a reset, so that a guest that fell over looks the same.
    PoweredOff,
    /// stage0 refused to start the kernel. A guest that runs can say the same word later, where it means nothing.
    Refused(Refusal),
    /// The monitor gave up by itself, with this status.
    Status(i32),
    /// The monitor was killed by a signal, ours or anybody's.
    Signal(i32),
    /// The guest's vsock was lost, without which it cannot go on.
    VsockLost(String),
}

impl How {
    /// What happened, in words for people.
    pub fn words(&self, monitor: &str) -> String {
        match self {
            Self::PoweredOff => "the guest ended without saying how".to_string(),
            Self::Refused(refusal) => format!("the guest ended with the boot firmware's word for {}", refusal.word()),
            Self::Status(status) => format!("{monitor} ended with status {status}"),
            Self::Signal(signal) => format!("{monitor} was killed (signal {signal})"),
            Self::VsockLost(how) => format!("the vsock device died ({how})"),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::monitor) fn snp() -> SnpLaunch {
        SnpLaunch { policy: 0x3_0000, host_data: HostData::new([7; 32]), id: None, vcpu_type: "EPYC-Milan".into() }
    }
}
