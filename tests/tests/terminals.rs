//! `coffer exec` as one uses it at a terminal, and as scripts do: keys, sizes, signals, pipes. In a box without a machine, which
//! needs root of this one, and says so where it is not.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use coffer_tests::{
    World,
    image::without_a_machine,
    process::{run, wait_for},
    services::Registry,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags},
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize},
};

pub const LIMIT: Duration = Duration::from_secs(20);

/// A world with a box that waits; nothing where this host has none without a machine.
fn world() -> Result<Option<(World, Registry)>> {
    Ok(world_with_image()?.map(|(world, registry, _)| (world, registry)))
}

fn world_with_image() -> Result<Option<(World, Registry, String)>> {
    let Some((world, registry, image)) = without_a_machine()? else { return Ok(None) };
    world.coffer(&["run", "-d", "--name", "box", &image, "sleep", "4200"])?.ok()?;
    Ok(Some((world, registry, image)))
}

/// A terminal of ours, with a command at it.
pub struct Session {
    pub controller: fs::File,
    terminal: OwnedFd,
    before: Termios,
    child: Child,
    pub seen: String,
}

pub fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Session {
    pub fn start(world: &World, arguments: &[&str]) -> Result<Self> {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&controller)?;
        unlockpt(&controller)?;
        let name = ptsname(&controller, Vec::new())?;
        let terminal = rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        tcsetwinsize(&controller, size(24, 80))?;
        let before = tcgetattr(&terminal)?;
        let coffer = world.command(arguments);
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(coffer.get_program()).args(coffer.get_args());
        command.envs(coffer.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let stream = || terminal.try_clone().map(Stdio::from);
        let child = command.stdin(stream()?).stdout(stream()?).stderr(stream()?).spawn()?;
        Ok(Self { controller: controller.into(), terminal, before, child, seen: String::new() })
    }

    pub fn types(&mut self, keys: &[u8]) -> Result<()> {
        Ok(self.controller.write_all(keys)?)
    }

    /// Until it has shown this.
    pub fn shows(&mut self, words: &str) -> Result<()> {
        let shown = wait_for(LIMIT, || {
            let mut polled = [PollFd::new(&self.controller, PollFlags::IN)];
            let patience = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
            let mut buffer = [0; 4096];
            if poll(&mut polled, Some(&patience)).is_ok_and(|ready| ready > 0)
                && let Ok(count) = self.controller.read(&mut buffer)
            {
                self.seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
            self.seen.contains(words)
        });
        shown.with_context(|| format!("no {words:?} in {:?}", self.seen))
    }

    pub fn is_raw(&self) -> Result<bool> {
        Ok(!tcgetattr(&self.terminal)?.local_modes.contains(LocalModes::ICANON))
    }

    /// Its end: the exit status, with the terminal as it was found.
    pub fn ends(&mut self, status: i32) -> Result<()> {
        let ended = ended(&mut self.child).with_context(|| format!("{:?}", self.seen))?;
        let now = tcgetattr(&self.terminal)?;
        ensure!(ended == status, "{ended}: {:?}", self.seen);
        let modes = |it: &Termios| (it.input_modes, it.output_modes, it.control_modes, it.local_modes);
        ensure!(modes(&now) == modes(&self.before), "the terminal is not as it was");
        Ok(())
    }
}

/// The process of ours with these arguments, wherever it runs.
pub fn processes(words: &str) -> Vec<i32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_it = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").trim().ends_with(words)
    };
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_it).collect()
}

/// Its exit status, once it has ended.
pub fn ended(child: &mut Child) -> Result<i32> {
    let mut ended = None;
    wait_for(LIMIT, || {
        ended = child.try_wait().ok().flatten();
        ended.is_some()
    })
    .context("it goes on")?;
    ended.and_then(|ended| ended.code()).context("a signal ended it")
}

pub fn send(pid: u32, signal: Signal) -> Result<()> {
    Ok(kill_process(Pid::from_raw(pid.cast_signed()).context("a pid")?, signal)?)
}

