//! Killed with SIGKILL before any change of the file system that a command makes: nothing else is lost, nothing is kept from being
//! done, the same command does what it was asked to, and what was left half made goes.
//!
//! The commands come from the table, as `coffer --json help` prints it, so that a new one cannot be forgotten. `make test` kills each at
//! a few of its changes, `make soak` at every one.

#[path = "killed/rows.rs"]
mod rows;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use coffer_tests::{
    World,
    image::{self, busybox_layout},
    monitors::Monitor,
    process::{Finished, run},
    services::Registry,
};
use serde_json::{Value, json};

use rows::{LOOK, ROWS, Row, WITHOUT};

/// Changes at which `make test` kills each command.
const FEW: usize = 2;
/// And one about boxes that run, which takes longer.
const FEWER: usize = 1;
/// At which `make soak` does: at every one, of nearly all of them.
const MANY: usize = 400;

#[test]
fn every_command_has_a_row_or_says_why_not() -> Result<()> {
    let rows: Value = serde_json::from_str(&World::new()?.coffer(&["--json", "help"])?.ok()?)?;
    let table = rows.as_array().context("a list")?.iter().map(|row| row["command"].as_str().context("a command"));
    let table = table.collect::<Result<BTreeSet<_>>>()?;
    let begins = |word: &str, command: &str| command == word || command.starts_with(&format!("{word} "));
    for command in &table {
        let has_row = ROWS.iter().any(|row| row.command == *command);
        let excused = LOOK.iter().chain(WITHOUT.iter().map(|(word, _)| word)).filter(|word| begins(word, command));
        ensure!(
            usize::from(has_row) + excused.count() == 1,
            "{command}: it has no row of its own, nor one reason to have none"
        );
    }
    let known =
        ROWS.iter().map(|row| row.command).chain(LOOK.iter().copied()).chain(WITHOUT.iter().map(|(word, _)| *word));
    for word in known {
        ensure!(table.iter().any(|command| begins(word, command)), "{word} is no command");
    }
    Ok(())
}

#[test]
fn what_is_killed_at_some_of_its_changes_is_done_by_the_next_one() -> Result<()> {
    told(|row| if row.boxes { FEWER } else { FEW })
}

#[test]
#[ignore = "every change of every command: make soak"]
fn what_is_killed_at_any_of_its_changes_is_done_by_the_next_one() -> Result<()> {
    told(|_| MANY)
}

/// Tells every row, two at a time: each waits for the disk.
fn told(most: impl Fn(&Row) -> usize + Sync) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let (program, registry) = (scratch.path().join("program"), Registry::start(scratch.path())?);
    image::program(scratch.path(), "sys/kill_at.rs")?;
    let world = World::new()?;
    let lacks = |word| Monitor::of(word).context("a row")?.lacks(&world);
    let lack = [(lacks("process")?, false), (lacks("qemu")?, true)];
    for (why, machine) in &lack {
        if let Some(why) = why {
            println!("skipped, what is about boxes that run {}: {why}", if *machine { "in QEMU" } else { "here" });
        }
    }
    let lacks = |row: &Row| lack.iter().any(|(why, machine)| row.boxes && row.machine == *machine && why.is_some());
    let rows: Vec<&Row> = ROWS.iter().filter(|row| !lacks(row)).collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let tell = || {
        let mut failed = Vec::new();
        while let Some((at, row)) = {
            let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            rows.get(at).map(|row| (at, row))
        } {
            let story = Story::new(row, &program, &registry.address).and_then(|story| story.tell(at, most(row)));
            match story {
                Ok((points, killed)) => println!("{} {}: {points} changes, killed at {killed}", row.command, row.words),
                Err(error) => failed.push(format!("{} {}: {error:?}", row.command, row.words)),
            }
        }
        failed
    };
    let failed: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(tell)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_else(|_| vec!["panicked".into()])).collect()
    });
    ensure!(failed.is_empty(), "{}", failed.join("\n\n"));
    Ok(())
}

/// A row in a folder of its own.
struct Story<'a> {
    row: &'a Row,
    program: &'a Path,
    registry: &'a str,
    world: World,
    /// Files beside the home, and the home, as they are before the command.
    before: PathBuf,
}

/// What is seen of a home: what its commands list, and its files, without what is another's each time.
type Seen = BTreeMap<String, Value>;

