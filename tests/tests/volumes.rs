//! Volumes of boxes with a machine: what is flushed is there after the machine was cut off, what may not be written is not, and one
//! writer has a volume alone. Without a machine: the table of Docker's words.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use coffer_tests::{
    World,
    image::pulled,
    monitors::{Monitor, on_each_machine},
    process::{Finished, run, wait_for},
};

/// A tool of e2fsprogs, which looks into a disk that no box has.
fn tool(name: &str, arguments: &[&str]) -> Result<Finished> {
    let folder = ["/usr/sbin", "/sbin"].into_iter().find(|folder| Path::new(folder).join(name).exists());
    run(Command::new(Path::new(folder.context("no e2fsprogs; run `make setup`")?).join(name)).args(arguments), b"")
}

#[test]
fn a_volume_outlives_its_boxes_and_a_machine_that_was_cut_off() -> Result<()> {
    on_each_machine(outlives)
}

fn outlives(monitor: Monitor) -> Result<()> {
    let world = World::on(monitor)?;
    let (_registry, image) = pulled(&world)?;
    let disk = |name: &str| world.home().join("volumes").join(name).join("disk.img").to_string_lossy().into_owned();
    for (name, size) in [("db", "size=64m"), ("cold", "size=16m")] {
        world.coffer(&["volume", "create", "--opt", size, name])?.ok()?;
    }

    // A fresh one begins with what the image has; what is written and flushed stays, whatever becomes of the machine.
    let script = "cat /etc/passwd && echo kept >/etc/y && sync && echo written; exec sleep 600";
    world.coffer(&["run", "-d", "--name", "one", "-v", "db:/etc", &image, "sh", "-c", script])?.ok()?;
    wait_for(Duration::from_mins(2), || {
        world.coffer(&["logs", "one"]).is_ok_and(|said| said.stdout.contains("written"))
    })?;
    let said = world.coffer(&["logs", "one"])?.ok()?;
    ensure!(said.starts_with("root:x:0:0:"), "{said}");
    let refused = world.coffer(&["run", "--rm", "-v", "db:/data", &image, "true"])?;
    ensure!(refused.status == 125 && refused.stderr.contains("volume db is in use"), "{}", refused.describe());
    let refused = world.coffer(&["run", "--rm", "-v", "db:/data:ro", &image, "true"])?;
    ensure!(refused.status == 125 && refused.stderr.contains("volume db is in use"), "{}", refused.describe());
    let pid = world.coffer(&["inspect", "-f", "{{.State.SupervisorPid}}", "one"])?.ok()?;
    let pid = rustix::process::Pid::from_raw(pid.trim().parse()?).context("a pid")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    wait_for(Duration::from_secs(20), || {
        world.coffer(&["inspect", "-f", "{{.State.Status}}", "one"]).is_ok_and(|said| said.stdout == "exited\n")
    })?;
    world.coffer(&["rm", "one"])?.ok()?;

    // One that is only read: its disk refuses writes, whatever the guest thinks of it.
    let script = "cat /data/y /cold/hosts && cat /sys/block/vd[a-z]/ro | grep -c 1 && ! touch /cold/x && \
        touch /anonymous/x && echo done";
    let volumes = ["-v", "db:/data", "-v", "cold:/cold:ro", "-v", "/anonymous"];
    let words = [&["create", "--name", "two"][..], &volumes, &[image.as_str(), "sh", "-c", script]].concat();
    world.coffer(&words)?.ok()?;
    let (cold, hosts) = (disk("cold"), world.folder.path().join("hosts"));
    std::fs::write(&hosts, "from before\n")?;
    for command in ["mkdir data".to_owned(), format!("write {} data/hosts", hosts.display())] {
        tool("debugfs", &["-w", "-R", &command, &cold])?.ok()?;
    }
    let before = std::fs::read(&cold)?;
    let finished = world.coffer(&["start", "-a", "two"])?;
    ensure!(finished.status == 0 && finished.stderr.contains("Read-only"), "{}", finished.describe());
    // Three disks that are only read: root, spec and the cold one; two that are written.
    ensure!(finished.stdout == "kept\nfrom before\n3\ndone\n", "{}", finished.describe());
    ensure!(before == std::fs::read(&cold)?, "a disk that is only read was changed");
    let clean = tool("e2fsck", &["-n", &disk("db")])?;
    ensure!(clean.status == 0 && clean.stdout.contains("clean"), "left in good order: {}", clean.describe());

    let in_use = world.coffer(&["volume", "rm", "db"])?;
    ensure!(in_use.status == 3 && in_use.stderr.contains("db is a volume of two"), "{}", in_use.describe());
    ensure!(world.coffer(&["volume", "ls", "-q"])?.ok()?.lines().count() == 3, "and one that nobody named");
    world.coffer(&["rm", "-v", "two"])?.ok()?;
    ensure!(world.coffer(&["volume", "ls", "-q"])?.ok()? == "cold\ndb\n", "named ones stay");
    let own = "db:/data:seal=measurement-and-chip,rollback=unprotected";
    let tee = world.coffer(&["create", "--tee-simulate", "-v", own, &image, "true"])?;
    ensure!(tee.status == 125 && tee.stderr.contains("volume db is a disk"), "{}", tee.describe());
    world.coffer(&["volume", "rm", "cold", "db"])?.ok()?;
    Ok(())
}