#[test]
fn a_program_has_our_terminal_and_gives_it_back() -> Result<()> {
    let Some((world, _registry)) = world()? else { return Ok(()) };
    let mut session = Session::start(&world, &["exec", "-it", "box", "sh"])?;
    wait_for(LIMIT, || session.is_raw().unwrap_or(false)).context("the terminal is not raw")?;
    session.types(b"busybox tty; busybox stty size; echo $TERM $((6 * 7))\r")?;
    session.shows("/dev/pts/0\r\n24 80\r\nxterm 42\r\n")?;
    tcsetwinsize(&session.controller, size(50, 132))?;
    // The size is on its way beside what is typed.
    session.types(b"while [ \"$(busybox stty size)\" != '50 132' ]; do sleep 0.05; done; echo wi''de\r")?;
    session.shows("wide")?;
    session.types(b"sleep 4201\r")?;
    wait_for(LIMIT, || !processes("sleep 4201").is_empty())?;
    session.types(&[3])?; // ^C is the program's
    session.types(b"echo int''errupted $?\r")?;
    session.shows("interrupted 130")?;
    session.types(b"exit 9\r")?;
    session.ends(9)?;

    // Left to itself, it goes on, also when it writes.
    let mut session = Session::start(&world, &["exec", "-it", "--detach-keys", "ctrl-a,d", "box", "sh"])?;
    session.types(b"echo be''gun; while sleep 0.1; do busybox dd if=/dev/zero bs=4k count=9; done; sleep 4202\r")?;
    session.shows("begun")?;
    session.types(&[1])?;
    session.types(b"d")?;
    session.shows("read escape sequence")?;
    session.ends(0)?;
    let left = world.coffer(&["exec", "box", "ps", "-o", "args"])?.ok()?;
    ensure!(left.lines().filter(|line| line.trim() == "sh").count() == 1, "{left}");

    // A failure gives the terminal back too.
    let mut session = Session::start(&world, &["exec", "-it", "box", "nosuch"])?;
    session.shows("nosuch")?;
    session.ends(127)?;

    // The box ends beneath it.
    let mut session = Session::start(&world, &["exec", "-it", "box", "sh"])?;
    session.types(b"echo he''re\r")?;
    session.shows("here")?;
    world.coffer(&["rm", "-f", "box"])?.ok()?;
    session.ends(125)
}

