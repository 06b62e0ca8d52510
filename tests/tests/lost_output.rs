//! Standard output that is full or closed: whoever streams to it says so once, and ends with a code that says so too.

use std::{
    fs::File,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use coffer_tests::{
    World,
    image::without_a_machine,
    process::{Finished, run, wait_for},
};

/// The command with its standard output full, then with none.
fn lost(world: &World, words: &[&str]) -> [Command; 2] {
    let command = world.command(words);
    ["exec \"$0\" \"$@\" >/dev/full", "exec \"$0\" \"$@\" >&-"].map(|script| {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).arg(command.get_program()).args(command.get_args());
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell
    })
}

const ENDLESS: &str = "while :; do echo y; done";

fn says_once(done: &Finished, code: i32) -> Result<()> {
    let said = done.stderr.matches("standard output").count() == 1;
    let alone = done.stderr.lines().filter(|line| !line.starts_with("hint: ")).count() == 1;
    ensure!(done.status == code && said && alone, "expected one line and {code}: {}", done.describe());
    Ok(())
}

#[test]
fn whatever_streams_says_once_that_its_output_is_lost() -> Result<()> {
    let Some((world, _registry, image)) = without_a_machine()? else { return Ok(()) };
    world.coffer(&["run", "-d", "--name", "box", &image, "sh", "-c", "echo up; exec sleep 600"])?.ok()?;
    wait_for(Duration::from_secs(20), || world.coffer(&["logs", "box"]).is_ok_and(|said| said.stdout == "up\n"))?;
    for (words, code) in [
        (&["run", "--rm", &image, "echo", "hello"][..], 125),
        (&["exec", "box", "echo", "hello"], 125),
        (&["exec", "box", "sh", "-c", ENDLESS], 125),
        (&["--json", "exec", "box", "echo", "hello"], 125),
        (&["logs", "box"], 3),
        (&["logs", "-f", "box"], 3),
        (&["cp", "box:/etc/passwd", "-"], 3),
        (&["save", &image], 3),
        (&["stats"], 3),
        (&["stats", "--no-stream"], 3),
        (&["top", "box"], 3),
        (&["ps"], 3),
        (&["inspect", "box"], 3),
        (&["images"], 3),
    ] {
        for mut command in lost(&world, words) {
            says_once(&run(&mut command, b"")?, code)?;
        }
    }
    for mut command in lost(&world, &["events"]) {
        let errors = world.folder.path().join("errors");
        let mut events = command.stdin(Stdio::null()).stderr(File::create(&errors)?).spawn()?;
        // It may not listen yet when the first one is made.
        let ended = wait_for(Duration::from_mins(1), || {
            let _ = world.coffer(&["create", &image, "true"]);
            events.try_wait().is_ok_and(|ended| ended.is_some())
        });
        if ended.is_err() {
            events.kill()?;
        }
        let status = events.wait()?.code().unwrap_or(-1);
        ended?;
        let done = Finished {
            status,
            stdout: String::new(),
            stderr: std::fs::read_to_string(&errors)?,
            command: format!("{command:?}"),
        };
        says_once(&done, 3)?;
    }
    world.coffer(&["rm", "-f", "box"])?.ok()?;
    Ok(())
}

#[test]
fn whoever_reads_too_slowly_is_told_what_of_the_output_is_missing() -> Result<()> {
    let Some((world, _registry, image)) = without_a_machine()? else { return Ok(()) };
    let count = 1_500_000;
    let written: usize = (1..=count).map(|number: u32| number.to_string().len() + 1).sum();
    let mut command = world.command(&["run", "--rm", &image, "busybox", "seq", &count.to_string()]);
    let mut running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // More is written meanwhile than anything on its way holds.
    std::thread::sleep(Duration::from_secs(3));
    let done = running.stdout.take().context("a pipe")?;
    let came = std::io::copy(&mut std::io::BufReader::new(done), &mut std::io::sink())?;
    let said = String::from_utf8(running.wait_with_output()?.stderr)?;
    let missing =
        said.lines().filter_map(|line| line.strip_prefix("coffer: ")?.strip_suffix(WORDS)?.parse::<u64>().ok());
    let missing: u64 = missing.sum();
    ensure!(missing > 0 && came + missing == written as u64, "{came} of {written} came: {said}");
    Ok(())
}

const WORDS: &str = " bytes of the output are not shown: they came faster than they were read";
