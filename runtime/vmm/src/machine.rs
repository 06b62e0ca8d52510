//! The machine put together: KVM's part, our devices, the jail, and the threads that run them.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use coffer_machine::devices::{SERIAL_IRQ, VIRTIO_MMIO_BASE, VIRTIO_MMIO_COUNT, VIRTIO_MMIO_GSI, VIRTIO_MMIO_STRIDE};
use coffer_machine::memory::{Ram, vcpus_claimed};
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_pit_config};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, NoDatamatch, VcpuFd, VmFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::blk::Blk;
use crate::bus::{Bus, set_routes};
use crate::description::{self, Card, Description, Snp, word};
use crate::end::End;
use crate::io_apic::IoApic;
pub use crate::jail::Layers;
use crate::jail::filters::{FilterError, Thread, limit};
use crate::jail::{self, JailError};
use crate::load::{self, Files, LoadError};
use crate::net::{Lost, Net, Traffic};
use crate::ports::{Line, Ports};
use crate::rng::Rng;
use crate::snp::cpuid_page::Correction;
use crate::snp::host::{Finish, Identity, Page};
use crate::snp::kvm::KvmHost;
use crate::snp::{self, Launch, PrivateMemory, SnpError, plan};
use crate::sys::event::descriptor;
use crate::vcpu::{self, Gate};
use crate::virtio::{Device, Transport, Waits, register};
use crate::vsock::Vsock;
use crate::{Memory, cpuid, entry, sys};

