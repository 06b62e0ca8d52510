//! The nested laboratory: a host of its own inside QEMU's translator, whose Linux has a real KVM (SVM with nested paging) and
//! runs guests on it, in our own monitor and in QEMU.
//!
//! The host is Debian's kernel and an initramfs with busybox, `coffer`, its monitor, the guest platform and the images of a
//! [`World`]. It runs one script and ends. What is real in it: KVM, its interrupt controllers, `irqfd` and `ioeventfd`, nested
//! paging, Linux guests. What is not: SEV of any kind, speed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::World;
use crate::process::{binary, cache, wait_for};

/// A host that runs a script.
#[derive(Debug)]
pub struct Lab {
    /// The host's kernel and modules.
    kernel: PathBuf,
    /// The program that emulates it.
    emulator: PathBuf,
    root: PathBuf,
    folder: PathBuf,
}

/// Where programs lie in it.
pub const PROGRAMS: &str = "opt/coffer";

impl Lab {
    /// A host with a world's programs, platform and images.
    ///
    /// # Errors
    /// If something was not built or fetched.
    pub fn new(world: &World) -> Result<Self> {
        let cache = cache()?;
        let kernel = cache.join("kernel-lab");
        let missing = "is missing; `make setup` fetches it";
        ensure!(kernel.join("complete").exists(), "{} {missing}", kernel.display());
        let emulator = cache.join("newer-qemu/qemu-system-x86_64");
        ensure!(emulator.exists(), "{} {missing}", emulator.display());
        let vhost = cache.join("tools/bin/vhost-device-vsock");
        let folder = world.folder.path().to_path_buf();
        let lab = Self { kernel, emulator, root: folder.join("lab"), folder };
        lab.furnish(world, &vhost)?;
        Ok(lab)
    }

    fn furnish(&self, world: &World, vhost: &Path) -> Result<()> {
        for folder in ["bin", "proc", "sys", "dev", "tmp", "run", "root", "var/tmp", "etc", "lib/modules", PROGRAMS] {
            fs::create_dir_all(self.root.join(folder))?;
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().map(Path::new).find(|path| path.exists());
        fs::copy(busybox.context("no busybox on this machine; run `make setup`")?, self.root.join("bin/busybox"))?;
        for ours in ["coffer", "coffer-vmm", "coffer-kbs"] {
            self.program(&binary(ours)?, PROGRAMS)?;
        }
        // The other monitor, to be compared with.
        self.program(Path::new("/usr/bin/qemu-system-x86_64"), PROGRAMS)?;
        self.program(vhost, PROGRAMS)?;
        copy_folder(&world.platform, &self.root.join(PROGRAMS).join("platform"))?;
        if world.home().exists() {
            copy_folder(&world.home(), &self.root.join("root/home"))?;
        }
        let modules = fs::read_to_string(self.kernel.join("modules.list"))?;
        for module in modules.lines() {
            fs::copy(self.kernel.join("modules").join(module), self.root.join("lib/modules").join(module))?;
        }
        let insert: Vec<_> = modules.lines().map(|module| format!("insmod /lib/modules/{module}\n")).collect();
        let insert = insert.concat();
        let init = format!(
            "#!/bin/busybox sh\n/bin/busybox --install -s /bin\nmount -t proc p /proc\nmount -t sysfs s /sys\n\
             mount -t devtmpfs d /dev\nmount -t tmpfs t /tmp\nmount -t tmpfs r /run\nip link set lo up\n{insert}\
             export HOME=/root PATH=/{PROGRAMS}:/bin COFFER_HOME=/root/home\ncd /root\n\
             sh /story </dev/null; echo \"lab: ended $?\"\nreboot -f\n"
        );
        fs::write(self.root.join("init"), init)?;
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        Ok(fs::set_permissions(self.root.join("init"), executable)?)
    }

    /// Puts a program into a folder of the host, and what it is linked with.
    ///
    /// # Errors
    /// If it is not there.
    pub fn program(&self, program: &Path, folder: &str) -> Result<()> {
        self.file(program, folder)?;
        for library in libraries_of(program)? {
            let folder = library.parent().context("a folder")?.strip_prefix("/")?;
            self.file(&library, folder.to_str().context("a plain name")?)?;
        }
        Ok(())
    }

    /// Copies a file into a folder of the host.
    ///
    /// # Errors
    /// If it is not there.
    pub fn file(&self, file: &Path, folder: &str) -> Result<()> {
        let to = self.root.join(folder);
        fs::create_dir_all(&to)?;
        let name = file.file_name().context("a file has a name")?;
        fs::copy(file, to.join(name)).with_context(|| format!("no {}; run `make setup`", file.display()))?;
        Ok(())
    }

    /// Puts a file into the host.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        Ok(fs::write(self.root.join(name), bytes)?)
    }

    /// Boots the host, lets it run a shell script, and gives all it said.
    ///
    /// # Errors
    /// If the host does not boot, or the script does not end with success in time.
    pub fn run(&self, story: &str, patience: Duration) -> Result<String> {
        fs::write(self.root.join("story"), format!("set -e\n{story}"))?;
        let initramfs = self.folder.join("lab.cpio");
        let pack = format!("find . | cpio --quiet -o -H newc > {}", initramfs.display());
        ensure!(Command::new("sh").args(["-c", &pack]).current_dir(&self.root).status()?.success(), "cpio failed");
        let console = self.folder.join("lab.console");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&self.emulator);
        command.args(["-M", "q35", "-accel", "tcg,thread=single"]);
        // One processor: with two, guests stood still (docs/vmm.md, "The laboratory").
        command.args(["-cpu", "EPYC,+svm,+npt", "-m", "3072", "-smp", "1", "-nodefaults", "-display", "none"]);
        command.args(["-no-reboot", "-serial"]).arg(format!("file:{}", console.display()));
        command.arg("-kernel").arg(self.kernel.join("vmlinuz")).arg("-initrd").arg(&initramfs);
        command.args(["-append", "console=ttyS0 panic=-1 reboot=t quiet no_timer_check"]);
        let mut host = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().context("cannot start QEMU")?;
        let said = || fs::read(&console).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let waited = wait_for(patience, || host.try_wait().ok().flatten().is_some());
        let _ = host.kill();
        let _ = host.wait();
        waited.with_context(|| format!("the laboratory says:\n{}", said()))?;
        let said = said().replace('\r', "");
        ensure!(said.contains("lab: ended 0"), "the laboratory says:\n{said}");
        Ok(said)
    }
}

/// What a program is linked with, and who links it.
fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let status = Command::new("cp").arg("-a").arg(format!("{}/.", from.display())).arg(to).status()?;
    ensure!(status.success(), "cannot copy {}", from.display());
    Ok(())
}
