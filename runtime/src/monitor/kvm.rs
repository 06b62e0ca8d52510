//! Guests in our own monitor on KVM: for each a process of `coffer-vmm`, which jails itself before the guest runs.
//!
//! The process gets the guest's description over a socket that stays the line between us: it says when the guest runs, and
//! it pauses the guest and lets it go on. When that line ends, so does the guest.
//! Source: `coffer_vmm`.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use coffer_machine::Refusal;
use coffer_rim::{Class, Classify as _, Failure};
use coffer_vmm::description::{self, CardError, Description, word};
use futures_util::future::{BoxFuture, FutureExt as _};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Child;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::acceleration::{Accelerator, acceleration};
use super::child::{LastWords, keep_console, keep_words, last_words, spawn, with_words};
use super::{Access, Capabilities, Card, Console, End, How, Launch, Monitor, Ready, Running, Starting, Writes};
use crate::boxes::files;
use crate::host::needs::{Facts, can_launch};
use crate::tools::{Program, Search};

/// Our monitor.
pub const VMM: Program =
    Program { name: "coffer-vmm", variable: "COFFER_VMM", ours_to_build: true, remedy: "build it with `make build`" };

/// How long a guest may take to be loaded.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take to pause.
const PAUSE_PATIENCE: Timespec = Timespec { tv_sec: 3, tv_nsec: 0 };

/// Our monitor as a monitor.
#[derive(Clone, Debug)]
pub struct Kvm {
    search: Search,
}

impl Kvm {
    /// With its program from here.
    pub fn new(search: &Search) -> Self {
        Self { search: search.clone() }
    }
}

impl Monitor for Kvm {
    fn name(&self) -> &'static str {
        "coffer-vmm"
    }

    fn check(&self) -> Result<Capabilities, Failure> {
        self.search.program(&VMM)?;
        let found = acceleration();
        if found.accelerator == Accelerator::Kvm {
            Ok(Capabilities { hardware: true, why: found.why })
        } else {
            Err(Failure::new(Class::Platform, found.why)
                .hint("kvm runs guests on the processor alone; `coffer doctor` says what does run them here"))
        }
    }

    fn check_snp(&self) -> Result<(), Failure> {
        self.search.program(&VMM)?;
        can_launch(&Facts::gather())
    }

    fn start<'a>(&'a self, launch: &'a Launch, console: Console, ready: Ready<'a>) -> Starting<'a> {
        async move {
            ready.await?;
            let process = Process::start(&self.search, launch, console).await?;
            Ok(Box::new(process) as Box<dyn Running>)
        }
        .boxed()
    }
}

/// One guest's process.
#[derive(Debug)]
struct Process {
    child: Child,
    line: UnixStream,
    words: JoinHandle<LastWords>,
}

impl Process {
    async fn start(search: &Search, launch: &Launch, console: Console) -> Result<Self, Failure> {
        let program = search.program(&VMM)?;
        let description = describe(launch).map_err(|error| Failure::caused(Class::Config, &error))?;
        let line = description.to_line().map_err(|error| Failure::caused(Class::Config, &error))?;
        let (ours, theirs) = UnixStream::pair().class_while(Class::Platform, "cannot make a socket")?;
        let mut child = spawn(&launch.folder, &program, &[], Stdio::from(OwnedFd::from(theirs)))?;
        keep_console(child.stdout.take(), console);
        let mut words = keep_words(child.stderr.take(), &launch.folder);
        let runs = timeout(PATIENCE, hand_over(&ours, &line)).await;
        if !matches!(runs, Ok(Ok(true))) {
            let _ = child.start_kill();
            let how = child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
            let failure = Failure::new(Class::Platform, format!("coffer-vmm did not start the guest: {how}"));
            return Err(with_words(failure, last_words(&mut words).await.as_deref()));
        }
        Ok(Self { child, line: ours, words })
    }

