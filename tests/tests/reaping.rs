//! Programs whose parents went: none stays as a zombie, of the workload's or of what is executed beside it.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use coffer_tests::{
    World,
    image::without_a_machine,
    process::{says, wait_for},
};

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
    // A shell waits for them all; `sleep`, as most programs, for none, and is not asked to where there is an init.
    for (name, init, then) in
        [("waits", &[][..], "while true; do sleep 1; done"), ("sleeps", &["--init"], "exec sleep 600")]
    {
        leave_nothing_behind(&world, &image, (name, init, then)).context(name)?;
    }
    Ok(())
}

fn leave_nothing_behind(world: &World, image: &str, (name, init, then): (&str, &[&str], &str)) -> Result<()> {
    let orphans = "count=0; while [ $count -lt 1000 ]; do (sleep 0.2 &); count=$((count + 1)); done; echo born";
    let script = format!("sh -c '{orphans}'; {then}");
    world.coffer(&[&["run", "-d", "--name", name], init, &[image, "sh", "-c", &script]].concat())?.ok()?;
    wait_for(Duration::from_mins(1), || world.coffer(&["logs", name]).is_ok_and(|it| it.stdout.contains("born")))?;
    // And beside it: their parent is gone with the call, and the call with its parent.
    for _ in 0..20 {
        world.coffer(&["exec", name, "sh", "-c", "for a in 1 2 3 4 5; do (sleep 0.2 &); done"])?.ok()?;
    }
    let list: serde_json::Value = serde_json::from_str(&world.coffer(&["inspect", name])?.ok()?)?;
    let holder = list[0]["State"]["Pid"].to_string();
    ensure!(fs::exists(format!("/proc/{holder}"))?, "it runs");
    let mut left = 0;
    wait_for(Duration::from_secs(20), || {
        left = zombies(&holder).unwrap_or(usize::MAX);
        left == 0
    })
    .with_context(|| format!("{left} zombies"))?;
    ensure!(list[0]["HostConfig"]["Init"] == !init.is_empty(), "{list}");
    ensure!(world.coffer(&["exec", name, "echo", "it goes on"])?.ok()? == "it goes on\n");
    world.coffer(&["rm", "-f", name])?.ok()?;
    Ok(())
}

#[test]
fn an_init_hands_signals_on_and_ends_as_its_program_does() -> Result<()> {
    let Some((world, _registry, image)) = without_a_machine()? else { return Ok(()) };
    let run = |words: &[&str]| world.coffer(&[&["run", "--rm", "--init", &image], words].concat());
    // It is there, and the program behind it has its streams, its status and its signals.
    says(&run(&["sh", "-c", "echo $$; exit 7"])?, 7, &["2\n"])?;
    says(&run(&["nosuch"])?, 127, &["nosuch"])?;
    says(&run(&["sh", "-c", "kill -9 $$"])?, 137, &[])?;
    let script = "trap 'echo told; exit 3' TERM; trap 'echo once' USR1; echo up; while true; do sleep 0.1; done";
    world.coffer(&["run", "-d", "--name", "box", "--init", &image, "sh", "-c", script])?.ok()?;
    let said = |word: &str| {
        wait_for(Duration::from_mins(1), || world.coffer(&["logs", "box"]).is_ok_and(|it| it.stdout.contains(word)))
    };
    said("up")?;
    world.coffer(&["kill", "-s", "USR1", "box"])?.ok()?;
    said("once")?;
    world.coffer(&["stop", "box"])?.ok()?;
    said("told")?;
    says(&world.coffer(&["wait", "box"])?, 0, &["3\n"])?;
    world.coffer(&["rm", "box"])?.ok()?;
    // Without a handler it ends at once, where the first program of a box would not.
    world.coffer(&["run", "-d", "--name", "box", "--init", &image, "sleep", "600"])?.ok()?;
    world.coffer(&["stop", "-t", "60", "box"])?.ok()?;
    says(&world.coffer(&["wait", "box"])?, 0, &["143\n"])?;
    // With a terminal, which is the program's and not the init's.
    says(&run(&["sh", "-c", "[ -t 0 ] || echo none"])?, 0, &["none"])?;
    Ok(())
}
