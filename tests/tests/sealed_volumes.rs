//! Sealed volumes on real boots: what was written is there at the next start, and a disk that a hostile host changed, exchanged, cut or
//! put back is refused by name.

use std::{fs, os::unix::fs::FileExt, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use coffer_spec::SealedVolume;
use coffer_tests::{
    World,
    demo::story::{kbs_admin, simulator_anchor},
    image::pulled,
    monitors::{Monitor, on_each_machine},
    process::wait_for,
    services::{Kbs, Registry},
};

const BYTES: u64 = 16 << 20;
/// 5: a fresh volume, which begins with what the image has there. 7: what was written before is there. 9: anything else.
const SCRIPT: &str = "cd /etc && test -e passwd || exit 9; if test -e x; then grep -q kept x && echo more >>x && exit 7; exit 9; fi; \
    echo kept >x; exit 5";

struct Story {
    world: World,
    image: String,
    kbs: Kbs,
    _registry: Registry,
}

impl Story {
    fn new(monitor: Monitor) -> Result<Self> {
        let world = World::on(monitor)?;
        let (registry, image) = pulled(&world)?;
        let anchor = simulator_anchor(&world)?;
        let anchor = anchor.to_str().context("a plain name")?;
        let kbs = Kbs::start(world.folder.path(), &["--allow-simulated", anchor, "--tenant", "default"])?;
        let terms = ["sealing", "put", "db", "--policies", "workload", "--allow-simulated"];
        kbs_admin(&world, &kbs, &terms, b"")?;
        world.coffer(&["volume", "create", "--opt", "size=16m", "db"])?.ok()?;
        Ok(Self { world, image, kbs, _registry: registry })
    }

    /// A box, which the key broker admits where it is of the tenant that it knows.
    fn create(&self, name: &str, tenant: &str, script: &str) -> Result<()> {
        let broker = ["--kbs", &self.kbs.address, "--kbs-pin", &self.kbs.pin];
        let what = ["--tee-simulate", "--tenant", tenant, "-v", "db:/etc", &self.image, "sh", "-c", script];
        let flags = [&broker[..], &what].concat();
        if tenant != "default" {
            return self.world.coffer(&[&["create", "--name", name], &flags[..]].concat())?.ok().map(drop);
        }
        let reference = self.world.coffer(&[&["--json", "measure"], &flags[..]].concat())?.ok()?;
        let add = ["reference", "add", "--from", "-", "--name", name];
        kbs_admin(&self.world, &self.kbs, &add, reference.as_bytes())?;
        self.world.coffer(&[&["create", "--name", name], &flags[..]].concat())?.ok().map(drop)
    }

    fn disk(&self) -> PathBuf {
        self.world.home().join("volumes/db/sealed.img")
    }

    /// Starts a box, which ends with this status.
    fn ends(&self, name: &str, status: i32) -> Result<()> {
        let finished = self.world.coffer(&["start", "-a", "--allow-simulated", name])?;
        ensure!(finished.status == status, "{}", finished.describe());
        Ok(())
    }

    /// Starts a box, whose guest gives up with this word.
    fn refused(&self, name: &str, word: &str) -> Result<()> {
        let finished = self.world.coffer(&["start", "-a", "--allow-simulated", name])?;
        ensure!(finished.status == 125 && finished.stderr.contains(word), "{word}: {}", finished.describe());
        Ok(())
    }

    fn state(&self) -> Result<String> {
        let listed = kbs_admin(&self.world, &self.kbs, &["volume", "list"], b"")?;
        listed.lines().nth(1).map(str::to_owned).context(listed)
    }
}

#[test]
fn a_sealed_volume_outlives_its_guest_and_a_hostile_disk_is_refused_by_name() -> Result<()> {
    on_each_machine(outlives)
}

fn outlives(monitor: Monitor) -> Result<()> {
    let story = Story::new(monitor)?;
    story.create("one", "default", SCRIPT)?;
    story.ends("one", 5)?;
    ensure!(story.state()?.contains("closed"), "{}", story.state()?);
    let disk = story.disk();
    let first = fs::read(&disk)?;
    ensure!(!first.windows(4).any(|bytes| bytes == b"kept"), "it lies there in the plain");
    ensure!(!first.windows(10).any(|bytes| bytes == b"lost+found"), "names lie there in the plain");
    story.ends("one", 7)?;
    let newest = fs::read(&disk)?;

    // An older copy of the whole disk, an empty one, and one whose tags have a bit flipped: nothing is moved.
    fs::write(&disk, &first)?;
    story.refused("one", "sealed-volume-older")?;
    fs::write(&disk, vec![0; newest.len()])?;
    story.refused("one", "sealed-volume-older")?;
    let mut flipped = newest.clone();
    flipped[SealedVolume::TAGS_AT as usize + 4096 + 7] ^= 1;
    fs::write(&disk, &flipped)?;
    story.refused("one", "sealed-volume-corrupt")?;

    // Another workload and another tenant get no key that opens it, and write nothing over it.
    fs::write(&disk, &newest)?;
    story.create("two", "default", "exit 7; # another one")?;
    story.refused("two", "sealed-volume-closed")?;
    story.create("three", "acme", SCRIPT)?;
    story.refused("three", "not-released")?;
    ensure!(fs::read(&disk)? == newest, "a guest wrote to what is not its own");
    story.ends("one", 7)?;

    // Blocks exchanged, and the disk cut: the file system does not mount. What is put right again is as it was.
    let volume = fs::File::options().read(true).write(true).open(&disk)?;
    let data = volume.metadata()?.len() - BYTES;
    let exchange = || -> Result<()> {
        let (mut one, mut other) = (vec![0; 4096], vec![0; 4096]);
        volume.read_exact_at(&mut one, data)?;
        volume.read_exact_at(&mut other, data + 4096)?;
        ensure!(one != other);
        volume.write_all_at(&other, data)?;
        Ok(volume.write_all_at(&one, data + 4096)?)
    };
    exchange()?;
    story.refused("one", "sealed-volume-corrupt")?;
    exchange()?;
    let whole = volume.metadata()?.len();
    let mut end = vec![0; 1 << 20];
    volume.read_exact_at(&mut end, whole - (1 << 20))?;
    volume.set_len(whole - (1 << 20))?;
    story.refused("one", "sealed-volume-corrupt")?;
    volume.write_all_at(&end, whole - (1 << 20))?;
    story.ends("one", 7)
}

#[test]
fn one_that_was_not_closed_waits_for_an_owner_and_one_without_a_broker_is_its_chips() -> Result<()> {
    on_each_machine(not_closed)
}

fn not_closed(monitor: Monitor) -> Result<()> {
    let story = Story::new(monitor)?;
    // It writes, and then stays until it is cut off.
    let script = "test -e /etc/x && { grep -q kept /etc/x && exit 7; exit 9; }; echo kept >/etc/x; sync; sleep 600";
    story.create("one", "default", script)?;
    story.world.coffer(&["start", "one"])?.ok()?;
    // What it wrote is on its way to the disk: blocks are there that were not when it was made.
    let open = || kbs_admin(&story.world, &story.kbs, &["volume", "list"], b"").is_ok_and(|said| said.contains("open"));
    wait_for(Duration::from_mins(1), open)?;
    let exec = ["exec", "--allow-simulated", "one", "sh", "-c", "until grep -q kept /etc/x; do :; done; sync"];
    story.world.coffer(&exec)?.ok()?;
    let pid = story.world.coffer(&["inspect", "-f", "{{.State.SupervisorPid}}", "one"])?.ok()?;
    let pid = rustix::process::Pid::from_raw(pid.trim().parse()?).context("a pid")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    wait_for(Duration::from_secs(20), || {
        story.world.coffer(&["inspect", "-f", "{{.State.Status}}", "one"]).is_ok_and(|said| said.stdout == "exited\n")
    })?;
    story.refused("one", "sealed-volume-unclean")?;
    let confirm = ["volume", "confirm", "db"];
    kbs_admin(&story.world, &story.kbs, &confirm, b"")?;
    story.ends("one", 7)?;
    ensure!(story.state()?.contains("closed"), "{}", story.state()?);
    ensure!(kbs_admin(&story.world, &story.kbs, &confirm, b"").is_err(), "there is nothing to confirm");

    // An owner lets it begin anew: on an empty disk alone.
    kbs_admin(&story.world, &story.kbs, &["volume", "forget", "db"], b"")?;
    story.refused("one", "sealed-volume-older")?;

    // Without a broker: by name, and on the chip that made it.
    let other = World::on(monitor)?;
    let local = "own:/etc:seal=measurement-and-chip,rollback=unprotected";
    let create = ["create", "--name", "own", "--tee-simulate", "-v", local, &story.image, "sh", "-c", SCRIPT];
    for world in [&story.world, &other] {
        let plain = [&create[..4], &["-v", "own:/etc"], &create[6..]].concat();
        world.coffer(&["pull", "-q", &story.image])?.ok()?;
        let refused = world.coffer(&plain)?;
        ensure!(refused.status == 125 && refused.stderr.contains("no broker is named"), "{}", refused.describe());
        world.coffer(&["volume", "create", "--opt", "size=16m", "own"])?.ok()?;
        world.coffer(&create)?.ok()?;
    }
    story.ends("own", 5)?;
    story.ends("own", 7)?;
    fs::copy(story.world.home().join("volumes/own/sealed.img"), other.home().join("volumes/own/sealed.img"))?;
    let elsewhere = other.coffer(&["start", "-a", "--allow-simulated", "own"])?;
    let closed = elsewhere.stderr.contains("sealed-volume-closed");
    ensure!(elsewhere.status == 125 && closed, "another chip: {}", elsewhere.describe());
    Ok(())
}
