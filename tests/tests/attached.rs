//! A box's own program at a terminal or a pipe of ours: `run -it`, `start -ai`, `attach`, and the signals that it gets. In a box
//! without a machine, which needs root of this one, and says so where it is not.

use std::{
    io::{Read as _, Write as _},
    process::{Child, Stdio},
};

use anyhow::{Context, Result, ensure};
use coffer_tests::{
    image::without_a_machine,
    process::{run, wait_for},
};
use rustix::{process::Signal, termios::tcsetwinsize};
use serde_json::Value;

use crate::terminals::{LIMIT, Session, ended, processes, send, size};

#[test]
fn a_boxs_own_program_has_our_terminal_is_left_and_found_again() -> Result<()> {
    let Some((world, _registry, image)) = without_a_machine()? else { return Ok(()) };
    let mut session = Session::start(&world, &["run", "-it", "--name", "shell", "-e", "PS1=now> ", &image, "sh"])?;
    wait_for(LIMIT, || session.is_raw().unwrap_or(false)).context("the terminal is not raw")?;
    session.shows("now> ")?;
    session.types(b"busybox tty; busybox stty size; echo $$ $TERM $((6 * 7))\r")?;
    session.shows("/dev/pts/0\r\n24 80\r\n1 xterm 42\r\n")?;
    tcsetwinsize(&session.controller, size(50, 132))?;
    session.types(b"while [ \"$(busybox stty size)\" != '50 132' ]; do sleep 0.05; done; echo wi''de\r")?;
    session.shows("wide")?;
    session.types(b"sleep 4301\r")?;
    wait_for(LIMIT, || !processes("sleep 4301").is_empty())?;
    session.types(&[3])?; // ^C is the program's
    session.types(b"echo int''errupted $?\r")?;
    session.shows("interrupted 130")?;
    session.types(&[16, 17])?;
    session.shows("read escape sequence")?;
    session.ends(0)?;

    // What was written before is in its log, and not shown again; what was set is still there.
    let mut session = Session::start(&world, &["attach", "--detach-keys", "ctrl-a,d", "shell"])?;
    wait_for(LIMIT, || session.is_raw().unwrap_or(false))?;
    session.types(b"while [ \"$(busybox stty size)\" != '24 80' ]; do sleep 0.05; done; echo sma''ller\r")?;
    session.shows("smaller")?;
    ensure!(!session.seen.contains("wide"), "{:?}", session.seen);
    session.types(&[1, b'd'])?;
    session.shows("read escape sequence")?;
    session.ends(0)?;
    let log = world.coffer(&["logs", "shell"])?.ok()?;
    ensure!(["1 xterm 42", "wide", "interrupted 130", "smaller"].iter().all(|words| log.contains(words)), "{log:?}");
    let piped = world.coffer(&["attach", "shell"])?;
    ensure!(piped.status != 0 && piped.stderr.contains("the input device is not a TTY"), "{}", piped.describe());

    let mut session = Session::start(&world, &["attach", "shell"])?;
    wait_for(LIMIT, || session.is_raw().unwrap_or(false))?;
    session.types(b"exit 9\r")?;
    session.ends(9)?;
    let mut session = Session::start(&world, &["start", "-ai", "shell"])?;
    session.shows("now> ")?;
    // It ends beneath us.
    world.coffer(&["rm", "-f", "shell"])?.ok()?;
    session.ends(137)
}

