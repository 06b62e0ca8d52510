//! A host that owns every line of a box and does on each of them whatever chance says: right and wrong, too much, half, slowly, again.
//!
//! The box goes on, its workload serves, its owner is let in; and of what is inside no byte comes out. Its moves come from one seed,
//! which is printed: `COFFER_HOSTILE_SEED` has them once more, `COFFER_HOSTILE_SECONDS` has more of them.

mod chance;
mod frames;
mod guest_ports;
mod heard;
mod host_ports;
mod strangers;

use std::{
    fs::{self, OpenOptions},
    io::{Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use coffer_guest_proto::ports::{HOST_EVENTS, HOST_PROCESSOR};
use coffer_tests::{
    World,
    canary::{Canary, Search},
    demo::story::simulator_anchor,
    image::pulled,
    monitors::{Monitor, on_each_machine},
    process::{run, wait_for},
    services::{Kbs, Registry, free_port},
};

use chance::{Chance, SEED, seed};
use guest_ports::Guest;
use heard::Heard;
use host_ports::{Host, Mood};

use crate::secrets::{list, put, value};

/// How long the movers move on each monitor, all rounds together.
const SECONDS: u64 = 24;
const ROUNDS: u64 = 3;
const MOVERS: u64 = 3;

/// Counts aloud, serves the count, and asks its peer; with a secret of its own in memory, a file, its environment and its output.
const WORKLOAD: &str = "made=$(head -c 64 /dev/urandom | sha256sum | cut -c1-64)
export MADE=$made
echo $made >/made
mkdir /www && echo 0 >/www/count && httpd -p 127.0.0.1:8080 -h /www
count=0
while true; do
  count=$((count + 1))
  echo $count >/next && mv /next /www/count
  echo $count $made $WORD
  wget -q -T 1 -O /dev/null http://127.0.0.1:9000/ 2>/dev/null
  sleep 1
done";

struct Besieged {
    world: World,
    guest: Guest,
    host: Arc<Host>,
    heard: Arc<Heard>,
    /// Where the box is reached by clients of its workload, and what they expect.
    address: String,
    reference: PathBuf,
    /// Where one can type at its console.
    console: Option<PathBuf>,
    folder: PathBuf,
    since: SystemTime,
    canaries: Vec<(&'static str, String)>,
    _services: (Kbs, Registry),
}

fn plain(path: &Path) -> Result<&str> {
    path.to_str().context("a plain name")
}

impl Besieged {
    fn start(monitor: Monitor, seed: u64) -> Result<Self> {
        let since = SystemTime::now();
        let world = World::on(monitor)?;
        let scratch = world.folder.path().to_owned();
        let (registry, image) = pulled(&world)?;
        let anchor = simulator_anchor(&world)?;
        let anchor = plain(&anchor)?;
        let kbs = Kbs::start(&scratch, &["--allow-simulated", anchor, "--tenant", "default"])?;
        let (key, word) = (value()?, value()?);
        put(&world, &kbs, "key", &key)?;
        put(&world, &kbs, "word", &word)?;

        let measured = |name: &str, words: &[&str]| -> Result<PathBuf> {
            let file = scratch.join(name);
            fs::write(&file, world.coffer(&[&["--json", "measure"], words].concat())?.ok()?)?;
            Ok(file)
        };
        let other = measured("peer.json", &["--tee-simulate", &image, "true"])?;
        let peer =
            format!("web=9000:127.0.0.1:{},port=8080,reference={},simulator={anchor}", free_port()?, plain(&other)?);
        let address = format!("127.0.0.1:{}", free_port()?);
        let publish = format!("{address}:8080/ra-tls");
        let flags = [
            &["--tee-simulate", "--host-may", "stats", "--kbs", &kbs.address, "--kbs-pin", &kbs.pin][..],
            &["--secret", "key=kbs:///demo/app/key", "--secret-env", "WORD=kbs:///demo/app/word"],
            &["--inject", "note", "-p", &publish, "--peer", &peer, &image, "sh", "-c", WORKLOAD],
        ]
        .concat();
        let flags = [if monitor.has_machine() { &["-m", "384m"][..] } else { &[] }, &flags].concat();
        list(&world, &kbs, &flags)?;
        let reference = measured("box.json", &flags)?;

        let heard = Arc::<Heard>::default();
        let host = Host::listen(&scratch.join("host"), heard.clone(), seed)?;
        let console = monitor.has_machine().then(|| scratch.join("host/console"));
        let mut change = host.change();
        if let Some(console) = &console {
            run(Command::new("mkfifo").arg(console), b"")?.ok()?;
            // Open both ways, so that neither end waits for the other.
            change = format!("{change}\nexec 0<>{}", plain(console)?);
        }
        let before = scratch.join("before");
        fs::create_dir(&before)?;
        let (variable, program) = monitor.behind(&before, &change)?;
        let mut command = world.command(&["run", "-d", "--name", "box"]);
        run(command.args(&flags).env(variable, program), b"")?.ok()?;
        let folder = host.folder()?;
        let guest = Guest::of(&folder, heard.clone(), 8080)?;
        let mut made = String::new();
        wait_for(Duration::from_mins(1), || {
            let said = world.coffer(&["exec", "--allow-simulated", "box", "cat", "/made"]);
            made = said.map(|it| it.stdout.trim().to_owned()).unwrap_or_default();
            made.len() == 64
        })?;
        let canaries = vec![("the broker's file", key), ("the broker's variable", word), ("the workload's own", made)];
        let services = (kbs, registry);
        Ok(Self {
            world,
            guest,
            host,
            heard,
            address,
            reference,
            console,
            folder,
            since,
            canaries,
            _services: services,
        })
    }

    /// Moves for so long. Gives how many there were.
    fn moves(&self, seed: u64, round: u64, length: Duration) -> Result<usize> {
        let (over, count) = (AtomicBool::new(false), AtomicUsize::new(0));
        let until = Instant::now() + length;
        let mover = |number: u64| -> Result<()> {
            let mut chance = Chance::new(seed, round * 100 + number);
            while Instant::now() < until && !over.load(Ordering::Relaxed) {
                match chance.below(12) {
                    0 => self.host.step(&mut chance),
                    1 => self.types(&mut chance)?,
                    _ => self.guest.step(&mut chance).inspect_err(|_| over.store(true, Ordering::Relaxed))?,
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let movers: Vec<_> = (0..MOVERS).map(|number| scope.spawn(move || (number, mover(number)))).collect();
            // Its owner has the broker asked meanwhile, which is the host's to lead to.
            while Instant::now() < until && !over.load(Ordering::Relaxed) {
                let mut asks = self.world.command(&["refresh-secrets", "--allow-simulated", "box"]);
                let mut asks = asks.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
                while asks.try_wait()?.is_none() && Instant::now() < until {
                    std::thread::sleep(Duration::from_millis(100));
                }
                let _ = (asks.kill(), asks.wait());
            }
            for mover in movers {
                let (number, moved) = mover.join().map_err(|_| anyhow!("a mover fell over"))?;
                moved.with_context(|| format!("mover {number} of round {round}"))?;
            }
            Ok(count.load(Ordering::Relaxed))
        })
    }

    /// At the console, and on the disk that was read at the start.
    fn types(&self, chance: &mut Chance) -> Result<()> {
        let Some(console) = &self.console else { return Ok(()) };
        if chance.once_in(4) {
            let mut disk = OpenOptions::new().write(true).open(self.folder.join("spec.img"))?;
            disk.seek(SeekFrom::Start(chance.below(4096) as u64))?;
            disk.write_all(&chance.bytes(512))?;
            return Ok(());
        }
        let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits())?;
        let mut open = OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::custom_flags(open.read(true).write(true), flags);
        let typed = [&b"\n\x03\x04\x1a"[..], b"root\n\n", b"\x01c", b"cat /made\n", b"\x00h"];
        let words = *chance.of(&typed);
        // What nobody takes has no room, in the end.
        let _ = open.open(console)?.write_all(if chance.once_in(2) { words } else { b"" });
        let _ = open.open(console)?.write_all(&chance.bytes(512));
        Ok(())
    }

    /// Everything is as it was: the same init, its workload counts and serves, its owner gets in.
    fn lives(&self, before: (u64, u64)) -> Result<(u64, u64)> {
        let uptime = self.guest.uptime()?;
        ensure!(uptime > before.0, "its guest began again: {uptime} after {}", before.0);
        let inspected: serde_json::Value = serde_json::from_str(&self.world.coffer(&["inspect", "box"])?.ok()?)?;
        ensure!(inspected[0]["State"]["Status"] == "running", "{:#}", inspected[0]["State"]);
        let patient = |words: &[&str], input: &[u8]| -> Result<String> {
            let mut last = None;
            // The movers' connections may hold its places for a while yet.
            let _ = wait_for(Duration::from_mins(1), || {
                last = self.world.coffer_with(words, input).ok();
                last.as_ref().is_some_and(|it| it.status == 0)
            });
            last.context("it was started")?.ok()
        };
        patient(&["attest", "box", "--allow-simulated"], b"")?;
        let count: u64 = patient(&["exec", "--allow-simulated", "box", "cat", "/www/count"], b"")?.trim().parse()?;
        ensure!(count > before.1, "its workload stands still: {count} after {}", before.1);
        let reference = plain(&self.reference)?;
        let served = ["connect", "--reference", reference, "--allow-simulated", "--guest-port", "8080", &self.address];
        let page = patient(&served, b"GET /count HTTP/1.0\r\n\r\n")?;
        let page = page.trim().rsplit('\n').next().and_then(|line| line.trim().parse::<u64>().ok());
        ensure!(page.is_some_and(|page| page >= count), "it serves no count: {page:?}");
        Ok((uptime, count))
    }

    /// Nothing of what is inside is in what came, in the box's files, or on its console.
    fn nothing_came_out(&self) -> Result<usize> {
        let canaries = self.canaries.iter().map(|(name, value)| Canary::new(name, value.as_bytes())).collect();
        let mut search = Search::new(canaries);
        let counted = self.heard.look(&mut search);
        search.files(&self.folder, self.since, &[])?;
        let logs = self.world.coffer(&["logs", "--console", "box"])?;
        search.bytes("the console", logs.text().as_bytes());
        // With only what a host has: no word of the output.
        let refused = self.world.coffer(&["logs", "box"])?;
        ensure!(refused.status != 0, "the host read the output:\n{}", refused.describe());
        ensure!(search.found.is_empty(), "{}", search.found.join("\n"));
        Ok(counted.values().sum())
    }
}

fn seconds() -> u64 {
    std::env::var("COFFER_HOSTILE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS)
}

#[test]
fn a_host_that_does_what_it_likes_on_every_line_gets_what_it_may_and_ends_nothing() -> Result<()> {
    on_each_machine(of_one_seed)
}

#[test]
fn without_a_machine_it_gets_no_more() -> Result<()> {
    let monitor = Monitor::of("process").context("a row")?;
    match monitor.lacks(&World::new()?)? {
        None => of_one_seed(monitor),
        Some(why) => {
            println!("skipped: {why}");
            Ok(())
        }
    }
}

fn of_one_seed(monitor: Monitor) -> Result<()> {
    let seed = seed();
    println!("{SEED}={seed}");
    told(monitor, seed).with_context(|| format!("{SEED}={seed}"))
}

fn told(monitor: Monitor, seed: u64) -> Result<()> {
    let owned = Besieged::start(monitor, seed)?;
    let (mut lived, mut heard) = (owned.lives((0, 0))?, 0);
    // It can tell: what a canary looks like in what came is found.
    let (name, value) = &owned.canaries[0];
    let mut search = Search::new(vec![Canary::new(name, value.as_bytes())]);
    search.bytes("a line", format!("x{value}").as_bytes());
    ensure!(!search.found.is_empty(), "a canary that is there is not found");

    let mut moves = 0;
    for round in 0..ROUNDS {
        moves += owned.moves(seed, round, Duration::from_secs(seconds()) / u32::try_from(ROUNDS)?)?;
        owned.host.reform();
        lived = owned.lives(lived).with_context(|| format!("after round {round}"))?;
        heard += owned.nothing_came_out()?;
    }
    let [answered, refused] = [&owned.guest.answered, &owned.guest.refused].map(|it| it.load(Ordering::Relaxed));
    let lines = owned.host.lines();
    println!(
        "{moves} moves: {answered} calls answered, {refused} refused, {lines} lines of the guest's, {heard} bytes heard"
    );
    // Movers that nobody understands, and lines that nobody opens, show nothing.
    ensure!(answered > 0 && refused > 10 && lines > 3, "the movers do not speak the protocol");

    // Last what cannot be mended: without its processor a guest proves nothing more. It goes on all the same.
    let without = ["attest", "box", "--allow-simulated"];
    owned.host.end(HOST_EVENTS);
    owned.host.set(HOST_PROCESSOR, Mood::Garbage);
    owned.host.end(HOST_PROCESSOR);
    let refused = owned.world.coffer(&without)?;
    ensure!(refused.status != 0, "proved without a processor\n{}", refused.describe());
    let uptime = owned.guest.uptime()?;
    ensure!(uptime > lived.0, "its guest began again");
    let inspected = owned.world.coffer(&["inspect", "box"])?.ok()?;
    ensure!(inspected.contains("\"Status\": \"running\""), "{inspected}");
    owned.nothing_came_out().map(drop)
}
