//! Programs whose parents went: none stays as a zombie, of the workload's or of what is executed beside it.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use coffer_tests::{image::without_a_machine, process::wait_for};

/// Fields of a process that is there.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Zombies below a process of this host's.
fn zombies(ancestor: &str) -> Result<usize> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
        let (Some(pid), Some(parent), Some(state)) =
            (field(&status, "Pid"), field(&status, "PPid"), field(&status, "State"))
        else {
            continue;
        };
        all.push((pid.to_owned(), parent.to_owned(), state.starts_with('Z')));
    }
    let (mut family, mut count) = (vec![ancestor.to_owned()], 0);
    while let Some(next) = family.pop() {
        for (pid, _, dead) in all.iter().filter(|(_, parent, _)| *parent == next) {
            count += usize::from(*dead);
            family.push(pid.clone());
        }
    }
    Ok(count)
}

#[test]
fn a_thousand_orphans_leave_nothing_behind() -> Result<()> {
    let Some((world, _registry, image)) = without_a_machine()? else { return Ok(()) };
    // A program that waits for none of them, as most do, and says when the last was born.
    let orphans = "count=0; while [ $count -lt 1000 ]; do (sleep 0.2 &); count=$((count + 1)); done; echo born";
    let script = format!("sh -c '{orphans}'; while true; do sleep 1; done");
    world.coffer(&["run", "-d", "--name", "box", &image, "sh", "-c", &script])?.ok()?;
    wait_for(Duration::from_mins(1), || world.coffer(&["logs", "box"]).is_ok_and(|it| it.stdout.contains("born")))?;
    // And beside it: their parent is gone with the call, and the call with its parent.
    for _ in 0..20 {
        world.coffer(&["exec", "box", "sh", "-c", "for a in 1 2 3 4 5; do (sleep 0.2 &); done"])?.ok()?;
    }
    let list: serde_json::Value = serde_json::from_str(&world.coffer(&["inspect", "box"])?.ok()?)?;
    let holder = list[0]["State"]["Pid"].to_string();
    ensure!(fs::exists(format!("/proc/{holder}"))?, "it runs");
    let mut left = 0;
    wait_for(Duration::from_secs(20), || {
        left = zombies(&holder).unwrap_or(usize::MAX);
        left == 0
    })
    .with_context(|| format!("{left} zombies"))?;
    ensure!(world.coffer(&["exec", "box", "echo", "it goes on"])?.ok()? == "it goes on\n");
    Ok(())
}
