//! The nested laboratory: a host of its own inside QEMU's translator, whose Linux has a real KVM (SVM with nested paging) and
//! runs guests on it, in our own monitor and in QEMU.
//!
//! The host is a kernel and an initramfs with busybox and what was added to it: for boxes `coffer`, its monitor, the guest
//! platform and the images of a [`World`]. It runs one script and ends. Its kernel is Debian's, or our own where memory is
//! to be private without SEV-SNP. What is real in it: KVM, its interrupt controllers, `irqfd` and `ioeventfd`, nested
//! paging, guest_memfd, Linux guests. What is not: SEV of any kind, speed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

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
    /// Its memory.
    mebibytes: u32,
    root: PathBuf,
    folder: PathBuf,
}

/// Where programs lie in it.
pub const PROGRAMS: &str = "opt/coffer";

/// The program `rooted`: what it is given runs on a host that has its root as hosts have one. That of an initramfs cannot be exchanged
/// (pivot_root), and passt, without which there are no network cards, exchanges its own.
const ROOTED: &str = "#!/bin/sh\nset -e\nmkdir -p /mnt\nmount -o rbind / /mnt\ncd /mnt\nmount -o move . /\n\
                      exec chroot . sh -c 'cd /root && exec \"$@\"' sh \"$@\"\n";

/// What it says when its first program runs, with the seconds of its own clock.
pub const ALIVE: &str = "lab: alive at ";

impl Lab {
    /// A host with Debian's kernel, and a world's programs, platform and images.
    ///
    /// # Errors
    /// If something was not built or fetched.
    pub fn new(world: &World) -> Result<Self> {
        let cache = cache()?;
        let kernel = cache.join("kernel-lab");
        ensure!(kernel.join("complete").exists(), "{} is missing; `make setup` fetches it", kernel.display());
        let lab = Self::bare(kernel, 3072, world.folder.path())?;
        lab.furnish(world, &cache.join("tools/bin/vhost-device-vsock"))?;
        Ok(lab)
    }

    /// A host of the kernel in a folder (`vmlinuz`, `modules.list`, `modules`) with busybox and nothing else.
    ///
    /// # Errors
    /// If something was not fetched.
    pub fn bare(kernel: PathBuf, mebibytes: u32, folder: &Path) -> Result<Self> {
        let emulator = cache()?.join("newer-qemu/qemu-system-x86_64");
        ensure!(emulator.exists(), "{} is missing; `make setup` fetches it", emulator.display());
        let lab = Self { kernel, emulator, mebibytes, root: folder.join("lab"), folder: folder.to_path_buf() };
        for folder in ["bin", "proc", "sys", "dev", "tmp", "run", "root", "var/tmp", "etc", "lib/modules", PROGRAMS] {
            fs::create_dir_all(lab.root.join(folder))?;
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().map(Path::new).find(|path| path.exists());
        fs::copy(busybox.context("no busybox on this machine; run `make setup`")?, lab.root.join("bin/busybox"))?;
        let modules = fs::read_to_string(lab.kernel.join("modules.list"))?;
        for module in modules.lines() {
            fs::copy(lab.kernel.join("modules").join(module), lab.root.join("lib/modules").join(module))?;
        }
        let insert: Vec<_> = modules.lines().map(|module| format!("insmod /lib/modules/{module}\n")).collect();
        let insert = insert.concat();
        let init = format!(
            "#!/bin/busybox sh\n/bin/busybox --install -s /bin\nmount -t proc p /proc\n\
             echo \"{ALIVE}$(cut -d' ' -f1 /proc/uptime) s\"\nmount -t sysfs s /sys\n\
             mount -t devtmpfs d /dev\nmount -t tmpfs t /tmp\nmount -t tmpfs r /run\nip link set lo up\n{insert}\
             export HOME=/root PATH=/{PROGRAMS}:/bin COFFER_HOME=/root/home\ncd /root\n\
             sh /story </dev/null; echo \"lab: ended $?\"\nreboot -f\n"
        );
        for (name, script) in [("init", init.as_str()), ("bin/rooted", ROOTED)] {
            fs::write(lab.root.join(name), script)?;
            fs::set_permissions(lab.root.join(name), PermissionsExt::from_mode(0o755))?;
        }
        Ok(lab)
    }

    fn furnish(&self, world: &World, vhost: &Path) -> Result<()> {
        for ours in ["coffer", "coffer-vmm", "coffer-kbs"] {
            self.program(&binary(ours)?, PROGRAMS)?;
        }
        // The other monitor, to be compared with.
        self.program(Path::new("/usr/bin/qemu-system-x86_64"), PROGRAMS)?;
        self.program(vhost, PROGRAMS)?;
        // For cards; it looks the user up that it becomes, and has a variant for processors like the emulated one.
        self.program(Path::new("/usr/bin/passt"), PROGRAMS)?;
        let variant = Path::new("/usr/bin/passt.avx2");
        if variant.exists() {
            self.program(variant, PROGRAMS)?;
        }
        self.put("etc/passwd", b"root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")?;
        copy_folder(&world.platform, &self.root.join(PROGRAMS).join("platform"))?;
        if world.home().exists() {
            copy_folder(&world.home(), &self.root.join("root/home"))?;
        }
        Ok(())
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
        command.args(["-cpu", "EPYC,+svm,+npt", "-smp", "1", "-nodefaults", "-display", "none"]);
        command.arg("-m").arg(self.mebibytes.to_string());
        command.args(["-no-reboot", "-serial"]).arg(format!("file:{}", console.display()));
        command.arg("-kernel").arg(self.kernel.join("vmlinuz")).arg("-initrd").arg(&initramfs);
        command.args(["-append", "console=ttyS0 panic=-1 reboot=t quiet no_timer_check"]);
        let mut host = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().context("cannot start QEMU")?;
        let said = || fs::read(&console).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let switched_on = Instant::now();
        let mut alive = None;
        let waited = wait_for(patience, || {
            if alive.is_none() && said().contains(ALIVE) {
                alive = Some(switched_on.elapsed());
            }
            host.try_wait().ok().flatten().is_some()
        });
        let _ = host.kill();
        let _ = host.wait();
        waited.with_context(|| format!("the laboratory says:\n{}", said()))?;
        let said = said().replace('\r', "");
        println!("lab: its first program ran {:.2} s after QEMU was started", alive.unwrap_or_default().as_secs_f64());
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
