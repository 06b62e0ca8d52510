//! `--isolation process`: a box without a machine lives as one in a VM does, proves what it is and not that it is more, and is
//! nobody on the host. Needs root of this machine, and says so where it is not.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use coffer_tests::{
    World,
    image::without_a_machine,
    process::{Finished, run, says, wait_for},
};
use serde_json::Value;

fn inspect(world: &World, name: &str) -> Result<Value> {
    let list: Value = serde_json::from_str(&world.coffer(&["inspect", name])?.ok()?)?;
    Ok(list[0].clone())
}

#[test]
fn a_box_lives_as_one_in_a_machine_does() -> Result<()> {
    let Some((world, _registry, image)) = without_a_machine()? else { return Ok(()) };
    for (words, status) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 7"][..], 7),
        (&["sh", "-c", "sh -c 'kill -9 $$'; exit $?"][..], 137),
        (&["/etc/passwd"][..], 126),
        (&["nosuch"][..], 127),
    ] {
        let words: Vec<&str> = ["run", "--rm", image.as_str()].into_iter().chain(words.iter().copied()).collect();
        says(&world.coffer(&words)?, status, &[])?;
    }
    ensure!(world.coffer(&["ps", "-aq"])?.ok()?.is_empty(), "--rm left something");

    let script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done";
    world.coffer(&["run", "-d", "--name", "box", "--hostname", "inside", &image, "sh", "-c", script])?.ok()?;
    wait_for(Duration::from_secs(10), || world.coffer(&["logs", "box"]).is_ok_and(|said| said.stdout == "up\n"))?;
    says(&world.coffer_with(&["exec", "-i", "box", "cat"], b"through and back")?, 0, &["through and back"])?;
    says(&world.coffer(&["exec", "box", "sh", "-c", "hostname; id -u; exit 9"])?, 9, &["inside\n0\n"])?;
    says(&world.coffer(&["exec", "-u", "nobody", "box", "id", "-u"])?, 0, &["65534"])?;
    world.coffer(&["stop", "box"])?.ok()?;
    says(&world.coffer(&["logs", "box"])?, 0, &["up\nbye\n"])?;
    ensure!(inspect(&world, "box")?["State"]["ExitCode"] == 3);

    world.coffer(&["start", "box"])?.ok()?;
    let holder = inspect(&world, "box")?["State"]["Pid"].as_u64().context("a pid")?;
    world.coffer(&["rm", "-f", "box"])?.ok()?;
    ensure!(!Path::new(&format!("/proc/{holder}")).exists(), "killed, and still there");
    Ok(())
}

/// Ids of a process, its parent and its namespaces, as the host sees them.
fn of_process(pid: &str, field: &str) -> Result<Vec<String>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).context("a field")?;
    Ok(line.split_whitespace().map(str::to_owned).collect())
}

/// The process with these arguments, as the host sees it.
fn pid_of(words: &str) -> Result<String> {
    let found = fs::read_dir("/proc")?.flatten().find(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").trim() == words
    });
    Ok(found.with_context(|| format!("no process {words}"))?.file_name().to_string_lossy().into_owned())
}

/// The one child of a process.
fn child_of(parent: &str) -> Result<String> {
    let pids = fs::read_dir("/proc")?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_child = |pid: &String| of_process(pid, "PPid").is_ok_and(|found| found == [parent]);
    pids.filter(|name| name.parse::<u32>().is_ok()).find(is_child).with_context(|| format!("{parent} has no child"))
}

const NET_ADMIN: u64 = 1 << 12;

