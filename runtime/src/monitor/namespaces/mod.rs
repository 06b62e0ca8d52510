//! Boxes without a machine: the same init in namespaces of this host's kernel, for speed and not for isolation.
//!
//! Each has a process of `coffer` that holds it ([`hold()`]): as root of the host it makes the namespaces and mounts the
//! images and plugs the network card in, and inside them init ([`inside`]) has the ids of nobody here. Init is the one in the platform's initrd, which is hashed once ([`kept_init`]). Its vsock is
//! Unix sockets, its disks are files, its secure processor the simulated one or none.
//! Trusts: nothing a box says. Never: launches on hardware, or where nobody asked for it by name.
//! Source: docs/design/boot.md §3.2.

mod card;
mod group;
pub mod hold;
mod inside;
pub mod kept_init;
mod order;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

pub use group::check as check_limits;

use coffer_rim::{Class, Classify as _, Failure};
use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Child;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::child::{LastWords, keep_console, keep_words, last_words, spawn, with_words};
use super::{Capabilities, Console, End, How, Isolation, Launch, Monitor, Ready, Running, Starting};
use crate::sys::namespaces::knows;
pub use crate::sys::tap::TUN;
use crate::tools::{Program, Search};
use order::{Order, word};

/// What holds a box: ourselves.
pub const HOLDER: Program =
    Program { name: "coffer", variable: "COFFER_HOLDER", ours_to_build: true, remedy: "build it with `make build`" };

/// The command of ours that holds a box.
pub const COMMAND: &str = "hold";

/// How long a box may take to be made.
const PATIENCE: Duration = Duration::from_secs(30);

/// Namespaces as a monitor.
#[derive(Clone, Debug)]
pub struct Namespaces {
    search: Search,
}

impl Namespaces {
    /// With its program from here.
    pub fn new(search: &Search) -> Self {
        Self { search: search.clone() }
    }
}

impl Monitor for Namespaces {
    fn name(&self) -> &'static str {
        "coffer hold"
    }

    fn check(&self) -> Result<Capabilities, Failure> {
        self.search.program(&HOLDER)?;
        lacking().map_or_else(
            || Ok(Capabilities { hardware: true, why: "boxes run on this host's kernel".into() }),
            |(what, remedy)| {
                let message = format!("isolation {}: {what}", Isolation::Process);
                Err(Failure::new(Class::Platform, message).hint(remedy))
            },
        )
    }

    fn check_snp(&self) -> Result<(), Failure> {
        let message = format!(
            "isolation {} launches nothing on SEV-SNP: it has no machine, and no memory that a processor could encrypt",
            Isolation::Process
        );
        Err(Failure::new(Class::Platform, message).hint("use --isolation snp, or --tee-simulate in place of --tee"))
    }

    fn start<'a>(&'a self, launch: &'a Launch, console: Console, ready: Ready<'a>) -> Starting<'a> {
        async move {
            let process = Process::start(&self.search, launch, console, ready).await?;
            Ok(Box::new(process) as Box<dyn Running>)
        }
        .boxed()
    }
}

/// What this host lacks, and how to get it.
fn lacking() -> Option<(&'static str, &'static str)> {
    if !rustix::process::geteuid().is_root() {
        return Some((
            "only root can mount an image and give a box ids of its own",
            "run it as root, or leave --isolation out",
        ));
    }
    // In a container of somebody else's, root is somebody else.
    let ids = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    if !ids.split_whitespace().eq(["0", "0", "4294967295"]) {
        return Some((
            "this root is one of a user namespace, which can mount no image",
            "run it as root of the machine itself, or leave --isolation out",
        ));
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if mounts.lines().any(|line| line.contains(" / / ") && line.contains(" - rootfs ")) {
        return Some(("this host runs in its initramfs, which no box could leave", "leave --isolation out"));
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some(("there is no /dev/loop-control", "load the module `loop`, or leave --isolation out"));
    }
    if !knows("erofs") {
        return Some(("this kernel has no EROFS", "load the module `erofs`, or leave --isolation out"));
    }
    None
}

/// One box's holder.
#[derive(Debug)]
struct Process {
    child: Child,
    line: UnixStream,
    words: JoinHandle<LastWords>,
}

impl Process {
    async fn start(search: &Search, launch: &Launch, console: Console, ready: Ready<'_>) -> Result<Self, Failure> {
        let program = search.program(&HOLDER)?;
        let order = Order::of(launch)?.to_bytes()?;
        let (ours, theirs) = UnixStream::pair().class_while(Class::Platform, "cannot make a socket")?;
        let mut child = spawn(&launch.folder, &program, &[COMMAND.into()], Stdio::from(OwnedFd::from(theirs)))?;
        keep_console(child.stdout.take(), console);
        let mut words = keep_words(child.stderr.take(), &launch.folder);
        // While it makes the box, what stands outside of it becomes ready.
        let runs = async {
            send(&ours, &order).await?;
            if let Err(failure) = ready.await {
                return Ok(Err(failure));
            }
            begin(&ours).await.map(Ok)
        };
        let runs = timeout(PATIENCE, runs).await;
        if let Ok(Ok(Err(failure))) = runs {
            // Where its line ends the holder takes away what it made.
            drop(ours);
            let _ = timeout(PATIENCE, child.wait()).await;
            return Err(failure);
        }
        if !matches!(runs, Ok(Ok(Ok(true)))) {
            let _ = child.start_kill();
            let how = child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
            let failure = Failure::new(Class::Platform, format!("the box was not started in namespaces: {how}"));
            return Err(with_words(failure, last_words(&mut words).await.as_deref()));
        }
        Ok(Self { child, line: ours, words })
    }

    async fn end(&mut self) -> End {
        let how = self.child.wait().await.map_or(How::Status(-1), of_status);
        End { how, last_words: last_words(&mut self.words).await }
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
        // By the holder, which then waits until every process of the box is gone.
        if rustix::io::write(&self.line, &[word::KILL]).is_err() {
            let _ = self.child.start_kill();
        }
    }

    fn pause(&mut self) -> Result<(), Failure> {
        Err(Failure::new(Class::Platform, format!("isolation {} pauses nothing", Isolation::Process))
            .hint("a box with a machine of its own can be paused: make it without --isolation process; `coffer stop` ends this one"))
    }

    fn resume(&mut self) -> Result<(), Failure> {
        self.pause()
    }
}

async fn send(line: &UnixStream, bytes: &[u8]) -> io::Result<tokio::net::UnixStream> {
    let copy = line.try_clone()?;
    copy.set_nonblocking(true)?;
    let mut stream = tokio::net::UnixStream::from_std(copy)?;
    stream.write_all(bytes).await?;
    Ok(stream)
}

/// Has init begin, and says whether it runs.
async fn begin(line: &UnixStream) -> io::Result<bool> {
    let mut stream = send(line, &[word::BEGIN]).await?;
    let mut byte = [0];
    Ok(stream.read(&mut byte).await? == 1 && byte[0] == word::RUNS)
}

fn of_status(status: ExitStatus) -> How {
    match (status.signal(), status.code()) {
        (Some(signal), _) => How::Signal(signal),
        (None, Some(0)) => How::PoweredOff,
        (None, Some(code)) if code > i32::from(hold::SIGNALLED) => How::Signal(code - i32::from(hold::SIGNALLED)),
        (None, Some(code)) => How::Status(code),
        (None, None) => How::Status(-1),
    }
}