    async fn end(&mut self) -> End {
        let how = self.child.wait().await.map_or(How::Status(-1), of_status);
        End { how, last_words: last_words(&mut self.words).await }
    }

    /// Says a word, and waits until it is so.
    fn ask(&mut self, said: u8) -> Result<(), Failure> {
        let done = self.exchange(said).map_err(|error| Failure::caused(Class::Platform, &error))?;
        if done == said {
            Ok(())
        } else {
            Err(Failure::new(Class::Platform, "coffer-vmm did not pause the guest in time"))
        }
    }

    /// The socket does not block, since its other copy was tokio's.
    fn exchange(&self, said: u8) -> std::io::Result<u8> {
        rustix::io::write(&self.line, &[said])?;
        let mut answer = [PollFd::new(&self.line, PollFlags::IN)];
        if poll(&mut answer, Some(&PAUSE_PATIENCE))? == 0 {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        let mut byte = [0];
        match rustix::io::read(&self.line, &mut byte)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(byte[0]),
        }
    }
}

impl Running for Process {
    fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    fn wait(&mut self) -> BoxFuture<'_, End> {
        self.end().boxed()
    }

    fn kill(&mut self) {
        let _ = self.child.start_kill();
    }

    fn pause(&mut self) -> Result<(), Failure> {
        self.ask(word::PAUSE)
    }

    fn resume(&mut self) -> Result<(), Failure> {
        self.ask(word::RESUME)
    }
}

/// Sends the description, and says whether the guest runs.
async fn hand_over(line: &UnixStream, description: &[u8]) -> std::io::Result<bool> {
    let copy = line.try_clone()?;
    copy.set_nonblocking(true)?;
    let mut stream = tokio::net::UnixStream::from_std(copy)?;
    stream.write_all(description).await?;
    let mut byte = [0];
    Ok(stream.read(&mut byte).await? == 1 && byte[0] == word::RUNS)
}

fn describe(launch: &Launch) -> Result<Description, CardError> {
    let measured = launch.measured.clone();
    let disks = launch.disks.iter().map(|disk| description::Disk {
        serial: disk.serial.clone(),
        file: disk.file.clone(),
        writable: matches!(disk.access, Access::Ephemeral | Access::Kept(Writes::Allowed)),
        kept: matches!(disk.access, Access::Kept(_)),
    });
    let net = launch.card.map(|Card { socket, mac, mtu }| {
        Ok(description::Card { socket: socket.into(), mac: mac.try_into()?, mtu: mtu.try_into()? })
    });
    Ok(Description {
        memory_bytes: launch.memory_bytes,
        vcpus: launch.vcpus,
        stage0: measured.stage0,
        hashes: measured.hashes,
        kernel: measured.kernel,
        initrd: measured.initrd,
        command_line: measured.command_line,
        secrets: launch.secrets.clone(),
        disks: disks.collect(),
        vsock: files::VSOCK.into(),
        net: net.transpose()?,
        rng: false,
        snp: launch.snp.as_ref().map(|snp| description::Snp {
            policy: snp.policy,
            host_data: description::HostData(*snp.host_data.as_bytes()),
            identity: snp.id.as_ref().map(|id| description::Identity {
                block: files::ID_BLOCK.into(),
                auth: files::ID_AUTH.into(),
                author_key: id.author,
            }),
        }),
    })
}