/// What took init over, and came out of each of its namespaces but that of users: root there, with every capability, among the
/// host's processes and files.
fn break_out(world: &World, init: &str, holder: &str) -> Result<()> {
    let users = format!("--user=/proc/{init}/ns/user");
    let attempt = |script: &str| {
        let words = [users.as_str(), "--setuid", "0", "--setgid", "0", "--", "sh", "-c", script];
        run(Command::new("nsenter").args(words), b"")
    };
    says(&attempt("id -u && test -d /proc/self && test -e /etc/passwd")?, 0, &["0"])?;
    let (home, ours) = (world.home(), world.folder.path().join("ours"));
    fs::write(&ours, "of the host")?;
    fs::set_permissions(&ours, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    let (home, ours) = (home.display(), ours.display());
    for script in [
        format!("ls {home}"),
        "cat /etc/shadow".into(),
        "touch /etc/coffer-was-here".into(),
        format!("chown 0 {ours}"),
        format!("echo x >>{ours}"),
        format!("kill -9 {holder}"),
        "mount -t tmpfs x /mnt".into(),
        format!("mknod {ours}-disk b 7 0"),
        "hostname other".into(),
        "echo 1 >/proc/sys/kernel/panic".into(),
        format!("cat /proc/{holder}/environ"),
    ] {
        let finished = attempt(&script)?;
        ensure!(finished.status != 0, "allowed: {script}\n{}", finished.describe());
    }
    Ok(())
}

#[test]
fn neither_workload_nor_init_is_anybody_on_the_host() -> Result<()> {
    let Some((world, _registry, image)) = without_a_machine()? else { return Ok(()) };
    let port = "echo 1 > /dev/null; head -c 1 /dev/urandom > /tmp/byte; sleep 4242";
    let command = world.command(&["run", "-d", "--name", "box", "--tmpfs", "/cache", &image, "sh", "-c", port]);
    // By somebody who leaves a folder of the host's open.
    let mut careless = Command::new("sh");
    careless.args(["-c", "exec 7</ && exec \"$@\"", "sh"]).arg(command.get_program()).args(command.get_args());
    careless.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    run(&mut careless, b"")?.ok()?;
    wait_for(Duration::from_secs(10), || pid_of("sleep 4242").is_ok())?;
    let workload = pid_of("sleep 4242")?;
    let holder = inspect(&world, "box")?["State"]["Pid"].to_string();
    let init = child_of(&holder)?;

    for (who, pid) in [("workload", &workload), ("init", &init)] {
        for field in ["Uid", "Gid"] {
            for id in of_process(pid, field)? {
                ensure!(id.parse::<u32>()? >= 0x4000_0000, "{who} has {field} {id} on the host");
            }
        }
        for kind in ["mnt", "pid", "net", "uts", "ipc", "user", "cgroup"] {
            let at = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}"));
            ensure!(at(pid)? != at("self")?, "{who} is in the host's namespace {kind}");
        }
    }
    for entry in fs::read_dir(format!("/proc/{init}/fd"))? {
        let open = fs::read_link(entry?.path())?.to_string_lossy().into_owned();
        let own = ["socket:", "pipe:", "anon_inode:", "/dev/null"].iter().any(|kind| open.starts_with(kind));
        ensure!(own, "init has {open} open");
    }
    let users = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/user"));
    ensure!(users(&workload)? != users(&init)?, "the workload has init's capabilities");
    for (who, pid, filters) in [("workload", &workload, "2"), ("init", &init, "1")] {
        ensure!(of_process(pid, "Seccomp")? == ["2"], "{who} has no filter");
        ensure!(of_process(pid, "Seccomp_filters")? == [filters], "{who} has not its filters");
        for field in ["CapEff", "CapPrm", "CapBnd"] {
            let held = u64::from_str_radix(&of_process(pid, field)?.concat(), 16)?;
            ensure!(held & NET_ADMIN == 0, "{who} is the administrator of a network by {field}");
        }
        let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
        let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).context("a limit")?;
        ensure!(core.split_whitespace().eq(["1", "1", "bytes"]), "{who} may be dumped: {core}");
    }
    break_out(&world, &init, &holder)?;
    // Nothing of the host's that init could use is open in it, and nothing of the host's files in sight.
    let mounts = fs::read_to_string(format!("/proc/{init}/mounts"))?;
    let root = mounts.lines().next().context("a root")?;
    ensure!(root.starts_with("init / tmpfs ro"), "{root}");
    for mount in mounts.lines() {
        let words: Vec<&str> = mount.split(' ').collect();
        let own = ["tmpfs", "proc", "sysfs", "erofs", "overlay"].contains(&words[2]);
        ensure!(own || words[1].starts_with("/coffer/lines/"), "of the host's: {mount}");
    }

    for (attempt, refused) in [
        ("mount -t tmpfs x /cache", true),
        ("echo 1 > /proc/sys/kernel/panic", true),
        ("echo x > /run/secrets/x", true),
        ("kill -9 1 2>&1; test -e /coffer", true),
        ("touch /cache/x && touch /x && rm /x", false),
    ] {
        let status = world.coffer(&["exec", "box", "sh", "-c", attempt])?.status;
        ensure!((status != 0) == refused, "{attempt}: {status}");
    }
    world.coffer(&["rm", "-f", "box"])?.ok()?;

    // All of it goes with whoever holds it, however that ends.
    world.coffer(&["run", "-d", "--name", "other", &image, "sleep", "4243"])?.ok()?;
    wait_for(Duration::from_secs(10), || pid_of("sleep 4243").is_ok())?;
    let pid = inspect(&world, "other")?["State"]["Pid"].to_string();
    run(Command::new("kill").args(["-9", &pid]), b"")?.ok()?;
    wait_for(Duration::from_secs(10), || pid_of("sleep 4243").is_err())?;
    Ok(())
}

