//! The two processes behind a guest: the vsock device and QEMU.

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use coffer_machine::{Refusal, vsock};
use coffer_rim::{Class, Failure};
use futures_util::future::{BoxFuture, FutureExt as _};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::arguments::{VHOST, arguments};
use super::listening::listens;
use super::version::version_line;
use crate::boxes::files;
use crate::monitor::acceleration::Accelerator;
use crate::monitor::child::{LastWords, keep_console, keep_words, keep_words_and_look, last_words, spawn, with_words};
use crate::monitor::{Console, End, How, Launch, Running};

/// Programs found.
#[derive(Clone, Debug)]
pub struct Programs {
    /// QEMU.
    pub qemu: PathBuf,
    /// The vsock device.
    pub vhost_vsock: PathBuf,
}

/// Both processes.
#[derive(Debug)]
pub struct Processes {
    vsock: Child,
    qemu: Child,
    vsock_death: Option<String>,
    vsock_broken: Arc<Notify>,
    words: JoinHandle<LastWords>,
    encrypted: bool,
    program: PathBuf,
    began: Instant,
}

/// No guest has booted and ended sooner: what ends so may be no QEMU at all.
const SOON: Duration = Duration::from_secs(2);

/// How long after its socket was made a device is taken to listen, where it is no process that can be looked at: the child of a script.
const ANOTHERS: Duration = Duration::from_secs(1);

/// How long the device may take to make its socket.
const DEVICE_PATIENCE: Duration = Duration::from_secs(10);

impl Processes {
    /// Starts the device, then QEMU. What they say about themselves goes to the supervisor's log in the box folder.
    ///
    /// # Errors
    /// Class `platform` if one of them does not start.
    pub async fn start(
        programs: &Programs,
        launch: &Launch,
        accelerator: Accelerator,
        console: Console,
    ) -> Result<Self, Failure> {
        let folder = &launch.folder;
        let (cid, uds, buffer) = (vsock::GUEST_CID, files::VSOCK, vsock::TX_BUFFER);
        let words = format!("guest-cid={cid},socket={VHOST},uds-path={uds},tx-buffer-size={buffer}");
        let mut device = spawn(folder, &programs.vhost_vsock, &["--vm".into(), words], Stdio::null())?;
        let broken = Arc::new(Notify::new());
        let breaks = Arc::clone(&broken);
        let mut said = keep_words_and_look(device.stderr.take(), folder, move |words| {
            if words.tell_of_a_panic() {
                breaks.notify_one();
            }
        });
        drop(keep_words(device.stdout.take(), folder));
        let patience = Instant::now() + DEVICE_PATIENCE;
        let mut made = None;
        loop {
            if folder.join(VHOST).exists() {
                let made = *made.get_or_insert_with(Instant::now);
                if device.id().is_some_and(|process| listens(process, VHOST)) || made.elapsed() > ANOTHERS {
                    break;
                }
            }
            if let Ok(Some(status)) = device.try_wait() {
                let failure = Failure::new(Class::Platform, format!("vhost-device-vsock did not start: {status}"));
                return Err(with_words(failure, last_words(&mut said).await.as_deref()));
            }
            if Instant::now() > patience {
                return Err(Failure::new(Class::Platform, "vhost-device-vsock made no socket within 10 s"));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let mut qemu = spawn(folder, &programs.qemu, &arguments(launch, accelerator), Stdio::null())?;
        keep_console(qemu.stdout.take(), console);
        let words = keep_words(qemu.stderr.take(), folder);
        Ok(Self {
            vsock: device,
            qemu,
            vsock_death: None,
            vsock_broken: broken,
            words,
            encrypted: launch.snp.is_some(),
            program: programs.qemu.clone(),
            began: Instant::now(),
        })
    }

    async fn end(&mut self) -> End {
        let status = tokio::select! {
            status = self.qemu.wait() => status,
            // It stays, and carries nothing any more.
            () = self.vsock_broken.notified(), if self.vsock_death.is_none() => {
                self.vsock_death = Some("a thread of it broke".to_owned());
                self.kill();
                self.qemu.wait().await
            }
            status = self.vsock.wait(), if self.vsock_death.is_none() => {
                // The device also ends when QEMU hangs up: give QEMU the chance to have ended first.
                if let Ok(status) = timeout(Duration::from_millis(500), self.qemu.wait()).await {
                    status
                } else {
                    let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                    self.vsock_death = Some(how);
                    self.kill();
                    self.qemu.wait().await
                }
            }
        };
        let _ = self.vsock.kill().await;
        let how = match (&self.vsock_death, status) {
            (Some(how), _) => How::VsockLost(how.clone()),
            (None, Ok(status)) => of_status(status),
            (None, Err(_)) => How::Status(-1),
        };
        let mut said = last_words(&mut self.words).await;
        // One for a guest with encrypted memory was asked for its version before.
        if how == How::PoweredOff && !self.encrypted && self.began.elapsed() < SOON {
            let program = self.program.clone();
            let asked = tokio::task::spawn_blocking(move || version_line(&program)).await;
            said = asked.ok().and_then(Result::err).map(|failure| failure.message).or(said);
        }
        let last_words = if self.encrypted { said.map(explained) } else { said };
        End { how, last_words }
    }

    fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let pid = self.qemu.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        // There is a number only until the process was waited for, so that it is still its own.
        let sent = pid.ok_or(rustix::io::Errno::SRCH).and_then(|pid| kill_process(pid, signal));
        sent.map_err(|error| Failure::caused(Class::Platform, &std::io::Error::from(error)).while_doing("QEMU"))
    }
}

impl Running for Processes {
    fn pid(&self) -> Option<u32> {
        self.qemu.id()
    }

    fn wait(&mut self) -> BoxFuture<'_, End> {
        self.end().boxed()
    }

    fn kill(&mut self) {
        let _ = self.qemu.start_kill();
    }

    fn pause(&mut self) -> Result<(), Failure> {
        self.signal(Signal::STOP)
    }

    fn resume(&mut self) -> Result<(), Failure> {
        self.signal(Signal::CONT)
    }
}

/// What QEMU says of an SEV-SNP launch that it does not make, with what that means in front.
fn explained(words: String) -> String {
    let meanings = [
        (
            "not supported by KVM",
            "KVM on this machine launches no SEV-SNP guests (kvm_amd's parameter sev_snp is not Y)",
        ),
        ("KVM required", "SEV-SNP guests run on KVM alone, which does not open here"),
        ("Could not access KVM", "SEV-SNP guests run on KVM alone, which does not open here"),
        ("Invalid parameter", "this QEMU knows less of SEV-SNP guests than it says"),
        ("cbitpos", "this processor has its C-bit elsewhere than guests of this release are measured with"),
    ];
    match meanings.iter().find(|(said, _)| words.contains(said)) {
        Some((_, meaning)) => format!("{meaning}: {words}"),
        None => words,
    }
}

/// QEMU passes on what stage0 writes to its exit port, and ends with 0 when the guest does.
fn of_status(status: ExitStatus) -> How {
    match (status.signal(), status.code()) {
        (Some(signal), _) => How::Signal(signal),
        (None, Some(0)) => How::PoweredOff,
        (None, Some(code)) => Refusal::of_qemu_status(code).map_or(How::Status(code), How::Refused),
        (None, None) => How::Status(-1),
    }
}
