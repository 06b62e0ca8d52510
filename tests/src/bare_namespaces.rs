//! init started by unshare(1) in the namespaces that a box without a machine has: what starting a box is compared with.
//!
//! Its root is made with mount(8), its workload runs to its end, and nobody on the host talks to it.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use coffer_machine::{disks, initrd, namespaces, spec_disk::SpecDisk};
use coffer_platform::{command_line, files::Platform, initrd::copy_init};
use coffer_spec::Document;

use crate::World;

/// What init says when its workload has ended.
const ENDED: &str = "coffer: exited";

/// An init, and what it is given.
#[derive(Debug)]
pub struct BareInit {
    folder: tempfile::TempDir,
    root: PathBuf,
}

impl BareInit {
    /// Of the box that `words` describe behind `coffer create`.
    ///
    /// # Errors
    /// If no such box can be created.
    pub fn of_box(world: &World, words: &[&str]) -> Result<Self> {
        let create: Vec<&str> = ["create", "--name", "bare"].iter().chain(words).copied().collect();
        let id = world.coffer(&create)?.ok()?;
        let document = Document::parse(fs::read(world.home().join("boxes").join(id.trim()).join("spec.toml"))?)?;
        world.coffer(&["rm", "bare"])?.ok()?;
        let platform = Platform::load(&world.platform)?;
        let folder = tempfile::Builder::new().prefix("coffer-").tempdir()?;
        let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes);
        copy_init(&mut &platform.initrd[..], &mut fs::File::create(folder.path().join("init"))?)?;
        put("command-line", command_line(&document.digest(), document.spec().tee).as_bytes())?;
        let mut spec = Vec::new();
        SpecDisk { document: document.bytes(), claimed_unix_seconds: None }.write(&mut spec)?;
        put("spec", &spec)?;
        fs::create_dir(folder.path().join("root"))?;
        Ok(Self { root: world.roots()?.pop().context("an image")?, folder })
    }

    /// Starts it, and gives the seconds until its workload has ended.
    ///
    /// # Errors
    /// If that does not come.
    pub fn seconds(&self) -> Result<f64> {
        let (init, stage, images) = (initrd::INIT, namespaces::STAGE, namespaces::IMAGES);
        let (spec, line, root) = (namespaces::SPEC, namespaces::COMMAND_LINE, disks::ROOT);
        // Moved first: whoever was only chrooted may make no user namespace, as init does for its workload.
        let script = format!(
            "set -e; mount -t tmpfs init root; cd root; mkdir -p proc sys dev run .{images}/{root}\n\
             cp ../init {init}; chmod 755 {init}; cp ../spec .{spec}; cp ../command-line .{line}\n\
             mount --rbind /dev dev; mount -t erofs -o ro,loop \"$IMAGE\" .{images}/{root}\n\
             mount -t proc proc proc; mount -t sysfs -o ro sysfs sys\n\
             mount --move . /; exec chroot . /{init} {stage} 0 - 3 3<\"$IMAGE\"\n"
        );
        let socket = self.folder.path().join("socket");
        let _ = fs::remove_file(&socket);
        let listener = OwnedFd::from(UnixListener::bind(&socket)?);
        let begun = Instant::now();
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private", "--pid", "--net", "--uts", "--ipc", "--cgroup"]);
        unshare.args(["--fork", "--kill-child", "sh", "-c", &script]).current_dir(self.folder.path());
        unshare.env("IMAGE", &self.root).stdin(Stdio::from(listener)).stdout(Stdio::piped());
        let mut child = unshare.spawn().context("cannot start unshare")?;
        let output = BufReader::new(child.stdout.take().context("piped")?);
        let mut said = Vec::new();
        for line in output.lines() {
            said.push(line?);
            if said.last().is_some_and(|line| line.starts_with(ENDED)) {
                break;
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        let _ = child.kill();
        child.wait()?;
        ensure!(said.last().is_some_and(|line| line.starts_with(ENDED)), "init said:\n{}", said.join("\n"));
        Ok(seconds)
    }
}