#[test]
fn it_is_attested_as_what_it_is_and_as_nothing_more() -> Result<()> {
    let Some((world, _registry, image)) = without_a_machine()? else { return Ok(()) };
    let box_of = ["--tee-simulate", image.as_str(), "sleep", "600"];
    let words = |first: &[&'static str]| first.iter().copied().chain(box_of).collect::<Vec<_>>();
    world.coffer(&words(&["run", "-d", "--name", "box"]))?.ok()?;
    says(&world.coffer(&["attest", "box"])?, 5, &[])?;
    let said: Value = serde_json::from_str(&world.coffer(&["--json", "attest", "box", "--allow-simulated"])?.ok()?)?;
    let measure = |isolation: &[&str]| -> Result<Value> {
        let words: Vec<&str> = ["--json", "measure"].iter().chain(isolation).copied().chain(box_of).collect();
        let mut command = World::new()?.command(&words);
        command.env("COFFER_HOME", world.home());
        Ok(serde_json::from_str(&run(&mut command, b"")?.ok()?)?)
    };
    let own = measure(&["--isolation", "process"])?;
    ensure!(own["launch"] == "namespaces", "{own:#}");
    let measured = own["measurement"].as_str().context("a measurement")?;
    ensure!(said.to_string().contains(measured), "{said:#}");
    for machine in ["qemu", "kvm"] {
        let other = measure(&["--isolation", machine])?;
        ensure!(!other.to_string().contains(measured), "a machine is measured as none: {other:#}");
    }
    ensure!(!measure(&[])?.to_string().contains(measured), "measured where nobody asked for it by name");
    // The owner's road in is open, as to a machine.
    says(&world.coffer(&["exec", "--allow-simulated", "box", "echo", "in"])?, 0, &["in"])?;
    let sealed = world.folder.path().join("sealed");
    let sealed = sealed.to_str().context("a name")?;
    world.coffer_with(&["seal", "box", "--allow-simulated", "-o", sealed], b"state")?.ok()?;
    let opened = world.coffer(&["unseal", "box", sealed, "--allow-simulated"]);
    says(&opened?, 0, &["state"])?;
    Ok(())
}

#[test]
fn what_needs_a_machine_is_refused_by_name() -> Result<()> {
    let Some((world, _registry, image)) = without_a_machine()? else { return Ok(()) };
    says(&world.coffer(&["run", "--rm", "--tee", &image, "true"])?, 125, &["--isolation process", "--tee"])?;
    says(&world.coffer(&["run", "--rm", "--scratch", "16m", &image, "true"])?, 125, &["process", "scratch disk"])?;
    let key = world.folder.path().join("id.pem");
    let key = key.to_str().context("a name")?;
    world.coffer(&["id-key", "init", "--out", key])?.ok()?;
    says(
        &world.coffer(&["run", "--rm", "--tee-simulate", "--id-key", key, &image, "true"])?,
        125,
        &["process", "ID block"],
    )?;
    world.coffer(&["run", "-d", "--name", "box", &image, "sleep", "600"])?.ok()?;
    says(&world.coffer(&["pause", "box"])?, 4, &["process"])?;
    Ok(())
}

/// Whether this host has control groups that bound a box.
fn bounds() -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let whole = mounts.lines().filter(|line| line.contains(" - cgroup2 ")).filter_map(|line| line.split(' ').nth(4));
    let has = |folder: &str| {
        let text = fs::read_to_string(format!("{folder}/cgroup.controllers")).unwrap_or_default();
        ["cpu", "memory"].iter().all(|name| text.split_whitespace().any(|found| found == *name))
    };
    Ok(whole.into_iter().any(has))
}

#[test]
fn a_box_that_cannot_be_bounded_as_asked_is_not_made() -> Result<()> {
    let Some((world, _registry, image)) = without_a_machine()? else { return Ok(()) };
    for bound in [["--memory", "256m"], ["--cpus", "2"]] {
        let finished = world.coffer(&["run", "--rm", bound[0], bound[1], &image, "true"])?;
        if bounds()? {
            says(&finished, 0, &[])?;
        } else {
            says(&finished, 125, &["cannot bound the memory or the processors", "--memory and --cpus"])?;
        }
    }
    world.coffer(&["create", "--name", "box", &image, "true"])?.ok()?;
    let host = inspect(&world, "box")?["HostConfig"].clone();
    ensure!((&host["Memory"], &host["NanoCpus"]) == (&0.into(), &0.into()), "{host:#}");
    says(&world.coffer(&["start", "--isolation", "qemu", "box"])?, 125, &["with a machine and without"])?;
    Ok(())
}

/// How many processes the host has with these arguments.
fn count_of(words: &str) -> Result<usize> {
    let is = |entry: &fs::DirEntry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").trim() == words
    };
    Ok(fs::read_dir("/proc")?.flatten().filter(is).count())
}