#[test]
fn signals_reach_the_program_as_they_are_and_we_end_when_told_to() -> Result<()> {
    let Some((world, _registry)) = world()? else { return Ok(()) };
    let script = "trap 'exit 41' HUP; trap 'exit 42' INT; trap 'exit 43' QUIT; trap 'exit 44' USR1; trap 'exit 45' USR2
        trap 'exit 46' TERM; trap 'exit 47' ALRM; echo up; while :; do sleep 0.05; done";
    let started = |script: &str| -> Result<Child> {
        let mut command = world.command(&["exec", "box", "sh", "-c", script]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut up = [0; 3];
        child.stdout.as_mut().context("it was piped")?.read_exact(&mut up)?;
        ensure!(&up == b"up\n");
        Ok(child)
    };
    for (signal, status) in [
        (Signal::HUP, 41),
        (Signal::INT, 42),
        (Signal::QUIT, 43),
        (Signal::USR1, 44),
        (Signal::USR2, 45),
        (Signal::TERM, 46),
        (Signal::ALARM, 47),
    ] {
        let mut child = started(script)?;
        send(child.id(), signal)?;
        ensure!(ended(&mut child)? == status, "{signal:?}");
    }
    let deaf = "trap '' TERM INT; echo up; while :; do sleep 0.05; done; : deaf";
    let mut child = started(deaf)?;
    send(child.id(), Signal::TERM)?; // it is given its time
    let status = ended(&mut child)?;
    let mut said = String::new();
    child.stderr.take().context("it was piped")?.read_to_string(&mut said)?;
    ensure!(status == 143 && said.contains("did not end on SIGTERM"), "{status}: {said}");
    let mut child = started(deaf)?;
    wait_for(LIMIT, || {
        let _ = send(child.id(), Signal::TERM);
        child.try_wait().is_ok_and(|ended| ended.is_some_and(|ended| ended.code() == Some(143)))
    })
    .context("a second SIGTERM does not wait")?;
    wait_for(LIMIT, || processes(": deaf").is_empty()).context("it runs on in the box")?;
    Ok(())
}

#[test]
fn a_signal_is_heard_at_every_moment_of_a_run_and_leaves_nothing() -> Result<()> {
    let Some((world, _registry, image)) = world_with_image()? else { return Ok(()) };
    let script = "trap 'exit 3' TERM; i=0; while [ $i -lt 600 ]; do sleep 0.1; i=$((i + 1)); done; exit 9";
    for round in 0..30 {
        let input: &[&str] = if round % 2 == 0 { &[] } else { &["-i"] };
        let words = [&["run", "--rm"], input, &[&image, "sh", "-c", script]].concat();
        let mut command = world.command(&words);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        std::thread::sleep(Duration::from_millis(5 * round));
        send(child.id(), Signal::TERM)?;
        let status = {
            let mut ended = None;
            wait_for(LIMIT, || {
                ended = child.try_wait().ok().flatten();
                ended.is_some()
            })
            .with_context(|| format!("lost, {round}"))?;
            ended.context("ended")?
        };
        // Before there was a box, before it ran, before its handler, and behind that.
        let is_one = matches!(status.code(), Some(143 | 125 | 137 | 3)) || status.code().is_none();
        ensure!(is_one, "{round}: {status}");
    }
    let left = world.coffer(&["ps", "--all", "--format", "{{.Names}}"])?.ok()?;
    ensure!(left == "box\n", "{left}");
    Ok(())
}

/// The first line of its output, and its exit status when nobody reads on.
fn first_line(world: &World, arguments: &[&str]) -> Result<(String, i32)> {
    let mut child = world.command(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut stdout = child.stdout.take().context("it was piped")?;
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        stdout.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    drop(stdout);
    Ok((String::from_utf8(line)?, ended(&mut child)?))
}

fn exec_says_what_is_missing_and_takes_our_variables(world: &World) -> Result<()> {
    let mut command =
        world.command(&["exec", "-e", "GIVEN", "-e", "ABSENT", "box", "sh", "-c", "echo $GIVEN ${ABSENT-none}"]);
    ensure!(run(command.env("GIVEN", "of ours").env_remove("ABSENT"), b"")?.ok()? == "of ours none\n");
    let missing = world.coffer(&["exec", "box"])?;
    ensure!(missing.status == 125 && missing.stderr.contains("a program"), "{}", missing.describe());
    let absent = world.coffer(&["--json", "exec", "box", "nosuch"])?;
    let said: serde_json::Value = serde_json::from_str(&absent.stdout)?;
    ensure!(absent.status == 127 && said["exit_code"] == 127, "{}", absent.describe());
    ensure!(said["why"].as_str().is_some_and(|why| !why.is_empty()), "{said}");
    let own: serde_json::Value = serde_json::from_str(
        &world.coffer(&["--json", "exec", "box", "sh", "-c", "echo failed >&2; exit 127"])?.stdout,
    )?;
    ensure!(own["exit_code"] == 127 && own["why"].is_null(), "{own}");
    Ok(())
}

#[test]
fn what_nobody_reads_ends_and_what_was_left_goes_on() -> Result<()> {
    let Some((world, _registry)) = world()? else { return Ok(()) };
    ensure!(first_line(&world, &["exec", "box", "busybox", "yes"])? == ("y\n".into(), 141));
    // One that writes nothing more is noticed, too.
    ensure!(first_line(&world, &["exec", "box", "sh", "-c", "echo one; exec sleep 4203"])? == ("one\n".into(), 141));
    wait_for(LIMIT, || processes("sleep 4203").is_empty()).context("it runs on in the box")?;
    exec_says_what_is_missing_and_takes_our_variables(&world)?;

    let refused = world.coffer(&["exec", "-it", "box", "sh"])?;
    ensure!(
        refused.status == 125 && refused.stderr.contains("the input device is not a TTY"),
        "{}",
        refused.describe()
    );
    let alone = world.coffer(&["exec", "-t", "box", "sh", "-c", "busybox tty; echo err >&2; exit 3"])?;
    ensure!((alone.status, alone.stdout.as_str()) == (3, "/dev/pts/0\r\nerr\r\n"), "{}", alone.describe());

    let left =
        world.coffer(&["exec", "-d", "box", "sh", "-c", "sleep 0.2; echo out; touch /tmp/after; exec sleep 4204"])?;
    ensure!(left.ok()?.is_empty());
    wait_for(LIMIT, || world.coffer(&["exec", "box", "test", "-e", "/tmp/after"]).is_ok_and(|test| test.status == 0))?;
    ensure!(!processes("sleep 4204").is_empty(), "it goes on");
    let json = world.coffer(&["--json", "exec", "-d", "box", "true"])?.ok()?;
    ensure!(serde_json::from_str::<serde_json::Value>(&json)? == serde_json::json!({ "output": [], "detached": true }));
    let absent = world.coffer(&["exec", "-d", "box", "nosuch"])?;
    ensure!(absent.status == 127 && absent.stderr.contains("nosuch"), "{}", absent.describe());
    ensure!(run(&mut world.command(&["exec", "-i", "box", "cat"]), b"all\0of it")?.stdout == "all\0of it");
    Ok(())
}

#[test]
fn a_box_whose_output_nobody_reads_ends_and_one_that_is_only_looked_at_goes_on() -> Result<()> {
    let Some((world, _registry, image)) = world_with_image()? else { return Ok(()) };
    ensure!(first_line(&world, &["run", "--rm", &image, "busybox", "yes"])? == ("y\n".into(), 141));
    let script = "echo one; exec sleep 4205";
    ensure!(first_line(&world, &["run", "--rm", &image, "sh", "-c", script])? == ("one\n".into(), 141));
    wait_for(LIMIT, || processes("sleep 4205").is_empty()).context("it runs on")?;
    ensure!(world.coffer(&["ps", "-aq"])?.ok()?.lines().count() == 1, "--rm left something");

    let script = "echo one; exec sleep 4206";
    world.coffer(&["run", "-d", "--name", "quiet", &image, "sh", "-c", script])?.ok()?;
    ensure!(first_line(&world, &["logs", "-f", "quiet"])? == ("one\n".into(), 0));
    ensure!(!processes("sleep 4206").is_empty(), "it goes on");
    Ok(())
}

#[test]
fn a_client_that_is_killed_is_no_end_of_input_for_anybody_inside() -> Result<()> {
    let Some((world, _registry)) = world()? else { return Ok(()) };
    // A child of the program reads along, and would take an end for the whole.
    let script = "(cat > /dev/shm/half; echo all > /dev/shm/took); true";
    let mut client = world.command(&["exec", "-i", "box", "sh", "-c", script]).stdin(Stdio::piped()).spawn()?;
    let mut input = client.stdin.take().context("piped")?;
    input.write_all(b"half of it")?;
    let says = |script: &str| world.coffer(&["exec", "box", "sh", "-c", script])?.ok();
    wait_for(LIMIT, || says("cat /dev/shm/half").is_ok_and(|half| half == "half of it")).context("it reads nothing")?;
    client.kill()?;
    client.wait()?;
    // Dead may be enough: the box's first program need not be one that collects.
    let living = "busybox grep -hs '(cat) [^Z]' /proc/[0-9]*/stat || echo gone";
    wait_for(LIMIT, || says(living).is_ok_and(|found| found == "gone\n")).context("it reads on")?;
    ensure!(says("cat /dev/shm/took 2>/dev/null || echo never")? == "never\n", "a child took the break for an end");
    Ok(())
}