fn of_status(status: ExitStatus) -> How {
    match (status.signal(), status.code()) {
        (Some(signal), _) => How::Signal(signal),
        (None, Some(0)) => How::PoweredOff,
        (None, Some(code)) => {
            let refusal = u8::try_from(code).ok().and_then(Refusal::of_exit_byte);
            refusal.map_or(How::Status(code), How::Refused)
        }
        (None, None) => How::Status(-1),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use tokio::sync::mpsc;

    use super::*;
    use crate::monitor::fake::ready;
    use crate::monitor::{Disk, Limits, Measured, SnpId};

    fn launch(folder: &Path) -> Launch {
        let measured = Measured {
            stage0: "stage0.bin".into(),
            hashes: "hashes.bin".into(),
            kernel: "kernel".into(),
            initrd: "initrd".into(),
            initrd_sha256: String::new(),
            command_line: "cmdline".into(),
        };
        let disk = |file: &str, access| Disk { serial: file.into(), file: file.into(), access };
        let disks = vec![
            disk("root", Access::ReadOnly),
            disk("scratch", Access::Ephemeral),
            disk("kept", Access::Kept(Writes::Allowed)),
            disk("cold", Access::Kept(Writes::Refused)),
        ];
        Launch {
            folder: folder.into(),
            measured,
            secrets: None,
            snp: None,
            disks,
            vcpus: 2,
            memory_bytes: 1 << 28,
            limits: Limits::default(),
            card: None,
        }
    }

    /// A script in the monitor's place. Its standard input is the line, in both directions.
    async fn start(folder: &Path, script: &str) -> Result<Box<dyn Running>, Failure> {
        let path = folder.join("vmm");
        std::fs::write(&path, format!("#!/bin/sh\nPATH=/usr/bin:/bin\nread description\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        let search = Search { named: BTreeMap::from([(VMM.variable, path)]), ..Search::default() };
        let (reached, _) = mpsc::unbounded_channel();
        Kvm::new(&search).start(&launch(folder), Console::open(folder, reached), ready()).await
    }

    #[tokio::test]
    async fn every_status_becomes_a_typed_end_with_its_last_words() {
        let refused = format!("printf s >&0; exit {}", Refusal::InitrdHash.exit_byte());
        let cases = [
            ("printf s >&0; exit 0", How::PoweredOff, None),
            (refused.as_str(), How::Refused(Refusal::InitrdHash), None),
            ("printf s >&0; echo one >&2; echo two >&2; exit 1", How::Status(1), Some("one; two")),
            ("printf s >&0; kill -9 $$", How::Signal(9), None),
        ];
        for (script, how, words) in cases {
            let dir = tempfile::tempdir().unwrap();
            let end = start(dir.path(), script).await.unwrap().wait().await;
            assert_eq!((end.how, end.last_words.as_deref()), (how, words), "{script}");
        }
    }

    #[tokio::test]
    async fn the_description_says_what_the_guest_may_write() {
        let dir = tempfile::tempdir().unwrap();
        let mut running = start(dir.path(), "echo \"$description\" > said; printf s >&0").await.unwrap();
        assert_eq!(running.wait().await.how, How::PoweredOff);
        let said = std::fs::read(dir.path().join("said")).unwrap();
        let description = Description::parse(&said).unwrap();
        assert_eq!(description, describe(&launch(dir.path())).unwrap());
        let said: Vec<_> = description.disks.iter().map(|disk| (disk.writable, disk.kept)).collect();
        assert_eq!(said, [(false, false), (true, false), (true, true), (false, true)]);
    }

    #[tokio::test]
    async fn a_guest_is_paused_goes_on_and_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let script =
            "printf s >&0; for turn in 1 2; do dd bs=1 count=1 of=got$turn 2>&1; cat got$turn >&0; done; exec sleep 60";
        let mut running = start(dir.path(), script).await.unwrap();
        running.pause().unwrap();
        assert_eq!(std::fs::read(dir.path().join("got1")).unwrap(), [word::PAUSE]);
        running.resume().unwrap();
        assert_eq!(std::fs::read(dir.path().join("got2")).unwrap(), [word::RESUME]);
        running.kill();
        assert_eq!(running.wait().await.how, How::Signal(9));
    }

    #[tokio::test]
    async fn a_guest_that_does_not_pause_is_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        let mut running =
            start(dir.path(), "printf s >&0; dd bs=1 count=1 of=got 2>&1; printf '!' >&0; sleep 60").await.unwrap();
        assert_eq!(running.pause().unwrap_err().class, Class::Platform);
    }

    #[tokio::test]
    async fn what_does_not_start_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let failure = start(dir.path(), "echo no such memory >&2; exit 4").await.err().unwrap();
        assert_eq!(failure.class, Class::Platform);
        assert!(failure.message.contains("did not start the guest"), "{failure}");
        assert!(failure.message.ends_with("no such memory"), "{failure}");
        let missing = Kvm::new(&Search::default()).check().unwrap_err();
        assert_eq!(missing.message, "coffer-vmm was not found");
    }

    #[tokio::test]
    async fn what_is_to_be_encrypted_is_described_so_and_never_plain() {
        let dir = tempfile::tempdir().unwrap();
        let id = SnpId { block: vec![0; 96], auth: vec![0; 4096], author: true };
        let plain = describe(&launch(dir.path())).unwrap();
        assert_eq!(plain.snp, None);
        let snp = Some(crate::monitor::seam::tests::snp());
        let encrypted = describe(&Launch { snp: snp.clone(), ..launch(dir.path()) }).unwrap();
        let told = encrypted.snp.clone().unwrap();
        assert_eq!((told.policy, told.host_data.0, told.identity), (0x3_0000, [7; 32], None));
        assert_eq!(Description { snp: None, ..encrypted }, plain);
        let signed = snp.map(|snp| crate::monitor::SnpLaunch { id: Some(id), ..snp });
        let signed = describe(&Launch { snp: signed, ..launch(dir.path()) }).unwrap();
        let identity = signed.snp.unwrap().identity.unwrap();
        assert_eq!((identity.block.to_str(), identity.author_key), (Some(files::ID_BLOCK), true));
    }

    #[test]
    fn only_a_guest_with_a_card_has_one_and_its_frames_go_to_our_socket() {
        let folder = Path::new("/boxes/one");
        let card = crate::monitor::network::card(&coffer_spec::Network::user());
        for snp in [None, Some(crate::monitor::seam::tests::snp())] {
            let without = Launch { snp, ..launch(folder) };
            let with = describe(&Launch { card: Some(card), ..without.clone() }).unwrap();
            let said = with.net.clone().unwrap();
            assert_eq!((said.socket.to_str(), said.mac.bytes()), (Some(files::NETWORK), card.mac));
            assert_eq!(u16::from(said.mtu), card.mtu);
            assert_eq!(Description { net: None, ..with }, describe(&without).unwrap());
        }
        // A card that is none is no guest without one.
        for wrong in [Card { mac: [1, 0, 0, 0, 0, 1], ..card }, Card { mtu: 1000, ..card }] {
            assert!(describe(&Launch { card: Some(wrong), ..launch(folder) }).is_err(), "{wrong:?}");
        }
    }

    /// The monitor itself, where it was built: it refuses, and starts nothing in the guest's place.
    #[tokio::test]
    async fn without_hardware_the_monitor_says_what_kvm_lacks() {
        let built = std::env::current_exe().unwrap();
        let program = built.parent().unwrap().parent().unwrap().join("coffer-vmm");
        if !program.exists() || Path::new("/dev/sev").exists() {
            return eprintln!("skipped: coffer-vmm was not built, or this host may launch");
        }
        let dir = tempfile::tempdir().unwrap();
        let search = Search { named: BTreeMap::from([(VMM.variable, program)]), ..Search::default() };
        let (reached, _) = mpsc::unbounded_channel();
        let launch = Launch { snp: Some(crate::monitor::seam::tests::snp()), ..launch(dir.path()) };
        let failure =
            Kvm::new(&search).start(&launch, Console::open(dir.path(), reached), ready()).await.err().unwrap();
        assert_eq!(failure.class, Class::Platform);
        assert!(failure.message.contains("did not start the guest"), "{failure}");
    }
}