#[test]
fn a_workload_that_forks_without_end_comes_to_its_end() -> Result<()> {
    let Some((world, _registry, image)) = without_a_machine()? else { return Ok(()) };
    // One that tries again and again: whatever is left for a moment, it takes.
    let bomb = r#"while (1) if (system("sleep 4244 &") && !said) { said = 1; print "no more"; fflush() }"#;
    let user = ["--user", "nobody"];
    let run = [&["run", "-d", "--name", "box", "--tee-simulate"], &user[..]].concat();
    let program = format!("BEGIN {{ {bomb} }}");
    world.coffer(&[&run[..], &[&image, "busybox", "awk", &program]].concat())?.ok()?;
    let logs = || world.coffer(&["logs", "box", "--allow-simulated"]).map(|said| said.text()).unwrap_or_default();
    wait_for(Duration::from_mins(2), || logs().contains("no more"))?;
    // The last of them may not have become `sleep` yet.
    wait_for(Duration::from_mins(2), || count_of("sleep 4244").is_ok_and(|count| count >= 3900))?;
    let count = count_of("sleep 4244")?;
    ensure!(count < 4096 - 64, "{count} processes: {}", logs());
    // What is its init's it does not take: the agent proves what it is, and tells what was written and what runs.
    for _ in 0..3 {
        world.coffer(&["attest", "box", "--allow-simulated"])?.ok()?;
    }
    ensure!(logs().contains("no more"));
    says(&world.coffer(&["top", "box", "--allow-simulated"])?, 0, &["sleep 4244"])?;
    // The host has what it needs, other boxes what is theirs, and this one an end.
    says(&world.coffer(&["run", "--rm", &image, "echo", "beside it"])?, 0, &["beside it"])?;
    world.coffer(&["stop", "-t", "1", "box"])?.ok()?;
    ensure!(count_of("sleep 4244")? == 0, "stopped, and still there");
    Ok(())
}

#[test]
fn an_image_that_is_not_the_specs_starts_nothing() -> Result<()> {
    let Some((world, _registry, image)) = without_a_machine()? else { return Ok(()) };
    let root = world.roots()?.pop().context("an image")?;
    let bytes = fs::read(&root)?;
    let conf = world.folder.path().join("conf");
    fs::create_dir(&conf)?;
    fs::write(conf.join("a"), "as it was")?;
    let bind = format!("{}:/conf:ro", conf.display());
    says(&world.coffer(&["run", "--rm", "-v", &bind, &image, "cat", "/conf/a"])?, 0, &["as it was"])?;
    // Where the file system begins, whoever opens the image sees it; elsewhere only the check of all of it tells.
    for (at, word) in
        [(1024, "the image is damaged"), (bytes.len() / 3, "root-corrupt"), (bytes.len() / 2, "root-corrupt")]
    {
        let mut other = bytes.clone();
        other[at] ^= 1;
        fs::write(&root, &other)?;
        says(&world.coffer(&["run", "--rm", &image, "true"])?, 125, &[word])?;
    }
    fs::write(&root, &bytes)?;
    says(&world.coffer(&["run", "--rm", &image, "true"])?, 0, &[])?;
    Ok(())
}

#[test]
fn nothing_of_a_box_runs_before_its_network_is_there() -> Result<()> {
    let Some((world, _registry, image)) = without_a_machine()? else { return Ok(()) };
    let passt = world.folder.path().join("passt");
    let run_with = |script: &str, words: &[&str]| -> Result<Finished> {
        fs::write(&passt, format!("#!/bin/sh\n{script}\n"))?;
        fs::set_permissions(&passt, Permissions::from_mode(0o755))?;
        let words = [&["run", "--rm", "-v", "kept:/kept"], words, &[&image, "sh", "-c", "echo ran >>/kept/said"]];
        run(world.command(&words.concat()).env("COFFER_PASST", &passt), b"")
    };
    let said = || -> Result<String> {
        let cat = ["run", "--rm", "--network", "none", "-v", "kept:/kept", &image, "cat", "/kept/said"];
        Ok(world.coffer(&cat)?.stdout)
    };
    // The box is made by then, and waits.
    says(&run_with("sleep 0.5; echo no such luck >&2; exit 1", &[])?, 125, &["passt did not start", "no such luck"])?;
    ensure!(said()?.is_empty(), "it ran without its network");
    ensure!(world.coffer(&["ps", "-aq"])?.ok()?.is_empty(), "something is left");
    let folder = world.folder.path().display().to_string();
    ensure!(fs::read_to_string("/proc/mounts")?.lines().all(|line| !line.contains(&folder)), "something is mounted");
    says(&run_with("sleep 0.5; exec passt \"$@\"", &["-p", "127.0.0.1:0:80"])?, 0, &[])?;
    ensure!(said()? == "ran\n");
    Ok(())
}
