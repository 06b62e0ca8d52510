//! A machine that boots stage0 and nothing of Coffer's runtime: QEMU with what a hostile host could give it.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use coffer_machine::{
    Refusal, fw_cfg,
    map::{ACPI_GPA, ACPI_SIZE, PAGE, ROM_HASHES},
    qemu,
};
use coffer_platform::{files::Platform, plan::LaunchPlan};
use coffer_verifier::measure::LaunchForm;
use tempfile::TempDir;

use crate::process::{Service, wait_for};

/// What the host gives. Every part can differ from what was measured.
#[derive(Clone, Debug)]
pub struct BareBoot {
    /// ROM image, without hashes.
    pub stage0: Vec<u8>,
    /// Page of kernel hashes, which is put into it.
    pub hash_page: Vec<u8>,
    /// bzImage; `None`: no such item.
    pub kernel: Option<Vec<u8>>,
    /// Initrd; `None`: no such item.
    pub initrd: Option<Vec<u8>>,
    /// Command line as it lies in the item, with its NUL.
    pub command_line: Vec<u8>,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Bytes put into memory before the machine starts.
    pub in_memory: Vec<(u64, Vec<u8>)>,
    /// Empty disks.
    pub disks: u32,
}

/// How it ended.
#[derive(Debug)]
pub struct Outcome {
    /// stage0's reason, by QEMU's exit status.
    pub refusal: Option<Refusal>,
    /// The serial line.
    pub console: String,
}

impl BareBoot {
    /// What an honest host gives for this platform and command line (without its NUL).
    ///
    /// # Errors
    /// If there is no launch plan.
    pub fn honest(platform: &Platform, command_line: &str) -> Result<Self> {
        let signature = coffer_platform::plan::VCPU_TYPE.parse()?;
        let plan = LaunchPlan::new(&platform.launch_inputs(LaunchForm::ResetVector, command_line, 1, signature))?;
        Ok(Self {
            stage0: platform.stage0.clone(),
            hash_page: plan.hash_page().to_vec(),
            kernel: Some(platform.kernel.clone()),
            initrd: Some(platform.initrd.clone()),
            command_line: format!("{command_line}\0").into_bytes(),
            vcpus: 1,
            memory_mib: 512,
            in_memory: Vec::new(),
            disks: 0,
        })
    }

    /// Boots until the machine ends, or the console says `until`.
    ///
    /// # Errors
    /// If QEMU does not start, or neither happens within 40 seconds.
    pub fn run(&self, until: &str) -> Result<Outcome> {
        let folder = tempfile::Builder::new().prefix("coffer-bare-").tempdir()?;
        let command = self.command(folder.path())?;
        wait(command, &folder, until)
    }

    /// Boots in this folder with more words for QEMU, and leaves it to run; its console is the file of that name. Its memory is shared with
    /// devices in other processes.
    ///
    /// # Errors
    /// If QEMU cannot be started.
    pub fn start_with(&self, folder: &Path, words: &[&str]) -> Result<Service> {
        let size = u64::from(self.memory_mib) << 20;
        let mut command = self.command(folder)?;
        command.args(["-machine", "memory-backend=mem0"]);
        command.args(["-object", &format!("memory-backend-memfd,id=mem0,size={size},share=on")]).args(words);
        let arguments: Vec<_> = command.get_args().skip(3).map(ToOwned::to_owned).collect();
        let (program, words) = arguments.split_first().context("a program")?;
        Service::start(program, |command| {
            command.args(words).current_dir(folder).stdout(Stdio::null());
        })
    }

    /// The same kernel, initrd and command line as QEMU boots them by itself: nothing is checked. For comparison.
    ///
    /// # Errors
    /// As [`BareBoot::run`].
    pub fn run_plain(&self, until: &str) -> Result<Outcome> {
        let folder = tempfile::Builder::new().prefix("coffer-bare-").tempdir()?;
        let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes);
        let mut tables = [0; ACPI_SIZE];
        coffer_stage0::acpi::write(&mut tables, self.vcpus);
        write("acpi", &tables)?;
        write("kernel", self.kernel.as_deref().unwrap_or_default())?;
        write("initrd", self.initrd.as_deref().unwrap_or_default())?;
        let mut command = self.machine(folder.path());
        let line = String::from_utf8_lossy(&self.command_line).trim_end_matches('\0').to_owned();
        command.args(["-kernel", "kernel", "-initrd", "initrd", "-append", &line]);
        command.args(["-device", &qemu::loader("acpi", ACPI_GPA).to_string()]);
        wait(command, &folder, until)
    }

    fn machine(&self, folder: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"]).current_dir(folder);
        command.args(["-M", qemu::MACHINE, "-cpu", "max"]);
        command.args(["-accel", "tcg,thread=single"]);
        command.args(["-smp", &self.vcpus.to_string(), "-m", &format!("{}M", self.memory_mib)]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "file:console"]);
        command.args(["-device", &qemu::exit_device().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        command
    }

    fn command(&self, folder: &Path) -> Result<Command> {
        let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes);
        let mut command = self.machine(folder);
        command.args(["-bios", "stage0.bin"]);
        let mut rom = self.stage0.clone();
        rom.splice(ROM_HASHES..ROM_HASHES + PAGE, self.hash_page.iter().copied());
        write("stage0.bin", &rom)?;
        let items = [
            (fw_cfg::file::KERNEL, self.kernel.as_deref()),
            (fw_cfg::file::INITRD, self.initrd.as_deref()),
            (fw_cfg::file::COMMAND_LINE, Some(&*self.command_line)),
        ];
        for (index, (item, bytes)) in items.into_iter().enumerate() {
            if let Some(bytes) = bytes {
                write(&format!("item{index}"), bytes)?;
                command.args(["-fw_cfg", &qemu::fw_cfg(item, &format!("item{index}")).to_string()]);
            }
        }
        for (index, (gpa, bytes)) in self.in_memory.iter().enumerate() {
            write(&format!("memory{index}"), bytes)?;
            command.args(["-device", &qemu::loader(&format!("memory{index}"), *gpa).to_string()]);
        }
        command.args(["-global", qemu::MODERN_VIRTIO]);
        for index in 0..self.disks {
            command.args(["-drive", &format!("id=d{index},if=none,driver=null-co,size=1M,read-zeroes=on")]);
            command.args(["-device", &format!("virtio-blk-device,drive=d{index}")]);
        }
        Ok(command)
    }
}

fn wait(mut command: Command, folder: &TempDir, until: &str) -> Result<Outcome> {
    let mut child = command.spawn().context("cannot start qemu-system-x86_64")?;
    let console = folder.path().join("console");
    let said = || fs::read(&console).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let mut status = None;
    let waited = wait_for(Duration::from_secs(40), || {
        status = child.try_wait().ok().flatten();
        status.is_some() || said().contains(until)
    });
    let _ = child.kill();
    let _ = child.wait();
    waited.with_context(|| format!("the console says:\n{}", said()))?;
    let refusal = status.and_then(|status| status.code()).and_then(Refusal::of_qemu_status);
    Ok(Outcome { refusal, console: said() })
}

/// A command line whose guest boots as far as init and says what the kernel found.
pub const TALKATIVE: &str = "console=ttyS0 reboot=t panic=-1";
/// What its console says once init, which finds no workload on that line, gives up.
pub const INIT_SPOKE: &str = "coffer: spec-invalid";
