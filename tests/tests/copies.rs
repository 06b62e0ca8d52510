//! `coffer cp` and `coffer top`: files go in and out as they are, each where Docker would put it, and nothing a box sends leads out
//! of where it goes. In a box without a machine, which needs root of this one, and says so where it is not.

use std::{
    fs,
    io::Read as _,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use coffer_tests::{World, image::without_a_machine, process::run, services::Registry};
use serde_json::Value;

/// A world with a box that waits; nothing where this host has none without a machine.
fn world(flags: &[&str]) -> Result<Option<(World, Registry)>> {
    let Some((world, registry, image)) = without_a_machine()? else { return Ok(None) };
    let words =
        [&["run", "-d", "--name", "box", "--tmpfs", "/cache"], flags, &[image.as_str(), "sleep", "4210"]].concat();
    world.coffer(&words)?.ok()?;
    Ok(Some((world, registry)))
}

fn tree(at: &Path) -> Result<()> {
    fs::create_dir_all(at.join("sub/empty"))?;
    fs::write(at.join("sub/binary"), (0..=255_u8).cycle().take(300_000).collect::<Vec<_>>())?;
    fs::write(at.join("run"), "#!/bin/sh\necho ran\n")?;
    fs::set_permissions(at.join("run"), fs::Permissions::from_mode(0o750))?;
    symlink("/etc/shadow", at.join("link"))?;
    std::os::unix::fs::chown(at.join("run"), Some(65534), Some(65534))?;
    Ok(())
}

fn same(one: &Path, other: &Path) -> Result<()> {
    let differ = run(Command::new("diff").args(["-r", "--no-dereference"]).arg(one).arg(other), b"")?;
    ensure!(differ.status == 0, "{}", differ.describe());
    Ok(())
}

#[test]
fn files_go_in_and_come_out_as_they_are() -> Result<()> {
    let Some((world, _registry)) = world(&[])? else { return Ok(()) };
    let folder = world.folder.path();
    let (from, at) = (folder.join("from"), |name: &str| folder.join(name).display().to_string());
    tree(&from)?;
    world.coffer(&["cp", &at("from"), "box:/new"])?.ok()?;
    world.coffer(&["cp", &at("from"), "box:/tmp"])?.ok()?;
    world.coffer(&["cp", &at("from/."), "box:cache/"])?.ok()?; // a mount that only the box sees
    for place in ["/new", "/tmp/from", "/cache"] {
        let to = folder.join(format!("to{}", place.replace('/', "-")));
        world.coffer(&["cp", &format!("box:{place}"), &to.display().to_string()])?.ok()?;
        same(&from, &to)?;
        ensure!(fs::metadata(to.join("run"))?.mode() & 0o7777 == 0o750);
        ensure!(fs::metadata(to.join("run"))?.uid() == 0, "whoever copies owns the copy");
    }
    ensure!(world.coffer(&["exec", "box", "/new/run"])?.ok()? == "ran\n");
    ensure!(
        world.coffer(&["exec", "box", "ls", "-n", "/new/run"])?.ok()?.contains(" 0        0 "),
        "root's in the box"
    );
    world.coffer(&["cp", "-a", &at("from/run"), "box:/kept"])?.ok()?;
    world.coffer(&["cp", "-a", "box:/kept", &at("kept")])?.ok()?;
    ensure!(fs::metadata(folder.join("kept"))?.uid() == 65534);

    // A tar stream in and out; and it is whole, or it is an error.
    let tar = run(Command::new("tar").args(["-C", &at("from"), "-c", "."]), b"")?;
    ensure!(tar.status == 0);
    let stream = Command::new("tar").args(["-C", &at("from"), "-c", "."]).output()?.stdout;
    world.coffer_with(&["cp", "-", "box:/tmp/tarred"], &stream)?.ok()?;
    let output = world.command(&["cp", "box:/tmp/tarred", "-"]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::create_dir(folder.join("untarred"))?;
    run(Command::new("tar").args(["-C", &at("untarred"), "-x"]), &output.stdout)?.ok()?;
    same(&from, &folder.join("untarred/tarred"))?;
    let cut = world.coffer_with(&["cp", "-", "box:/tmp/cut"], &stream[..stream.len() / 2])?;
    ensure!(cut.status == 3, "{}", cut.describe());
    // The file it breaks off in stays as it was, and there is no half of another.
    world.coffer(&["exec", "box", "sh", "-c", "mkdir -p /part/sub && echo before >/part/sub/binary"])?.ok()?;
    let part = Command::new("tar").args(["-C", &at("from"), "-c", "sub/binary"]).output()?.stdout;
    let broken = world.coffer_with(&["cp", "-", "box:/part"], &part[..part.len() / 2])?;
    ensure!(broken.status == 3, "{}", broken.describe());
    let left = world.coffer(&["exec", "box", "sh", "-c", "cat /part/sub/binary; busybox ls -A /part/sub"])?.ok()?;
    ensure!(left == "before\nbinary\n", "{left}");

    // Whoever reads it may have seen enough; one that is compressed is said to be.
    let mut enough =
        world.command(&["cp", "box:/new/sub/binary", "-"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut block = [0; 512];
    enough.stdout.take().context("it was piped")?.read_exact(&mut block)?;
    let ended = enough.wait_with_output()?;
    ensure!(ended.status.code() == Some(141) && ended.stderr.is_empty(), "{ended:?}");
    let packed = Command::new("tar").args(["-C", &at("from"), "-cz", "."]).output()?.stdout;
    let refused = world.coffer_with(&["cp", "-", "box:/tmp"], &packed)?;
    ensure!(refused.status == 3 && refused.stderr.contains("gzip"), "{}", refused.describe());

    // From box to box, which may be the same one.
    world.coffer(&["cp", "box:/new", "box:/again"])?.ok()?;
    world.coffer(&["exec", "box", "busybox", "diff", "-r", "/new", "/again"])?.ok()?;

    fs::create_dir(folder.join("from/run-"))?;
    fs::rename(folder.join("from/run"), folder.join("from/was"))?;
    fs::rename(folder.join("from/run-"), folder.join("from/run"))?;
    for (words, status, said) in [
        (&["cp", "box:/nosuch", "."][..], 1, "No such file"),
        (&["cp", "/nosuch", "box:/tmp"], 1, "/nosuch"),
        (&["cp", "box:/nosuch", "box:/tmp"], 1, "cannot read box:/nosuch"),
        (&["cp", "box:/new", "box:/nowhere/x"], 1, "cannot write box:/nowhere/x"),
        (&["cp", "/a", "/b"], 2, "BOX:PATH"),
        (&["cp", "--limit", "1k", "box:/new", "limited"], 3, "more than 1024 bytes\nhint: --limit takes more"),
        (&["cp", "--limit", "1k", "box:/new", "box:/limited"], 3, "more than 1024 bytes\nhint: --limit takes more"),
        (&["cp", "--limit", "1k", "box:/new", "-"], 3, "more than 1024 bytes\nhint: --limit takes more"),
        (&["cp", "box:/new/run", "from"], 3, "cannot make \"from/run\": Is a directory"),
        (&["cp", "/etc/hostname", "box:/proc/nosuch/x"], 1, "in the box"),
        (&["cp", "box:/new/run", "nowhere/x"], 1, "cannot open the folder \"nowhere\""),
    ] {
        let refused = run(world.command(words).current_dir(folder), b"")?;
        ensure!(refused.status == status && refused.stderr.contains(said), "{}", refused.describe());
        ensure!(refused.stderr.contains("--limit") == words.contains(&"--limit"), "{}", refused.describe());
    }
    let json: Value = serde_json::from_str(&world.coffer(&["--json", "cp", "box:/new/run", &at("json")])?.ok()?)?;
    let named = serde_json::json!({ "box": "box", "entries": 1, "bytes": 19, "source": "box:/new/run", "destination": at("json") });
    ensure!(json == named, "{json}");
    Ok(())
}

#[test]
fn links_of_a_box_are_copied_and_never_followed_here() -> Result<()> {
    let Some((world, _registry)) = world(&[])? else { return Ok(()) };
    let folder = world.folder.path();
    fs::create_dir_all(folder.join("outside"))?;
    fs::create_dir_all(folder.join("there/x"))?;
    symlink(folder.join("outside"), folder.join("there/x/out"))?;
    world
        .coffer(&["exec", "box", "sh", "-c", "mkdir -p /x/out && echo bad >/x/out/file; busybox mknod /x/pipe p"])?
        .ok()?;
    let to = folder.join("there").display().to_string();
    let refused = world.coffer(&["cp", "box:/x", &to])?;
    ensure!(refused.status == 3, "a folder through a link of ours\n{}", refused.describe());
    ensure!(fs::read_dir(folder.join("outside"))?.count() == 0);
    let fresh = world.coffer(&["cp", "box:/x", &folder.join("fresh").display().to_string()])?;
    ensure!(
        fresh.status == 0 && fresh.stderr.contains("1 devices, sockets, pipes or endless files were left out"),
        "{}",
        fresh.describe()
    );
    // The other way round: what is in the box decides there, and no file of this machine is reached.
    world.coffer(&["exec", "box", "busybox", "ln", "-s", "/etc", "/x/etc"])?.ok()?;
    let word = folder.join("word");
    fs::write(&word, "of ours")?;
    world.coffer(&["cp", &word.display().to_string(), "box:/x/etc/coffer-was-here"])?.ok()?;
    ensure!(!Path::new("/etc/coffer-was-here").exists());
    ensure!(world.coffer(&["exec", "box", "cat", "/etc/coffer-was-here"])?.ok()? == "of ours");
    Ok(())
}

#[test]
fn what_a_box_wrote_is_listed_exported_and_becomes_an_image() -> Result<()> {
    let Some((world, _registry)) = world(&["--label", "x=1"])? else { return Ok(()) };
    let folder = world.folder.path();
    let at = |name: &str| folder.join(name).display().to_string();
    ensure!(world.coffer(&["diff", "box"])?.ok()? == "A /cache\n", "where the tmpfs lies");
    let script = "mkdir -p /new/deep && echo hello >/new/deep/file && busybox ln /new/deep/file /new/second
        busybox ln -s deep /new/link && busybox chown 65534:65534 /new/second && busybox chmod 4750 /new/deep
        busybox mkfifo /new/pipe && rm -r /etc/passwd /lib64 && echo y >/cache/unseen && echo z >/new/.wh.odd";
    world.coffer(&["exec", "box", "sh", "-c", script])?.ok()?;
    let listed = world.coffer(&["diff", "box"])?.ok()?;
    for line in ["A /new", "A /new/deep/file", "A /new/second", "A /new/.wh.odd", "C /etc", "D /etc/passwd", "D /lib64"]
    {
        ensure!(listed.lines().any(|found| found == line), "{line}: {listed}");
    }
    ensure!(!listed.contains("unseen") && !listed.contains("/etc/hosts") && !listed.contains("/proc"), "{listed}");
    let json: Value = serde_json::from_str(&world.coffer(&["--json", "diff", "box"])?.ok()?)?;
    ensure!(json["changes"].as_array().is_some_and(|all| all.len() == listed.lines().count()), "{json}");

    // Out and in again, by any reader of tar streams.
    let exported = world.coffer(&["export", "-o", &at("box.tar"), "box"])?;
    ensure!(exported.status == 0 && exported.stderr.contains("1 devices"), "{}", exported.describe());
    let names = run(Command::new("tar").args(["-tf", &at("box.tar")]), b"")?.ok()?;
    for name in ["new/deep/file", "new/pipe", "bin/busybox", "proc"] {
        ensure!(names.lines().any(|found| found.trim_end_matches('/') == name), "{name}: {names}");
    }
    ensure!(!names.contains("unseen") && !names.contains("etc/hosts") && !names.contains("proc/"), "{names}");
    fs::create_dir(folder.join("there"))?;
    run(Command::new("tar").args(["-C", &at("there"), "-xpf", &at("box.tar")]), b"")?.ok()?;
    let second = fs::metadata(folder.join("there/new/second"))?;
    ensure!((second.nlink(), second.uid(), second.gid()) == (2, 65534, 65534), "{second:?}");
    ensure!(fs::metadata(folder.join("there/new/deep"))?.mode() & 0o7777 == 0o4750);
    let stream = world.command(&["export", "box"]).output()?;
    ensure!(stream.status.success() && stream.stdout == fs::read(folder.join("box.tar"))?, "the same by either way");
    world.coffer(&["import", &at("box.tar"), "exported:1"])?.ok()?;
    let limited = world.coffer(&["export", "--limit", "4k", "-o", &at("limited.tar"), "box"])?;
    ensure!(limited.status == 3 && limited.stderr.contains("--limit takes more"), "{}", limited.describe());
    ensure!(!folder.join("limited.tar").exists(), "no half of a file");

    let words = ["commit", "-m", "by hand", "-a", "ann", "-c", "CMD [\"cat\", \"/new/second\"]", "box", "committed:1"];
    let id = world.coffer(&words)?.ok()?;
    ensure!(id.starts_with("sha256:") && id.trim().len() == 71, "{id}");
    let before = ["run", "--rm", "--pull", "never"];
    let of = |words: &[&str]| world.coffer(&[&before[..], words].concat());
    ensure!(of(&["committed:1"])?.ok()? == "hello\n");
    for image in ["committed:1", "exported:1"] {
        let script = "cat /new/deep/file; test ! -e /etc/passwd && test -p /new/pipe && test ! -e /lib64 && echo x; ls -n /new/second";
        let seen = of(&[image, "sh", "-c", script])?.ok()?;
        ensure!(seen.starts_with("hello\nx\n") && seen.contains(" 65534    65534 "), "{image}: {seen}");
    }
    let history = world.coffer(&["history", "committed:1"])?.ok()?;
    ensure!(history.contains("by hand") && history.contains("sleep 4210"), "{history}");
    let images = world.coffer(&["--json", "images"])?.ok()?;
    let refused = world.coffer(&["commit", "box", "Not A Name"])?;
    ensure!(refused.status == 2, "{}", refused.describe());
    world.coffer(&["stop", "-t", "0", "box"])?.ok()?;
    for words in [&["diff", "box"][..], &["export", "-o", &at("none.tar"), "box"], &["commit", "box", "none:1"]] {
        let refused = world.coffer(words)?;
        ensure!(refused.status == 3 && refused.stderr.contains("is not running"), "{}", refused.describe());
    }
    ensure!(!folder.join("none.tar").exists() && world.coffer(&["--json", "images"])?.ok()? == images);
    Ok(())
}

#[test]
fn rights_are_given_one_by_one_and_what_is_refused_is_named() -> Result<()> {
    let Some((world, _registry)) = world(&["--host-may", "stop,cp,top"])? else { return Ok(()) };
    let listed = world.coffer(&["top", "box"])?.ok()?;
    ensure!(listed.contains("CMD") && listed.contains("sleep 4210"), "{listed}");
    let json: Value = serde_json::from_str(&world.coffer(&["--json", "top", "box"])?.ok()?)?;
    let programs = json["programs"].as_array().context("a list")?;
    ensure!(programs.len() == 1 && programs[0]["pid"] == 1 && programs[0]["uid"] == 0, "{json}");
    let to = world.folder.path().join("hostname").display().to_string();
    world.coffer(&["cp", "box:/etc/hostname", &to])?.ok()?;
    let refused = world.coffer(&["exec", "box", "true"])?;
    ensure!(
        refused.status == 125 && refused.stderr.contains("gives the host no right to exec"),
        "{}",
        refused.describe()
    );
    Ok(())
}

#[test]
fn an_owner_copies_and_lists_in_a_guest_that_proves_itself() -> Result<()> {
    let Some((world, _registry)) = world(&["--tee-simulate"])? else { return Ok(()) };
    let folder = world.folder.path();
    let at = |name: &str| folder.join(name).display().to_string();
    tree(&folder.join("from"))?;
    world.coffer(&["cp", "--allow-simulated", &at("from"), "box:/new"])?.ok()?;
    world.coffer(&["cp", "--allow-simulated", "box:/new", &at("to")])?.ok()?;
    same(&folder.join("from"), &folder.join("to"))?;
    ensure!(world.coffer(&["top", "--allow-simulated", "box"])?.ok()?.contains("sleep 4210"));
    ensure!(world.coffer(&["diff", "--allow-simulated", "box"])?.ok()?.contains("A /new\nA /new/link\n"));
    world.coffer(&["export", "--allow-simulated", "-o", &at("box.tar"), "box"])?.ok()?;
    let committed = world.coffer(&["commit", "box", "none:1"])?;
    ensure!(committed.status == 6 && committed.stderr.contains("has a TEE"), "{}", committed.describe());
    // What the whole box uses is the host's to see as well.
    let stats: Value = serde_json::from_str(&world.coffer(&["--json", "stats", "--no-stream", "box"])?.ok()?)?;
    let figures = &stats["boxes"][0];
    for counted in ["cpu_percent", "cpu_us", "memory_bytes", "pids"] {
        ensure!(figures[counted].as_f64().is_some_and(|figure| figure >= 0.0), "{counted}: {stats}");
    }
    // It has no machine, and does not tell of its host's.
    for absent in ["processors", "memory_limit_bytes", "disk_read_bytes", "network_sent_bytes"] {
        ensure!(figures[absent].is_null(), "{absent}: {stats}");
    }
    ensure!(figures["uptime_us"].as_u64().is_some_and(|since| since < 3_600_000_000), "not its host's: {stats}");
    let terminal = world.coffer(&["exec", "--allow-simulated", "-t", "box", "busybox", "tty"])?.ok()?;
    ensure!(terminal == "/dev/pts/0\r\n", "{terminal:?}");
    for words in [&["cp", "box:/etc/hostname", "x"][..], &["top", "box"], &["diff", "box"], &["export", "box"]] {
        let refused = world.coffer(words)?;
        ensure!(refused.status == 5 && refused.stderr.contains("--allow-simulated"), "{}", refused.describe());
    }
    Ok(())
}
