//! A host that changes what it was told to boot: whole boxes, booted for real, asking a real key broker for their secret.
//!
//! The host's monitor here is a script that changes one file of the box and then becomes the monitor. So everything
//! was measured as the owner expects, and only what is then loaded differs: the guest itself must notice. What is changed
//! before measuring is noticed by the key broker. Told on each monitor that works here.

use std::{
    fs,
    io::Write as _,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use coffer_machine::spec_disk::SpecDisk;
use coffer_platform::files::Platform;
use coffer_tests::{
    World,
    demo::story::{SECRET_PATH, kbs_admin, run_flags, simulator_anchor},
    image::pulled,
    monitors::{Monitor, on_each},
    process::{Finished, run, wait_for},
    services::{Kbs, Registry},
};
use sha2::{Digest as _, Sha256};

const SECRET: &[u8] = b"correct horse battery staple";

struct Deployment {
    monitor: Monitor,
    world: World,
    kbs: Kbs,
    image: String,
    flags: Vec<String>,
    _registry: Registry,
}

impl Deployment {
    /// Everything as the owner wants it: the secret put, the run's measurement listed.
    fn on(monitor: Monitor) -> Result<Self> {
        let world = World::on(monitor)?;
        let (registry, image) = pulled(&world)?;
        let anchor = simulator_anchor(&world)?;
        let anchor = anchor.to_str().context("a plain name")?;
        let kbs = Kbs::start(world.folder.path(), &["--allow-simulated", anchor, "--tenant", "default"])?;
        let flags = run_flags(&kbs, &image);
        kbs_admin(&world, &kbs, &["secret", "put", SECRET_PATH, "--allow-simulated"], SECRET)?;
        let words: Vec<&str> = ["--json", "measure"].into_iter().chain(flags.iter().map(String::as_str)).collect();
        let reference = world.coffer(&words)?.ok()?;
        kbs_admin(&world, &kbs, &["reference", "add", "--from", "-", "--name", "app"], reference.as_bytes())?;
        Ok(Self { monitor, world, kbs, image, flags, _registry: registry })
    }

    /// Runs the box on a host whose monitor does `change` first, in the box's folder.
    fn run(&self, name: &str, change: &str, platform: &Path, first: &[&str]) -> Result<Finished> {
        let folder = self.world.folder.path().join(format!("host-{name}"));
        fs::create_dir(&folder)?;
        let (variable, program) = self.monitor.behind(&folder, change)?;
        let mut command = self.world.command(&["run", "-d", "--name", name]);
        command.args(first).args(&self.flags).env(variable, program).env("COFFER_PLATFORM", platform);
        run(&mut command, b"")
    }

    /// Whether the box printed the digest of the secret.
    fn has_secret(&self, name: &str) -> bool {
        let line = format!("secret {}", hex::encode(Sha256::digest(SECRET)));
        self.world.coffer(&["logs", name]).is_ok_and(|finished| finished.text().contains(&line))
    }
}

/// Flips the lowest bit of the byte at `$2` of the file `$1`.
const FLIP: &str = r#"flip() {
    byte=$(od -An -tu1 -j "$2" -N 1 "$1")
    printf "$(printf '\\%03o' $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
"#;

#[test]
fn what_the_host_changes_after_measuring_the_guest_refuses() -> Result<()> {
    on_each(|monitor| changed_after_measuring(&Deployment::on(monitor)?))
}

fn changed_after_measuring(owner: &Deployment) -> Result<()> {
    let platform = owner.world.platform.clone();
    let honest = owner.run("honest", "", &platform, &[])?;
    ensure!(honest.status == 0, "{}\n--- the broker\n{}", honest.describe(), owner.kbs.log());
    wait_for(std::time::Duration::from_secs(30), || owner.has_secret("honest")).context("the honest box")?;
    owner.world.coffer(&["rm", "-f", "honest"])?.ok()?;

    // The second box's disk.
    let other_disk = owner.world.folder.path().join("other.img");
    let mut words = vec!["spec", "--env", "OTHER=1"];
    words.extend(owner.flags.iter().map(String::as_str));
    let other = owner.world.coffer(&words)?.ok()?;
    let mut bytes = Vec::new();
    SpecDisk { document: other.as_bytes(), claimed_unix_seconds: None }.write(&mut bytes)?;
    fs::write(&other_disk, bytes)?;
    let replace_spec = format!("cp {} spec.img", other_disk.display());
    let root = owner.world.roots()?.pop().context("a root image")?;
    let genuine = fs::read(&root)?;
    let exchange_disks = format!("cp spec.img aside; cat {0} >spec.img; cat aside >{0}", root.display());
    let mut changes = vec![
        ("argv-in-the-spec", r"sed -i 's/sha256sum </cat       </' spec.img".to_owned(), "spec-mismatch"),
        ("another-spec", replace_spec, "spec-mismatch"),
    ];
    // What starts without a machine is what the host makes it: nothing in it is there first, to check the rest.
    if let Some((hashes, at)) = owner.monitor.hashes {
        let no_hashes = format!("dd if=/dev/zero of={hashes} bs=1 seek={at} count=4096 conv=notrunc status=none");
        changes.extend([
            ("kernel", "flip kernel 100000".to_owned(), "kernel-hash"),
            ("initrd", "flip initrd 100000".to_owned(), "initrd-hash"),
            ("command-line", r"printf 'console=ttyS0 init=/bin/sh\0' >cmdline".to_owned(), "command-line-hash"),
            ("hash-page", format!("flip {hashes} {}", at + 40), "-hash"),
            ("no-hash-page", no_hashes, "hash-page"),
            ("disks-exchanged", exchange_disks, "spec-invalid"),
        ]);
    }
    for (what, change, says) in changes {
        let finished = owner.run(what, &format!("{FLIP}{change}"), &platform, &[])?;
        fs::write(&root, &genuine)?;
        println!("{what}: {}", finished.stderr.lines().next().unwrap_or_default());
        ensure!(finished.status == 125, "{what}\n{}", finished.describe());
        ensure!(finished.text().contains(says), "{what}: expected {says:?}\n{}", finished.describe());
        ensure!(!owner.has_secret(what), "{what}: THE SECRET WAS RELEASED");
    }
    let releases = owner.kbs.log().matches("\"event\":\"secret.release\",\"outcome\":\"released\"").count();
    ensure!(releases == 1, "{releases} releases\n{}", owner.kbs.log());
    Ok(())
}

#[test]
fn what_the_host_changes_before_measuring_the_key_broker_refuses() -> Result<()> {
    on_each(|monitor| changed_before_measuring(&Deployment::on(monitor)?))
}

fn changed_before_measuring(owner: &Deployment) -> Result<()> {
    let changed = |name: &str, change: &dyn Fn(&mut Platform)| -> Result<std::path::PathBuf> {
        let mut platform = Platform::load(&owner.world.platform)?;
        platform.folder = owner.world.folder.path().join(name);
        change(&mut platform);
        platform.save()?;
        Ok(platform.folder)
    };
    // Bytes nobody reads: the guest boots as well as any other.
    let stage0 = changed("stage0", &|platform| platform.stage0[UNUSED] ^= 1)?;
    let kernel = changed("kernel", &|platform| platform.kernel.extend_from_slice(&[0; 512]))?;
    let initrd = changed("initrd", &|platform| platform.initrd.extend_from_slice(&[0; 512]))?;
    let same = owner.world.platform.clone();
    let mut changes =
        vec![("env", &same, &["--env", "LD_PRELOAD=/x"][..]), ("host-name", &same, &["--hostname", "other"])];
    // Of a platform a box without a machine has the initrd alone, of which init is taken.
    if owner.monitor.has_machine() {
        changes.extend([("stage0", &stage0, &[][..]), ("kernel", &kernel, &[])]);
    } else {
        changes.push(("initrd", &initrd, &[]));
    }
    let wanted = changes.len();
    for (what, platform, first) in changes {
        let finished = owner.run(what, "", platform, first)?;
        ensure!(finished.status == 125, "{what}\n{}", finished.describe());
        ensure!(finished.text().contains("not-released"), "{what}\n{}", finished.describe());
        ensure!(!owner.has_secret(what), "{what}: THE SECRET WAS RELEASED");
    }
    // Its manifest is the honest one's: what is measured is what it says, and the init in the file is not that one.
    // One that no box of this host was ever started with, whose init would be kept.
    let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos().to_le_bytes();
    let lying = changed("lying", &|platform| platform.initrd.extend_from_slice(&nanoseconds.repeat(32)))?;
    let mut file = fs::OpenOptions::new().append(true).open(lying.join("initrd"))?;
    file.write_all(&[0; 512])?;
    let finished = owner.run("lying", "", &lying, &[])?;
    ensure!(finished.status == 125 && finished.text().contains("has SHA-256"), "{}", finished.describe());
    ensure!(!owner.has_secret("lying"), "THE SECRET WAS RELEASED");
    let refusals = || owner.kbs.log().matches("\"event\":\"secret.release\",\"outcome\":\"refused\"").count();
    // Those of strangers are written within a second.
    wait_for(Duration::from_secs(10), || refusals() >= wanted)
        .with_context(|| format!("{} refusals\n{}", refusals(), owner.kbs.log()))?;
    Ok(())
}

#[test]
fn a_clock_that_the_host_sets_back_the_brokers_word_sets_right() -> Result<()> {
    on_each(|monitor| {
        // Without a machine the clock is the host's own, and no guest sets that.
        if !monitor.has_machine() {
            return Ok(());
        }
        let owner = Deployment::on(monitor)?;
        let tells = |flags: &[&str]| -> Result<u64> {
            let words =
                [&["--tee-simulate", "--host-may", "stop,logs"], flags, &[&owner.image, "busybox", "date", "+%s"]]
                    .concat();
            let document = owner.world.coffer(&[&["spec"], words.as_slice()].concat())?.ok()?;
            let disk = owner.world.folder.path().join(format!("set-back-{}.img", flags.len()));
            let mut bytes = Vec::new();
            SpecDisk { document: document.as_bytes(), claimed_unix_seconds: Some(SET_BACK) }.write(&mut bytes)?;
            fs::write(&disk, bytes)?;
            let folder = owner.world.folder.path().join(format!("host-set-back-{}", flags.len()));
            fs::create_dir(&folder)?;
            let (variable, program) = monitor.behind(&folder, &format!("cp {} spec.img", disk.display()))?;
            let mut command = owner.world.command(&["run", "--rm"]);
            command.args(&words).env(variable, program).env("COFFER_PLATFORM", &owner.world.platform);
            Ok(run(&mut command, b"")?.ok()?.trim().parse()?)
        };
        // With nobody else to ask it is the host's word, as documented.
        let told = tells(&[])?;
        ensure!((SET_BACK..SET_BACK + 600).contains(&told), "{told}");
        let told = tells(&["--kbs", &owner.kbs.address, "--kbs-pin", &owner.kbs.pin])?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        ensure!(now.abs_diff(told) < 60, "the guest believes that it is {told}, and it is {now}");
        Ok(())
    })
}

/// What a host says the time is: in 2001.
const SET_BACK: u64 = 1_000_000_000;

/// Offset of a byte in stage0's image that is padding.
const UNUSED: usize = 0xC000;