impl<'a> Story<'a> {
    fn new(row: &'a Row, program: &'a Path, registry: &'a str) -> Result<Self> {
        let world = World::new()?;
        let before = world.folder.path().join("before");
        let story = Self { row, program, registry, world, before };
        let here = story.here();
        fs::create_dir(&here)?;
        fs::write(here.join("kept.txt"), "kept")?;
        busybox_layout(&here.join("layout"), "t", &[])?;
        run(Command::new("tar").args(["-cf", "root.tar", "kept.txt"]).current_dir(&here), b"")?.ok()?;
        for line in [
            "pull -q oci:layout:t",
            "tag localhost/layout:t app:1",
            "save -o saved.tar app:1",
            "tag app:1 kept:1",
            "rmi app:1",
            "rmi localhost/layout:t",
        ] {
            story.coffer(line)?.ok().with_context(|| line.to_owned())?;
        }
        let image = story.coffer("images -q")?.ok()?;
        for line in
            ["network create kept", "volume create kept", "create --name kept --network kept -v kept:/kept kept:1"]
        {
            story.coffer(line)?.ok()?;
        }
        ensure!(!image.is_empty(), "no image");
        for line in row.before {
            story.coffer(line)?.ok()?;
        }
        run(Command::new("cp").arg("-a").args([&here, &story.before]), b"")?.ok()?;
        Ok(story)
    }

    /// Where it happens.
    fn here(&self) -> PathBuf {
        self.world.folder.path().join("here")
    }

    fn words(&self, line: &str) -> Vec<String> {
        line.split_whitespace().map(|word| word.replace("{registry}", self.registry)).collect()
    }

    fn command(&self, line: &str, before: &[&str]) -> Command {
        let words = self.words(line);
        let coffer = self.world.command(&[]).get_program().to_owned();
        let mut all: Vec<std::ffi::OsString> = before.iter().map(Into::into).collect();
        all.push(coffer);
        let mut words = words.into_iter();
        all.extend(words.next().map(Into::into));
        if line.starts_with("run ") || line.starts_with("create ") {
            all.extend(
                ["--isolation", if self.row.boxes && !self.row.machine { "process" } else { "qemu" }].map(Into::into),
            );
        }
        all.extend(words.map(Into::into));
        if line.starts_with("{rm}") {
            all.splice(..2, ["rm", "-f"].map(Into::into));
        }
        let mut command = Command::new(&all[0]);
        command.args(&all[1..]).current_dir(self.here());
        command.env("COFFER_HOME", self.here().join("home")).env("COFFER_PLATFORM", &self.world.platform);
        command.env("DOCKER_CONFIG", self.here().join("docker"));
        command
    }

    fn coffer(&self, line: &str) -> Result<Finished> {
        let input = if line.starts_with("login") { "secret" } else { self.row.input };
        run(&mut self.command(line, &[]), input.as_bytes())
    }

    /// Runs the command so that it is killed before this change of it; gives how many changes there were, and what the last was.
    fn killed_at(&self, change: usize) -> Result<(usize, String)> {
        let log = self.world.folder.path().join("log");
        let (program, log_name, number) = (self.program.to_string_lossy(), log.to_string_lossy(), change.to_string());
        let line = format!("{} {}", self.row.command, self.row.words);
        let finished = run(&mut self.command(&line, &[&program, &log_name, &number]), self.row.input.as_bytes())?;
        ensure!(change > 0 || finished.status == 0, "{}", finished.describe());
        let log = fs::read_to_string(log)?;
        let at = log.lines().nth(change.saturating_sub(1)).unwrap_or("after its last change");
        Ok((log.lines().count(), at.to_owned()))
    }

    /// Back to how it was before the command.
    fn restore(&self) -> Result<()> {
        self.end_all()?;
        fs::remove_dir_all(self.here())?;
        run(Command::new("cp").arg("-a").args([&self.before, &self.here()]), b"")?.ok()?;
        for line in self.row.running {
            self.coffer(line)?.ok()?;
        }
        Ok(())
    }

    fn end_all(&self) -> Result<()> {
        if self.row.boxes {
            for name in self.coffer("ps -q")?.ok()?.split_whitespace() {
                self.coffer(&format!("rm -f {name}"))?.ok()?;
            }
        }
        Ok(())
    }

