//! Secrets of a key broker and of an owner: they reach the workload, new versions of them too, and nothing of them the host.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use coffer_tests::{
    World,
    canary::{Canary, Process, Search},
    demo::story::{kbs_admin, simulator_anchor},
    image::pulled,
    monitors::{Monitor, on_each},
    process::{Finished, wait_for},
    services::{Kbs, Registry},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// A world with an image, and a key broker that believes its simulator.
fn world_on(monitor: Monitor) -> Result<(World, Registry, String, Kbs)> {
    let world = World::on(monitor)?;
    let (registry, image) = pulled(&world)?;
    let anchor = simulator_anchor(&world)?;
    let anchor = anchor.to_str().context("a plain name")?;
    let kbs = Kbs::start(world.folder.path(), &["--allow-simulated", anchor, "--tenant", "default"])?;
    Ok((world, registry, image, kbs))
}

/// A value that is nowhere by chance, and fits into an environment.
pub fn value() -> Result<String> {
    let mut bytes = [0; 40];
    std::io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut bytes)?;
    Ok(format!("canary-{}", hex::encode(bytes)))
}

pub fn put(world: &World, kbs: &Kbs, tag: &str, value: &str) -> Result<()> {
    let path = format!("kbs:///demo/app/{tag}");
    kbs_admin(world, kbs, &["secret", "put", &path, "--allow-simulated"], value.as_bytes()).map(drop)
}

pub fn list(world: &World, kbs: &Kbs, flags: &[&str]) -> Result<()> {
    let reference = world.coffer(&[&["--json", "measure"], flags].concat())?.ok()?;
    kbs_admin(world, kbs, &["reference", "add", "--from", "-", "--name", "app"], reference.as_bytes()).map(drop)
}

