//! The two processes of a running box: the vsock device and QEMU.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use coffer_rim::{Class, Failure};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::bounded::BoundedLog;
use crate::boxes::{BoxOptions, files};
use crate::qemu::{self, Machine};
use crate::sys::child::dies_with_parent;
use crate::tools::{Tools, acceleration};
use coffer_machine::{console, vsock};
use coffer_spec::Tee;

/// How the VMM ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmmEnd {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// With the device it cannot go on without.
    VsockDied(String),
}

/// Both processes.
#[derive(Debug)]
pub struct Processes {
    vsock: Child,
    vmm: Child,
    vmm_pid: u32,
    vsock_death: Option<String>,
}

/// A console keeps this much, twice.
const CONSOLE_LIMIT: u64 = 512 << 10;
/// As much of the processes' own words.
const WORDS_LIMIT: u64 = 256 << 10;

impl Processes {
    /// Starts the device, then QEMU. Their output goes to bounded files in the box folder; `stage0` gets the phases the
    /// firmware announces.
    ///
    /// # Errors
    /// Class `platform` if one of them does not start.
    pub async fn start(
        folder: &Path,
        tools: &Tools,
        options: &BoxOptions,
        stage0: mpsc::UnboundedSender<&'static str>,
    ) -> Result<Self, Failure> {
        let (cid, buffer) = (vsock::GUEST_CID, vsock::TX_BUFFER);
        let (socket, uds) = (files::VHOST, files::VSOCK);
        let device = format!("guest-cid={cid},socket={socket},uds-path={uds},tx-buffer-size={buffer}");
        let mut vsock = spawn(folder, &tools.vhost_vsock, &["--vm".into(), device])?;
        keep(vsock.stdout.take(), folder, files::SUPERVISOR_LOG, WORDS_LIMIT, |_| {});
        keep(vsock.stderr.take(), folder, files::SUPERVISOR_LOG, WORDS_LIMIT, |_| {});
        let patience = Instant::now() + Duration::from_secs(10);
        while !folder.join(files::VHOST).exists() {
            if let Ok(Some(status)) = vsock.try_wait() {
                return Err(Failure::new(Class::Platform, format!("vhost-device-vsock did not start: {status}")));
            }
            if Instant::now() > patience {
                return Err(Failure::new(Class::Platform, "vhost-device-vsock made no socket within 10 s"));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let arguments = qemu::arguments(&Machine {
            accelerator: acceleration().accelerator,
            vcpus: options.vcpus,
            memory_bytes: options.memory_bytes,
            root: &options.root,
            volumes: options.volumes,
            scratch: options.scratch_bytes > 0,
            simulated: options.tee == Tee::Simulated,
        });
        let mut vmm = spawn(folder, &tools.qemu, &arguments)?;
        let mut ears = Stage0Ears::default();
        keep(vmm.stdout.take(), folder, files::CONSOLE, CONSOLE_LIMIT, move |bytes| {
            ears.hear(bytes, |phase| {
                let _ = stage0.send(phase);
            });
        });
        keep(vmm.stderr.take(), folder, files::SUPERVISOR_LOG, WORDS_LIMIT, |_| {});
        let vmm_pid = vmm.id().unwrap_or(0);
        Ok(Self { vsock, vmm, vmm_pid, vsock_death: None })
    }

    /// Process id of QEMU.
    pub fn vmm_pid(&self) -> u32 {
        self.vmm_pid
    }

    /// Waits until QEMU is gone; a dead device takes it along.
    pub async fn wait(&mut self) -> VmmEnd {
        let status = tokio::select! {
            status = self.vmm.wait() => status,
            status = self.vsock.wait(), if self.vsock_death.is_none() => {
                // The device also ends when QEMU hangs up: give QEMU the chance to have ended first.
                if let Ok(status) = tokio::time::timeout(Duration::from_millis(500), self.vmm.wait()).await {
                    status
                } else {
                    let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                    self.vsock_death = Some(how);
                    self.kill();
                    self.vmm.wait().await
                }
            }
        };
        let _ = self.vsock.kill().await;
        match (&self.vsock_death, status) {
            (Some(how), _) => VmmEnd::VsockDied(how.clone()),
            (None, Ok(status)) => of_status(status),
            (None, Err(_)) => VmmEnd::Code(-1),
        }
    }

    /// Ends QEMU now; [`Processes::wait`] then returns.
    pub fn kill(&mut self) {
        let _ = self.vmm.start_kill();
    }
}

fn of_status(status: ExitStatus) -> VmmEnd {
    status.signal().map_or_else(|| VmmEnd::Code(status.code().unwrap_or(-1)), VmmEnd::Signal)
}

/// Starts a child with an empty environment, nothing of ours open, and no longer life than ours.
fn spawn(folder: &Path, program: &Path, arguments: &[String]) -> Result<Child, Failure> {
    let mut command = std::process::Command::new(program);
    command.args(arguments).current_dir(folder).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    dies_with_parent(&mut command);
    Command::from(command).kill_on_drop(true).spawn().map_err(|error| {
        Failure::caused(Class::Platform, &error).while_doing(format!("cannot start {}", program.display()))
    })
}

/// Phase words for the lines stage0 writes, in their order.
const STAGE0_LINES: [(&str, &str); 2] = [(console::START, "stage0-started"), (console::CHECKED, "kernel-checked")];

/// Hears stage0's lines at the start of a console, each once.
#[derive(Default)]
struct Stage0Ears {
    start: Vec<u8>,
    heard: usize,
}

impl Stage0Ears {
    fn hear(&mut self, bytes: &[u8], mut told: impl FnMut(&'static str)) {
        let room = console::LIMIT.saturating_sub(self.start.len());
        self.start.extend_from_slice(&bytes[..bytes.len().min(room)]);
        while let Some((line, phase)) = STAGE0_LINES.get(self.heard)
            && self.start.windows(line.len()).any(|window| window == line.as_bytes())
        {
            self.heard += 1;
            told(phase);
        }
    }
}

/// Copies what a child says into a bounded file, to its end, and shows it to `listener`.
fn keep(
    output: Option<impl AsyncRead + Unpin + Send + 'static>,
    folder: &Path,
    name: &str,
    limit: u64,
    mut listener: impl FnMut(&[u8]) + Send + 'static,
) {
    let (Some(mut output), Ok(mut file)) = (output, BoundedLog::open(&folder.join(name), limit)) else { return };
    tokio::spawn(async move {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = output.read(&mut bytes).await {
            // A full disk loses words, and must not stop the guest by a full pipe.
            let _ = file.write(&bytes[..count]);
            listener(&bytes[..count]);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stage0_is_heard_in_pieces_once_and_only_at_the_start() {
        let mut ears = Stage0Ears::default();
        let mut heard = Vec::new();
        let said = format!("{}\n{}, copy=1\n{0}\n", console::START, console::CHECKED);
        for piece in said.as_bytes().chunks(10) {
            ears.hear(piece, |phase| heard.push(phase));
        }
        assert_eq!(heard, ["stage0-started", "kernel-checked"]);
        let mut late = Stage0Ears::default();
        late.hear(&[b'x'; console::LIMIT], |_| panic!("nothing was said"));
        late.hear(console::START.as_bytes(), |_| panic!("a guest's later output is not stage0's"));
    }
}
