//! Docker's words: each line of a table has the exit code and the shapes of output that a user of Docker expects.
//! `testdata/docker-words/README.md` says how it is written.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use coffer_tests::{
    World,
    image::without_a_machine,
    process::{Finished, wait_for},
};

/// The words of a line, with single and double quotes as a shell has them.
fn words(line: &str) -> Result<Vec<String>> {
    let (mut all, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => all.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    ensure!(quote.is_none(), "a quote without an end: {line}");
    all.extend(word);
    Ok(all)
}

fn is_hex(line: &str, digits: usize) -> bool {
    line.len() == digits && line.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What is said has this shape.
fn has_shape(shape: &str, said: &str) -> Result<bool> {
    let lines: Vec<_> = said.lines().collect();
    Ok(match shape {
        "-" => said.is_empty(),
        "*" => true,
        "id" => lines.len() == 1 && is_hex(lines[0], 64),
        "json" => serde_json::from_str::<serde_json::Value>(said).is_ok(),
        "why" => lines.iter().any(|line| line.starts_with("coffer: ") || line.starts_with("error: ")),
        _ => match (shape.split_once('='), shape.strip_prefix('~')) {
            (Some(("", text)), _) => said == format!("{}\n", text.replace('_', " ")),
            (Some(("ids", count)), _) => {
                lines.len() == count.parse::<usize>()? && lines.iter().all(|line| is_hex(line, 12))
            }
            (Some(("lines", count)), _) => lines.len() == count.parse::<usize>()?,
            (_, Some(text)) => said.contains(&text.replace('_', " ")),
            _ => bail!("no such shape: {shape}"),
        },
    })
}

fn run(world: &World, image: &str, line: &str) -> Result<Finished> {
    let folder = world.folder.path().to_string_lossy().into_owned();
    let words = words(line)?.into_iter().map(|word| match word.as_str() {
        "IMAGE" => image.to_owned(),
        _ => word.replace("=IMAGE", &format!("={image}")).replace("FOLDER", &folder),
    });
    let words: Vec<String> = words.collect();
    world.coffer(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn each_line_of_the_table_answers_as_it_says() -> Result<()> {
    let Some((world, _registry, image)) = without_a_machine()? else { return Ok(()) };
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/docker-words/words.txt");
    fs::write(world.folder.path().join("env"), "# what is read\nA=from file\nB=not this\n")?;
    let (mut count, mut wrong) = (0, Vec::new());
    for line in fs::read_to_string(table)?.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let line = line.split(" # ").next().unwrap_or(line).trim_end();
        if let Some(until) = line.strip_prefix('!') {
            wait_for(Duration::from_secs(20), || run(&world, &image, until).is_ok_and(|said| said.status == 0))?;
            continue;
        }
        let next = |rest: &str| -> Result<(String, String)> {
            let rest = rest.trim_start();
            let end = rest.find(char::is_whitespace).with_context(|| format!("a cell is missing: {line}"))?;
            Ok((rest[..end].to_owned(), rest[end..].to_owned()))
        };
        let (code, rest) = next(line)?;
        let (stdout, rest) = next(&rest)?;
        let (stderr, rest) = next(&rest)?;
        let finished = run(&world, &image, rest.trim())?;
        let holds = finished.status == code.parse::<i32>()?
            && has_shape(&stdout, &finished.stdout)?
            && has_shape(&stderr, &finished.stderr)?;
        if !holds {
            wrong.push(format!("{line}\n{}", finished.describe()));
        }
        count += 1;
    }
    ensure!(wrong.is_empty(), "{} of {count} lines:\n{}", wrong.len(), wrong.join("\n"));
    ensure!(count >= 100, "{count} lines: were some lost?");
    Ok(())
}

fn state(world: &World, name: &str) -> Result<String> {
    let format = "{{.State.Status}} {{.State.ExitCode}} {{.State.SupervisorPid}}";
    Ok(world.coffer(&["inspect", "-f", format, name])?.ok()?.trim().to_owned())
}

/// A supervisor that is killed takes its box with it and leaves a record that says so, and a boot starts what is to run.
#[test]
fn what_a_boot_ended_is_resumed_unless_it_was_stopped() -> Result<()> {
    let Some((world, _registry, image)) = without_a_machine()? else { return Ok(()) };
    for (name, policy) in
        [("ever", "always"), ("until", "unless-stopped"), ("never", "no"), ("stopped", "unless-stopped")]
    {
        world.coffer(&["run", "-d", "--name", name, "--restart", policy, &image, "sleep", "600"])?.ok()?;
    }
    world.coffer(&["stop", "-t", "0", "stopped"])?.ok()?;
    for name in ["ever", "until", "never"] {
        let pid = state(&world, name)?.rsplit(' ').next().context("a pid")?.parse()?;
        let pid = rustix::process::Pid::from_raw(pid).context("a pid")?;
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
        wait_for(Duration::from_secs(10), || state(&world, name).is_ok_and(|found| found == "exited 137 0"))?;
    }
    let resumed = world.coffer(&["system", "resume"])?.ok()?;
    ensure!(resumed == "ever\nuntil\n", "{resumed}");
    for (name, word) in [("ever", "running"), ("until", "running"), ("never", "exited"), ("stopped", "exited")] {
        ensure!(state(&world, name)?.starts_with(word), "{name}: {}", state(&world, name)?);
    }
    ensure!(world.coffer(&["system", "resume"])?.ok()?.is_empty(), "what runs is left alone");
    Ok(())
}

/// Killed at whatever point of a box that ends and starts again all the time: its record is mended, and its lock free.
#[test]
fn a_supervisor_that_is_killed_between_runs_leaves_a_record_that_is_right() -> Result<()> {
    let Some((world, _registry, image)) = without_a_machine()? else { return Ok(()) };
    for turn in 0..6 {
        let name = format!("turn-{turn}");
        world.coffer(&["run", "-d", "--name", &name, "--restart", "always", &image, "sh", "-c", "exit 4"])?.ok()?;
        let wanted = if turn % 2 == 0 { "restarting" } else { "running" };
        wait_for(Duration::from_secs(20), || state(&world, &name).is_ok_and(|found| found.starts_with(wanted)))?;
        let pid = state(&world, &name)?.rsplit(' ').next().context("a pid")?.parse()?;
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
        }
        wait_for(Duration::from_secs(10), || state(&world, &name).is_ok_and(|found| found.starts_with("exited")))?;
        let found = state(&world, &name)?;
        ensure!(found == "exited 4 0" || found == "exited 137 0", "{found}");
        world.coffer(&["rm", &name])?.ok()?;
    }
    Ok(())
}