fn sha256(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

fn json(finished: &Finished) -> Result<Value> {
    serde_json::from_str(&finished.stdout).with_context(|| finished.describe())
}

const WORKLOAD: &str = "trap 'echo changed $(sha256sum </run/secrets/key)' HUP
echo started $(sha256sum </run/secrets/key) $(printf %s \"$WORD\" | sha256sum)
while true; do sleep 1; done";

#[test]
fn a_secret_reaches_the_workload_and_nothing_of_it_the_host() -> Result<()> {
    on_each(secrets_of_broker_and_owner)
}

fn secrets_of_broker_and_owner(monitor: Monitor) -> Result<()> {
    let since = SystemTime::now();
    let (world, _registry, image, kbs) = world_on(monitor)?;
    let values = (0..5).map(|_| value()).collect::<Result<Vec<_>>>()?;
    let [key, newer, word, conf, note] = values.as_slice() else { unreachable!("five") };
    for (tag, value) in [("key", key), ("word", word), ("conf", conf)] {
        put(&world, &kbs, tag, value)?;
    }
    // What is searched is a machine's memory too.
    let memory: &[&str] = if monitor.has_machine() { &["-m", "256m"] } else { &[] };
    let flags = [
        "--tee-simulate",
        "--kbs",
        &kbs.address,
        "--kbs-pin",
        &kbs.pin,
        "--secret",
        "key=kbs:///demo/app/key,mode=0440,uid=7,gid=8,signal=HUP",
        "--secret",
        "conf=kbs:///demo/app/conf,run=touch /tmp/reloaded",
        "--secret-env",
        "WORD=kbs:///demo/app/word",
        "--inject",
        "NOTE",
        &image,
        "sh",
        "-c",
        WORKLOAD,
    ];
    let flags = [memory, &flags[..]].concat();
    list(&world, &kbs, &flags)?;
    world.coffer(&[&["run", "-d", "--name", "safe"], &flags[..]].concat())?.ok()?;

    let owner = |words: &[&str]| world.coffer(&[words, &["--allow-simulated"]].concat());
    let inside = |script: &str| world.coffer(&["exec", "--allow-simulated", "safe", "sh", "-c", script])?.ok();
    let says = |line: &str| -> Result<()> {
        let mut said = String::new();
        wait_for(Duration::from_secs(30), || {
            said = owner(&["logs", "safe"]).map(|finished| finished.text()).unwrap_or_default();
            said.contains(line)
        })
        .with_context(|| format!("expected {line:?} in\n{said}"))
    };
    says(&format!("started {} - {} -", sha256(key), sha256(word)))?;
    let listed = inside("ls -ln /run/secrets/")?;
    let key_line = listed.lines().find(|line| line.ends_with(" key")).context("no key")?;
    let words: Vec<&str> = key_line.split_whitespace().collect();
    ensure!(words[0] == "-r--r-----" && words[2..4] == ["7", "8"], "{listed}");
    ensure!(listed.lines().any(|line| line.starts_with("-r--------") && line.ends_with(" conf")), "{listed}");

    // The owner's own: from a file, and as a variable of what starts from now on.
    let theirs = tempfile::tempdir()?;
    let file = theirs.path().join("note");
    fs::write(&file, note)?;
    let at_file = format!("NOTE=@{}", file.display());
    owner(&["inject-secret", "safe", "--set-env", "--secret", &at_file])?.ok()?;
    let digests =
        inside("sha256sum </run/secrets/NOTE; printf %s \"$NOTE\" | sha256sum; printf %s \"$WORD\" | sha256sum")?;
    ensure!(digests == format!("{0}  -\n{0}  -\n{1}  -\n", sha256(note), sha256(word)), "{digests}");
    let typed = owner(&["inject-secret", "safe", "--secret", "NOTE=typed"])?;
    ensure!(typed.status == 0 && typed.stderr.contains("warning: the value of NOTE stands on"), "{}", typed.describe());
    let other = owner(&["inject-secret", "safe", "--secret", "OTHER=typed"])?;
    ensure!(
        other.status == 6 && !other.stderr.contains("warning"),
        "what is refused is not read\n{}",
        other.describe()
    );

    // New versions, as soon as somebody says so.
    let refresh = || -> Result<(i32, Value)> {
        let finished = owner(&["--json", "refresh-secrets", "safe"])?;
        Ok((finished.status, json(&finished)?["secrets"].clone()))
    };
    let row = |name: &str, version: u64, found: &str| json!({ "name": name, "version": version, "found": found, "denial_id": null });
    ensure!(refresh()? == (0, json!([row("key", 1, "unchanged"), row("conf", 1, "unchanged")])), "{:#?}", refresh()?);
    put(&world, &kbs, "key", newer)?;
    put(&world, &kbs, "conf", conf)?;
    let found = refresh()?;
    ensure!(found == (0, json!([row("key", 2, "replaced"), row("conf", 2, "replaced")])), "{found:#?}");
    says(&format!("changed {} -", sha256(newer)))?;
    inside("test -f /tmp/reloaded")?;
    kbs_admin(&world, &kbs, &["secret", "remove", "kbs:///demo/app/conf"], b"")?;
    let (status, found) = refresh()?;
    ensure!((status, &found[1]["found"], &found[1]["version"]) == (6, &"not-released".into(), &2.into()), "{found:#}");
    let id = found[1]["denial_id"].as_str().context("an id")?;
    let trail = kbs_admin(&world, &kbs, &["audit", "--id", id], b"")?;
    ensure!(trail.contains("kbs:///demo/app/conf"), "{trail}");
    ensure!(inside("sha256sum </run/secrets/conf")?.starts_with(&sha256(conf)), "what is in place stays");

    if monitor.has_machine() {
        nowhere_on_the_host(&world, &kbs, &values, since, theirs.path())?;
    }
    Ok(())
}

/// Nothing of the values is anywhere, while box safe runs and when it is gone. `theirs`: a folder in which the owner has one.
fn nowhere_on_the_host(world: &World, kbs: &Kbs, values: &[String], since: SystemTime, theirs: &Path) -> Result<()> {
    let canaries = ["the key", "the newer key", "the variable", "the configuration", "the note"];
    let canaries = canaries.iter().zip(values).map(|(name, value)| Canary::new(name, value.as_bytes()));
    let mut search = Search::new(canaries.collect());
    let processes = Process::of(world.folder.path())?;
    let named = |name: &str| processes.iter().filter(|process| process.name.starts_with(name)).count();
    ensure!([named("coffer"), named("qemu-system"), named("vhost-device-v")] == [2, 1, 1], "{processes:#?}");
    for process in &processes {
        // The broker has them, and nobody else.
        search.process(process, !process.name.starts_with("coffer-kbs"))?;
        let limits = fs::read_to_string(process.folder().join("limits"))?;
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).context("a limit")?;
        let filter = fs::read_to_string(process.folder().join("coredump_filter"))?;
        let guests = ["coffer", "qemu-system-x86", "vhost-device-vs"].contains(&process.name.as_str());
        let none = core.split_whitespace().skip(4).take(2).eq(["1", "1"]) && filter.trim() == "00000010";
        ensure!(!guests || none, "a core dump of {process:?}: {core}, {filter}");
    }
    search.files(world.folder.path(), SystemTime::UNIX_EPOCH, &[])?;
    for shared in ["/tmp", "/var/tmp", "/dev/shm"] {
        search.files(Path::new(shared), since, &[theirs, world.folder.path()])?;
    }
    for words in [&["inspect", "safe"][..], &["ps", "--no-trunc"], &["logs", "--console", "safe"], &["logs", "safe"]] {
        search.bytes(&words.join(" "), world.coffer(words)?.text().as_bytes());
    }
    search.bytes("the broker's log", kbs.log().as_bytes());
    world.coffer(&["rm", "-f", "safe"])?.ok()?;
    search.files(world.folder.path(), SystemTime::UNIX_EPOCH, &[])?;
    println!("{} processes, {} MiB", processes.len(), search.looked >> 20);
    ensure!(search.looked > 64 << 20, "a search through next to nothing");
    ensure!(search.found.is_empty(), "{:#?}", search.found);
    Ok(())
}

#[test]
fn the_search_finds_what_leaks() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let text = value()?;
    let search = || Search::new(vec![Canary::new("it", text.as_bytes())]);
    let found = |search: Search, place: &str| {
        assert!(search.found.len() == 1 && search.found[0].contains(place), "{place}: {:#?}", search.found);
    };
    let base64 = |before: &str| {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        STANDARD.encode(format!("{before}{text}behind"))
    };
    let far = format!("{}{text}", "x".repeat((4 << 20) - 9));
    for leak in [&text, &hex::encode(&text), &base64(""), &base64("a"), &base64("ab"), &base64("abc"), &far] {
        let path = folder.path().join("leak");
        fs::write(&path, format!("before {leak}"))?;
        let mut search = search();
        search.files(folder.path(), SystemTime::UNIX_EPOCH, &[])?;
        found(search, "leak");
        fs::remove_file(path)?;
    }
    fs::write(folder.path().join(&text), "")?;
    let mut named = search();
    named.files(folder.path(), SystemTime::UNIX_EPOCH, &[])?;
    found(named, "the name of a file");
    fs::remove_file(folder.path().join(&text))?;

    // A process that has it in one place each; it says when it is that far.
    let has = |argument: &str, variable: &str, input: &str, place: &str| -> Result<()> {
        let mut child = Command::new("sh")
            .args(["-c", "read -r it; echo ready; read -r end", argument])
            .env("VARIABLE", variable)
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().context("a pipe")?;
        writeln!(stdin, "{input}")?;
        BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut String::new())?;
        let mut search = search();
        let [process] = &Process::of(folder.path())?[..] else { anyhow::bail!("one process works there") };
        search.process(process, place.starts_with("memory"))?;
        drop(stdin);
        child.wait()?;
        assert!(search.found.iter().any(|it| it.contains(place)), "{place}: {:#?}", search.found);
        Ok(())
    };
    has(&text, "", "", "cmdline")?;
    has("", &text, "", "environ")?;
    has("", "", &text, "memory")
}