/// Why a guest does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// A file of the description does not open.
    #[error("cannot open {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The vsock's socket cannot be made.
    #[error("cannot listen at {}", path.display())]
    Listen {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Nobody listens at the network card's socket.
    #[error("cannot connect the network card to {}", path.display())]
    Connect {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A guest that the machine model does not have.
    #[error("a guest has 1 to {} processors and at most {VIRTIO_MMIO_COUNT} devices", coffer_machine::map::MAX_VCPUS)]
    Model,
    /// KVM refused.
    #[error("KVM does not {what}")]
    Kvm {
        /// What was asked.
        what: &'static str,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// There is no memory for the guest.
    #[error("there is no memory for the guest")]
    Memory(#[source] vm_memory::mmap::FromRangesError),
    /// No SEV-SNP guest can be launched; there is no other guest in its place.
    #[error(transparent)]
    Snp(#[from] SnpError),
    /// Its files cannot be loaded.
    #[error("cannot load the guest")]
    Load(#[from] LoadError),
    /// The jail does not close.
    #[error("the jail does not close")]
    Jail(#[from] JailError),
    /// A thread is not limited.
    #[error("the jail does not close")]
    Filter(#[from] FilterError),
    /// The system does not give what a machine is made of.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

impl MachineError {
    /// The description or a file it names is to blame, not this host.
    pub const fn is_of_description(&self) -> bool {
        match self {
            Self::Open { .. } | Self::Model | Self::Load(_) => true,
            Self::Snp(error) => error.is_of_description(),
            _ => false,
        }
    }

    /// What whoever runs this host can do, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Snp(error) => error.hint(),
            _ => None,
        }
    }
}

fn kvm<T>(what: &'static str, done: Result<T, kvm_ioctls::Error>) -> Result<T, MachineError> {
    done.map_err(|cause| MachineError::Kvm { what, cause: cause.into() })
}

fn system<T, E: Into<io::Error>>(what: &'static str, done: Result<T, E>) -> Result<T, MachineError> {
    done.map_err(|cause| MachineError::System { what, cause: cause.into() })
}

/// What whoever runs a guest is told before it runs.
#[derive(Clone, Copy, Debug)]
pub enum News {
    /// The secure processor changed what the guest believes of its processor.
    Corrected(Correction),
    /// What the jail is made of.
    Jail(Layers),
    /// What the network lost, once the guest has ended.
    Lost(Network),
}

/// What became of the guest's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Frames of the guest that were dropped.
    pub from_guest: u64,
    /// Frames for the guest that were dropped.
    pub to_guest: u64,
    /// Why its link went down, if it did.
    pub link: Option<Lost>,
}

impl Network {
    /// None if nothing was lost.
    fn of(traffic: &Traffic) -> Option<Self> {
        let counted = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (from_guest, to_guest) = (counted(&traffic.dropped_from_guest), counted(&traffic.dropped_to_guest));
        let link = traffic.lost.get().copied();
        (from_guest > 0 || to_guest > 0 || link.is_some()).then_some(Self { from_guest, to_guest, link })
    }
}

/// Runs a guest to its end. `control` is the line the description came over, `output` the guest's serial line; `told` hears
/// the news.
///
/// # Errors
/// [`MachineError`]; no instruction of the guest has run then.
pub fn run(
    description: &Description,
    mut control: UnixStream,
    output: File,
    mut told: impl FnMut(News),
) -> Result<End, MachineError> {
    let count = vcpus_claimed(description.vcpus).map_err(|_| MachineError::Model)?;
    let (devices, traffic) = devices(description)?;
    let files = open_files(description)?;
    let bytes = usize::try_from(description.memory_bytes).unwrap_or(usize::MAX);
    Ram::claimed(description.memory_bytes).map_err(|_| LoadError::MemorySize { bytes: description.memory_bytes })?;
    // One machine in a process, whose memory goes with it.
    let memory: &'static Memory = Box::leak(Box::new(sys::memory::allocate(bytes).map_err(MachineError::Memory)?));
    if description.snp.is_some() {
        // Shared memory is where pages are; a large page would hold what is private a second time.
        sys::memory::in_small_pages(memory);
    }
    let system_device = kvm("open", Kvm::new())?;
    let (vm, launched) = if let Some(snp) = &description.snp {
        let (vm, processors, private) = launched(snp, description, count, memory, &files, &mut told)?;
        (vm, Some((processors, Arc::new(private))))
    } else {
        load::load(memory, description.memory_bytes, count, &files)?;
        (plain(&system_device, memory)?, None)
    };
    drop(files);
    kvm("route interrupts", set_routes(&vm, &IoApic::default()))?;

    let serial = system("make an event", EventFd::new(EFD_NONBLOCK))?;
    kvm("take an interrupt", vm.register_irqfd(&serial, SERIAL_IRQ))?;
    let mut transports = Vec::new();
    let mut served = Vec::new();
    for (index, (kind, device)) in (0..).zip(devices) {
        let (transport, kick) = attach(&vm, index, device)?;
        transports.push(Arc::clone(&transport));
        served.push((kind, transport, kick));
    }
    let (processors, private) = match launched {
        Some((processors, private)) => (processors, Some(private)),
        None => (processors(&system_device, &vm, count)?, None),
    };
    let bus = Arc::new(Bus::new(Ports::new(Line(serial), output), transports, vm, memory));

    told(News::Jail(jail::close(DESCRIPTORS)?));
    system("take signals", vcpu::hear_signals())?;
    let gate = Arc::new(Gate::default());
    let ended = Arc::new(Ended { how: OnceLock::new(), event: system("make an event", EventFd::new(EFD_NONBLOCK))? });
    for (kind, transport, kick) in served {
        start(kind.name(), &ended, move || match serve(kind, &transport, &kick, memory) {
            Err(error) => End::Stuck(error.to_string()),
        })?;
    }
    let mut threads = Vec::new();
    for processor in processors {
        let (bus, gate) = (Arc::clone(&bus), Arc::clone(&gate));
        let private = private.clone();
        let kind = if private.is_some() { Thread::SnpProcessor } else { Thread::Processor };
        threads.push(start("processor", &ended, move || match limit(kind) {
            Ok(()) => vcpu::run(processor, &bus, &gate, private.as_deref()),
            Err(error) => End::Stuck(error.to_string()),
        })?);
    }
    limit(Thread::Main)?;
    system("tell the supervisor", control.write_all(&[word::RUNS]))?;
    let end = listen(&mut control, &ended, &gate, &threads);
    if let Some(lost) = traffic.and_then(|traffic| Network::of(&traffic)) {
        told(News::Lost(lost));
    }
    Ok(end)
}

/// A machine without processors, whose memory the host sees.
fn plain(system_device: &Kvm, memory: &'static Memory) -> Result<VmFd, MachineError> {
    let vm = kvm("make a machine", system_device.create_vm())?;
    kvm("take memory", sys::memory::give(&vm, memory))?;
    kvm("take the address of its task state", vm.set_tss_address(TASK_STATE))?;
    kvm("make interrupt controllers", vm.create_irq_chip())?;
    kvm("make a timer", vm.create_pit2(kvm_pit_config::default()))?;
    Ok(vm)
}

/// An SEV-SNP guest with its processors, launched.
fn launched(
    snp: &Snp,
    description: &Description,
    vcpus: u32,
    memory: &'static Memory,
    files: &Files,
    told: &mut impl FnMut(News),
) -> Result<(VmFd, Vec<VcpuFd>, PrivateMemory), MachineError> {
    let identity = snp.identity.as_ref().map(identity).transpose()?;
    let memory_bytes = description.memory_bytes;
    let loaded = load::load_snp(memory, memory_bytes, vcpus, files)?;
    let mut all = Launch {
        policy: snp.policy,
        memory_bytes,
        shared: loaded.shared,
        vcpus,
        runs: plan::plan(&loaded.rom, &loaded.hashes),
        finish: Finish { host_data: snp.host_data.0, identity },
    };
    let mut host = KvmHost::new(kvm("open", Kvm::new())?, memory);
    for correction in snp::launch(&mut host, &mut all)? {
        told(News::Corrected(correction));
    }
    host.made(Ram { end: memory_bytes }).ok_or(MachineError::Model)
}

/// Reads what an author signed.
fn identity(named: &description::Identity) -> Result<Identity, MachineError> {
    let read = |part: &'static str, path: &PathBuf, bytes: &mut [u8]| {
        let file = File::open(path).map_err(|cause| MachineError::Open { path: path.clone(), cause })?;
        load::whole(part, &file, bytes).map_err(MachineError::Load)
    };
    let (mut block, mut auth) = (Box::new([0; 96]), Box::new(Page::ZERO));
    read("ID block", &named.block, &mut block[..])?;
    read("ID authentication block", &named.auth, &mut auth.0)?;
    Ok(Identity { block, auth, author_key: named.author_key })
}

/// How the machine ended: who says it first is right.
struct Ended {
    how: OnceLock<End>,
    event: EventFd,
}

impl Ended {
    fn with(&self, end: End) {
        let _ = self.how.set(end);
        let _ = self.event.write(1);
    }
}

/// Does what the supervisor says until the machine ends. A supervisor that is gone ends it.
fn listen(control: &mut UnixStream, ended: &Ended, gate: &Gate, processors: &[thread::JoinHandle<()>]) -> End {
    loop {
        let (said, over) = {
            let mut both = [
                PollFd::new(&*control, PollFlags::IN),
                PollFd::from_borrowed_fd(descriptor(&ended.event), PollFlags::IN),
            ];
            let _ = poll(&mut both, None);
            (!both[0].revents().is_empty(), !both[1].revents().is_empty())
        };
        if over && let Some(end) = ended.how.get() {
            return end.clone();
        }
        if !said {
            continue;
        }
        let mut byte = [0];
        let done = match control.read(&mut byte) {
            Ok(1) if byte[0] == word::PAUSE => gate.close(processors),
            Ok(1) if byte[0] == word::RESUME => {
                gate.open();
                Ok(())
            }
            Ok(1) => Err(io::ErrorKind::InvalidInput.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(_) | Err(_) => return End::Unwanted,
        };
        let answer = if done.is_ok() { byte[0] } else { b'!' };
        if control.write_all(&[answer]).is_err() {
            return End::Unwanted;
        }
    }
}

/// Starts a thread whose end is the machine's, a panic's too: a guest without one of its devices would wait for ever.
fn start(
    name: &'static str,
    ended: &Arc<Ended>,
    body: impl FnOnce() -> End + Send + 'static,
) -> Result<thread::JoinHandle<()>, MachineError> {
    let ended = Arc::clone(ended);
    let whole = move || {
        let end = catch_unwind(AssertUnwindSafe(body));
        ended.with(end.unwrap_or_else(|_| End::Stuck(format!("the thread `{name}` panicked"))));
    };
    system("start a thread", thread::Builder::new().name(name.into()).stack_size(STACK).spawn(whole))
}

/// A device, and the kind of thread that serves it.
type Served = (Thread, Box<dyn Device>);

/// All devices, and what becomes of the network's traffic.
fn devices(description: &Description) -> Result<(Vec<Served>, Option<Arc<Traffic>>), MachineError> {
    let mut all: Vec<Served> = Vec::new();
    for disk in &description.disks {
        let path = &disk.file;
        let opened = File::options().read(true).write(disk.writable).open(path);
        let made = opened.and_then(|file| Blk::new(file, disk));
        let blk = made.map_err(|cause| MachineError::Open { path: path.clone(), cause })?;
        all.push((Thread::Disk, Box::new(blk)));
    }
    let path = &description.vsock;
    let made = listen_at(path).and_then(|listener| Vsock::new(listener, path));
    let vsock = made.map_err(|cause| MachineError::Listen { path: path.clone(), cause })?;
    all.push((Thread::Vsock, Box::new(vsock)));
    let mut traffic = None;
    if let Some(Card { socket: path, mac, mtu }) = &description.net {
        let made = UnixStream::connect(path).and_then(|socket| Net::new(socket, mac.bytes(), (*mtu).into()));
        let net = made.map_err(|cause| MachineError::Connect { path: path.clone(), cause })?;
        traffic = Some(net.traffic());
        all.push((Thread::Net, Box::new(net)));
    }
    if description.rng {
        all.push((Thread::Rng, Box::new(Rng)));
    }
    if all.len() <= VIRTIO_MMIO_COUNT as usize { Ok((all, traffic)) } else { Err(MachineError::Model) }
}

/// Listens in place of an earlier guest of the same box.
fn listen_at(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

fn open_files(description: &Description) -> Result<Files, MachineError> {
    let open = |path: &PathBuf| File::open(path).map_err(|cause| MachineError::Open { path: path.clone(), cause });
    Ok(Files {
        stage0: open(&description.stage0)?,
        hashes: open(&description.hashes)?,
        kernel: open(&description.kernel)?,
        initrd: open(&description.initrd)?,
        command_line: open(&description.command_line)?,
        secrets: description.secrets.as_ref().map(open).transpose()?,
    })
}

/// Hangs a device on its transport: its notifications wake its thread and its interrupt reaches the guest without a way
/// through this process.
fn attach(vm: &VmFd, index: u32, device: Box<dyn Device>) -> Result<(Arc<Transport>, EventFd), MachineError> {
    let event = || system("make an event", EventFd::new(EFD_NONBLOCK));
    let (kick, interrupt) = (event()?, event()?);
    let notify = VIRTIO_MMIO_BASE + u64::from(index) * VIRTIO_MMIO_STRIDE + register::NOTIFY;
    kvm("take notifications", vm.register_ioevent(&kick, &IoEventAddress::Mmio(notify), NoDatamatch))?;
    kvm("take an interrupt", vm.register_irqfd(&interrupt, VIRTIO_MMIO_GSI + index))?;
    let by_hand = system("make an event", kick.try_clone())?;
    let raise = move || {
        let _ = interrupt.write(1);
    };
    let transport = Transport::new(device, raise, move || {
        let _ = by_hand.write(1);
    });
    Ok((Arc::new(transport), kick))
}

/// Serves a device for as long as the machine lives.
fn serve(kind: Thread, transport: &Transport, kick: &EventFd, memory: &Memory) -> Result<Infallible, MachineError> {
    // A copy of the descriptor: the device itself is behind the lock that serving it takes.
    let wakes = transport.with_wakes(|wakes| wakes.map(|wakes| wakes.try_clone_to_owned()).transpose());
    let wakes = system("copy a descriptor", wakes)?;
    limit(kind)?;
    // A descriptor stays readable while nobody reads it: what no driver runs is not waited for.
    let mut waits = Waits::NONE;
    loop {
        let mut both = vec![PollFd::from_borrowed_fd(descriptor(kick), PollFlags::IN)];
        let watched = wakes.as_ref().filter(|_| !waits.events.is_empty());
        both.extend(watched.map(|wakes| PollFd::from_borrowed_fd(wakes.as_fd(), waits.events)));
        let patience = waits.until.map(|until| patience(until.saturating_duration_since(Instant::now())));
        match poll(&mut both, patience.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => system("wait for a device", Err::<(), io::Error>(error.into()))?,
        }
        let _ = kick.read();
        waits = transport.serve(memory);
    }
}

fn patience(left: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() }
}

fn processors(system_device: &Kvm, vm: &VmFd, count: u32) -> Result<Vec<VcpuFd>, MachineError> {
    let offered = kvm("say what processors it has", system_device.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES))?;
    let deadline_timer = system_device.check_extension(Cap::TscDeadlineTimer);
    (0..count)
        .map(|id| {
            let processor = kvm("make a processor", vm.create_vcpu(id.into()))?;
            let mut own = offered.clone();
            cpuid::adapt(own.as_mut_slice(), id, count, deadline_timer);
            kvm("take what a processor says of itself", processor.set_cpuid2(&own))?;
            if id == 0 {
                let at_reset = kvm("say a processor's state", processor.get_sregs())?;
                kvm("take a processor's state", processor.set_sregs(&entry::system_registers(&at_reset, false)))?;
                kvm("take a processor's state", processor.set_regs(&entry::registers(true)))?;
            }
            Ok(processor)
        })
        .collect()
}

/// Three pages below the ROM that KVM needs on Intel's processors.
const TASK_STATE: usize = 0xFFFB_D000;
/// Most descriptors: 512 streams, as many who ask, disks, KVM's.
const DESCRIPTORS: u64 = 1024;
/// Stack of a thread.
const STACK: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_ends_or_panics_is_the_end_of_the_machine() {
        for (panics, expected) in [(false, "as told"), (true, "the thread `rng` panicked")] {
            let event = EventFd::new(EFD_NONBLOCK).unwrap();
            let ended = Arc::new(Ended { how: OnceLock::new(), event });
            let body = move || if panics { panic!("a defect") } else { End::Stuck("as told".into()) };
            start(Thread::Rng.name(), &ended, body).unwrap().join().unwrap();
            assert_eq!(ended.how.get(), Some(&End::Stuck(expected.into())));
            assert_eq!(ended.event.read().unwrap(), 1, "and whoever waits hears it");
        }
    }
}