    /// What lists print, whatever was killed before; an error of one of them is one of the row.
    fn seen(&self) -> Result<Seen> {
        // What was left half made goes with these, and nothing else of the rows does.
        for line in ["prune --force --filter label=nosuch", "volume prune --force", "image prune --force"] {
            if !line.starts_with(self.row.command) {
                self.coffer(line)?.ok()?;
            }
        }
        let mut seen = Seen::new();
        for line in ["--json ps -a", "--json images", "volume ls --format json", "network ls --format json"] {
            let text = self.coffer(line)?.ok()?;
            let mut rows = serde_json::Deserializer::from_str(&text).into_iter().collect::<Result<Vec<Value>, _>>()?;
            if let [Value::Array(list)] = &mut rows[..] {
                rows = std::mem::take(list);
            }
            let mut rows: Vec<Value> = rows.into_iter().map(settled).collect();
            rows.sort_by_key(Value::to_string);
            seen.insert(line.into(), rows.into());
        }
        for found in self.coffer("ps -a --format {{.Names}}")?.ok()?.lines() {
            let inspected: Value = serde_json::from_str(&self.coffer(&format!("inspect {found}"))?.ok()?)?;
            let (host, networks) = (&inspected[0]["HostConfig"], &inspected[0]["NetworkSettings"]["Networks"]);
            let mut networks: Vec<_> = networks.as_object().into_iter().flatten().map(|(name, _)| name).collect();
            networks.sort();
            seen.insert(format!("box {found}"), json!([host["RestartPolicy"], networks]));
        }
        // Every image is whole.
        for found in self
            .coffer("images --format {{.Repository}}:{{.Tag}}")?
            .ok()?
            .lines()
            .filter(|name| !name.contains("<none>"))
        {
            let archive = self.world.folder.path().join("whole.tar");
            self.coffer(&format!("save -o {} {found}", archive.display()))?.ok()?;
            fs::remove_file(archive)?;
        }
        self.end_all()?;
        let mut files = Vec::new();
        names(&self.here(), "", &mut files)?;
        let mut counted = BTreeMap::<String, u64>::new();
        for name in files {
            *counted.entry(name).or_default() += 1;
        }
        seen.insert("files".into(), json!(counted));
        Ok(seen)
    }

    /// How many changes the command makes, and at how many it was killed.
    fn tell(&self, number: usize, most: usize) -> Result<(usize, usize)> {
        let line = format!("{} {}", self.row.command, self.row.words);
        self.restore()?;
        let (count, _) = self.killed_at(0)?;
        ensure!(count > 0, "it changes nothing");
        let whole = self.seen()?;
        let stride = count.div_ceil(most);
        // Another one of each row, and the same in each run.
        let points: Vec<usize> = (1 + number % stride..=count).step_by(stride).collect();
        for &point in &points {
            self.restore()?;
            let (_, at) = self.killed_at(point)?;
            self.recovers(&line, &whole).with_context(|| format!("killed before change {point} of {count}: {at}"))?;
        }
        Ok((count, points.len()))
    }

    fn recovers(&self, line: &str, whole: &Seen) -> Result<()> {
        // Whatever was left, it can be looked at, and nobody wrote in the trail.
        for looks in ["ps -a", "images", "volume ls", "network ls", "system df", "inspect kept", "audit verify"] {
            self.coffer(looks)?.ok()?;
        }
        for mends in self.row.mend {
            let mended = self.coffer(mends)?;
            ensure!(!mended.stderr.contains("internal error"), "{}", mended.describe());
        }
        let again = self.coffer(line)?;
        ensure!(!again.stderr.contains("internal error"), "{}", again.describe());
        let seen = self.seen()?;
        let other: Vec<String> = whole
            .iter()
            .filter(|(key, value)| seen.get(*key) != Some(value))
            .map(|(key, value)| format!("{key}\n  is     {}\n  not as {value}", seen.get(key).unwrap_or(&Value::Null)))
            .chain(seen.keys().filter(|key| !whole.contains_key(*key)).map(|key| format!("{key} is too many")))
            .collect();
        if other.is_empty() {
            return Ok(());
        }
        bail!(
            "it is not as it is where nobody is killed:\n{}\nand the next one: {}",
            other.join("\n"),
            again.describe()
        )
    }
}

/// Without ids and moments.
fn settled(value: Value) -> Value {
    const OTHERS: &[&str] = &[
        "id",
        "ID",
        "created",
        "CreatedAt",
        "status",
        "Status",
        "RunningFor",
        "supervisor_pid",
        "vmm_pid",
        "digest",
        "size",
        "Size",
        "download",
        "unpacked",
        "error",
        "Mountpoint",
    ];
    match value {
        Value::Object(all) => all
            .into_iter()
            .filter(|(key, _)| !OTHERS.contains(&key.as_str()))
            .map(|(key, value)| (key, settled(value)))
            .collect(),
        Value::Array(all) => all.into_iter().map(settled).collect(),
        Value::String(text) => hidden(&text).into(),
        value => value,
    }
}

/// With # for what is random in a name.
fn hidden(name: &str) -> String {
    let mut parts = Vec::new();
    for part in name.split_inclusive(|c: char| !c.is_ascii_hexdigit()) {
        let hex = part.trim_end_matches(|c: char| !c.is_ascii_hexdigit());
        parts.push(if hex.len() >= 12 { part.replace(hex, "#") } else { part.to_owned() });
    }
    parts.concat()
}

/// Names of all files below a folder.
fn names(folder: &Path, before: &str, all: &mut Vec<String>) -> Result<()> {
    // The trail grows with each command; a database's own files come and go.
    const OTHERS: &[&str] = &["home/trail", "home/state.db-wal", "home/state.db-shm"];
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{before}{}", hidden(&entry.file_name().to_string_lossy()));
        if OTHERS.contains(&name.as_str()) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            names(&entry.path(), &format!("{name}/"), all)?;
        }
        all.push(name);
    }
    Ok(())
}