#[test]
fn a_refused_start_says_why_and_its_number_also_when_the_box_is_gone() -> Result<()> {
    on_each(refused_start)
}

fn refused_start(monitor: Monitor) -> Result<()> {
    let (world, _registry, image, kbs) = world_on(monitor)?;
    let flags = [
        "--tee-simulate",
        "--kbs",
        &kbs.address,
        "--kbs-pin",
        &kbs.pin,
        "--secret",
        "key=kbs:///demo/app/nosuch",
        "--env",
        "DB_PASSWORD=hunter2",
        "--env",
        "COLOUR=green",
        &image,
        "true",
    ];
    list(&world, &kbs, &flags)?;
    let id_of = |reason: &Value| -> Result<String> {
        ensure!(reason["code"] == "not-released", "{reason}");
        let id = reason["denial_id"].as_str().context("a number")?.to_owned();
        let trail = kbs_admin(&world, &kbs, &["audit", "--id", &id], b"")?;
        ensure!(trail.contains("kbs:///demo/app/nosuch"), "{trail}");
        Ok(id)
    };

    let gone = world.coffer(&[&["--json", "run", "--rm", "--name", "gone"], &flags[..]].concat())?;
    ensure!(gone.status == 125, "{}", gone.describe());
    ensure!(gone.stderr.contains("warning: DB_PASSWORD looks like a secret"), "{}", gone.describe());
    ensure!(!gone.text().contains("hunter2") && !gone.stderr.contains("COLOUR"), "{}", gone.describe());
    let id = id_of(&json(&gone)?["error"]["reason"])?;
    let boxes = |words: &[&str]| json(&world.coffer(&[&["--json", "ps"], words].concat())?);
    ensure!(boxes(&["-a"])? == json!([]), "it is gone");
    let removed = boxes(&["--filter", "status=removed"])?;
    ensure!(removed[0]["name"] == "gone" && removed[0]["reason"]["denial_id"] == id.as_str(), "{removed:#}");
    let inspected = json(&world.coffer(&["inspect", "gone"])?)?;
    ensure!(
        inspected[0]["State"]["Status"] == "removed" && id_of(&inspected[0]["State"]["Reason"])? == id,
        "{inspected:#}"
    );
    let table = world.coffer(&["ps", "--filter", "status=removed"])?.ok()?;
    ensure!(table.contains(&format!("(not-released {id}")), "{table}");

    world.coffer(&[&["create", "--name", "kept"], &flags[..]].concat())?.ok()?;
    let kept = world.coffer(&["start", "kept"])?;
    ensure!(kept.status == 125, "{}", kept.describe());
    let inspected = json(&world.coffer(&["inspect", "kept"])?)?;
    let id = id_of(&inspected[0]["State"]["Reason"])?;
    ensure!(kept.stderr.contains(&id), "{}", kept.describe());
    let table = world.coffer(&["ps", "-a"])?.ok()?;
    ensure!(table.contains(&format!("(not-released {id}")), "{table}");
    Ok(())
}