#[test]
fn our_input_and_its_end_are_the_programs() -> Result<()> {
    let Some((world, _registry, image)) = without_a_machine()? else { return Ok(()) };
    let piped = |words: &[&str], input: &[u8]| run(&mut world.command(words), input);
    let large = b"all\0of it\n".repeat(300_000);
    let count = piped(&["run", "--rm", "-i", &image, "sh", "-c", "busybox wc -c; echo err >&2; exit 4"], &large)?;
    ensure!((count.status, count.stdout.trim()) == (4, "3000000"), "{}", count.describe());
    ensure!(count.stderr == "err\n", "{}", count.describe());
    ensure!(piped(&["run", "--rm", &image, "cat"], b"unheard")?.ok()?.is_empty(), "without -i it is at its end");
    let refused = piped(&["run", "--rm", "-it", &image, "sh"], b"")?;
    ensure!(
        refused.status == 125 && refused.stderr.contains("the input device is not a TTY"),
        "{}",
        refused.describe()
    );
    let shown = piped(&["run", "--rm", "-t", &image, "sh", "-c", "busybox tty; echo err >&2; exit 3"], b"")?;
    ensure!((shown.status, shown.stdout.as_str()) == (3, "/dev/pts/0\r\nerr\r\n"), "{}", shown.describe());

    // Left open from the beginning; whoever breaks off ends nothing, and an end of input is one.
    world.coffer(&["run", "-di", "--name", "open", &image, "sh", "-c", "cat; echo over; exit 6"])?.ok()?;
    let mut first = world.command(&["attach", "open"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    first.stdin.as_mut().context("piped")?.write_all(b"one\n")?;
    reads(&mut first, "one\n")?;
    first.kill()?;
    first.wait()?;
    let second = piped(&["attach", "open"], b"two\n")?;
    ensure!((second.status, second.stdout.as_str()) == (6, "two\nover\n"), "{}", second.describe());
    ensure!(world.coffer(&["logs", "open"])?.ok()? == "one\ntwo\nover\n");
    let gone = world.coffer(&["attach", "open"])?;
    ensure!(gone.status != 0 && gone.stderr.contains("is not running"), "{}", gone.describe());
    let again = piped(&["--json", "start", "-ai", "open"], b"three\n")?;
    let told: Value = serde_json::from_str(&again.stdout)?;
    ensure!(again.status == 6 && told["exit_code"] == 6, "{}", again.describe());

    // What stands in the spec is measured, and what does not is as it was.
    let spec = |flags: &[&str]| world.coffer(&[&["spec"], flags, &[image.as_str(), "true"]].concat())?.ok();
    let (plain, both) = (spec(&[])?, spec(&["-it"])?);
    ensure!(!plain.contains("tty") && !plain.contains("stdin_open"), "{plain}");
    ensure!(both.contains("tty = true") && both.contains("stdin_open = true"), "{both}");
    Ok(())
}

/// Until it has written this.
fn reads(child: &mut Child, words: &str) -> Result<()> {
    let mut read = vec![0; words.len()];
    child.stdout.as_mut().context("piped")?.read_exact(&mut read)?;
    ensure!(read == words.as_bytes(), "{:?}", String::from_utf8_lossy(&read));
    Ok(())
}

fn stderr(child: &mut Child) -> Result<String> {
    let mut said = String::new();
    child.stderr.take().context("piped")?.read_to_string(&mut said)?;
    Ok(said)
}

#[test]
fn signals_to_run_reach_the_program_and_whoever_is_told_to_end_ends() -> Result<()> {
    let Some((world, _registry, image)) = without_a_machine()? else { return Ok(()) };
    let started = |flags: &[&str], script: &str| -> Result<Child> {
        let words = [&["run", "--rm"], flags, &[image.as_str(), "sh", "-c", script]].concat();
        let mut command = world.command(&words);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        reads(&mut child, "up\n")?;
        Ok(child)
    };
    let script = "trap 'exit 41' HUP; trap 'exit 42' INT; trap 'exit 43' QUIT; trap 'exit 44' USR1; trap 'exit 45' USR2
        trap 'exit 46' TERM; trap 'exit 47' WINCH; echo up; while :; do sleep 0.05; done";
    for (signal, status) in [
        (Signal::HUP, 41),
        (Signal::INT, 42),
        (Signal::QUIT, 43),
        (Signal::USR1, 44),
        (Signal::USR2, 45),
        (Signal::TERM, 46),
        (Signal::WINCH, 47),
    ] {
        let mut child = started(&[], script)?;
        send(child.id(), signal)?;
        let status_now = ended(&mut child)?;
        ensure!(status_now == status, "{signal:?}: {status_now}: {}", stderr(&mut child)?);
    }
    let mut child = started(&["-i"], script)?;
    send(child.id(), Signal::USR2)?;
    ensure!(ended(&mut child)? == 45, "with an input, too");

    // A second ^C ends a box whose program hears none, and the first says what it waits for.
    let deaf = "trap '' TERM INT; echo up; while :; do sleep 0.05; done; : deaf run";
    let mut child = started(&[], deaf)?;
    wait_for(LIMIT, || {
        let _ = send(child.id(), Signal::INT);
        child.try_wait().is_ok_and(|ended| ended.is_some())
    })
    .context("a second ^C does not wait")?;
    ensure!(ended(&mut child)? == 137);
    let mut child = started(&[], deaf)?;
    send(child.id(), Signal::TERM)?; // it is given its time
    ensure!(ended(&mut child)? == 137 && stderr(&mut child)?.contains("did not end on SIGTERM; it is killed"));
    wait_for(LIMIT, || processes(": deaf run").is_empty()).context("it runs on")?;
    ensure!(world.coffer(&["ps", "-aq"])?.ok()?.is_empty(), "--rm left something");

    // Kept from it, the first ends us alone.
    let ticks = script.replace("do sleep", "do echo tick; sleep");
    let mut child = started(&["--name", "alone", "--sig-proxy=false"], &ticks)?;
    send(child.id(), Signal::INT)?;
    ensure!(ended(&mut child)? == 130);
    // Whoever sees what it says is attached, and no signal ends the command before it can be handed on.
    let attached = |flags: &[&str]| -> Result<Child> {
        let mut command = world.command(&[&["attach"], flags, &["alone"]].concat());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let (mut said, mut byte) = (Vec::new(), [0]);
        while !said.ends_with(b"tick\n") {
            child.stdout.as_mut().context("piped")?.read_exact(&mut byte)?;
            said.push(byte[0]);
        }
        Ok(child)
    };
    let (mut looks, mut hears) = (attached(&["--sig-proxy=false"])?, attached(&[])?);
    wait_for(LIMIT, || {
        let _ = send(looks.id(), Signal::TERM);
        looks.try_wait().is_ok_and(|ended| ended.is_some())
    })?;
    wait_for(LIMIT, || {
        let _ = send(hears.id(), Signal::USR1);
        hears.try_wait().is_ok_and(|ended| ended.is_some())
    })?;
    ensure!(world.coffer(&["ps", "-aq"])?.ok()?.is_empty(), "the program had USR1 and its box is gone");
    Ok(())
}

#[test]
fn to_attach_is_a_right_of_its_own() -> Result<()> {
    let Some((world, _registry, image)) = without_a_machine()? else { return Ok(()) };
    let piped = |words: &[&str], input: &[u8]| run(&mut world.command(words), input);
    let refused = piped(&["run", "-i", "--name", "shut", "--tee-simulate", &image, "cat"], b"x")?;
    ensure!(refused.status == 125 && refused.stderr.contains("--allow-simulated"), "{}", refused.describe());
    world.coffer(&["rm", "shut"])?.ok()?;
    ensure!(piped(&["run", "--rm", "-i", "--tee-simulate", &image, "cat"], b"")?.status == 125);
    ensure!(world.coffer(&["ps", "-aq"])?.ok()?.is_empty(), "--rm left something");
    let run_i = ["run", "--rm", "-i", "--tee-simulate", "--allow-simulated", &image, "sh", "-c", "cat; exit 5"];
    let heard = piped(&run_i, b"over RA-TLS\n")?;
    ensure!((heard.status, heard.stdout.as_str()) == (5, "over RA-TLS\n"), "{}", heard.describe());

    world.coffer(&["owner", "init"]).ok();
    let owner = world.home().join("owner/cert.pem");
    let owner = owner.to_str().context("plain names")?;
    for (may, name, works) in [("attach", "a", true), ("exec", "b", true), ("logs,cp,top", "c", false)] {
        let listed = format!("{owner}={may}");
        let run_d = ["run", "-di", "--name", name, "--tee-simulate", "--owner", &listed, &image, "cat"];
        world.coffer(&run_d)?.ok()?;
        let unbelieved = piped(&["attach", name], b"x")?;
        ensure!(unbelieved.status != 0 && unbelieved.stdout.is_empty(), "{}", unbelieved.describe());
        let attached = piped(&["attach", "--allow-simulated", name], b"typed")?;
        ensure!((attached.status == 0 && attached.stdout == "typed") == works, "{may}: {}", attached.describe());
        ensure!(works || attached.stderr.contains("attach"), "{}", attached.describe());
    }
    let may = ["run", "-di", "--name", "d", "--tee-simulate", "--host-may", "stop,attach", &image, "cat"];
    world.coffer(&may)?.ok()?;
    ensure!(piped(&["attach", "d"], b"by the host")?.ok()? == "by the host");
    let no = world.coffer(&["exec", "d", "id"])?;
    ensure!(no.status != 0, "to attach is not to exec");
    Ok(())
}
