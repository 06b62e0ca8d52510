//! More connections to a guest than a device's own ports come before the guest's: those that come and go, each opened anew. And those
//! whose other end goes before the guest has answered.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use coffer_guest_proto::ports;
use coffer_tests::{
    World,
    image::pulled,
    monitors::{Monitor, on_each},
};

/// Beyond every number that the guest's own connections to the host once had.
const CONNECTIONS: usize = 5000;
const WAIT: Duration = Duration::from_mins(1);

/// Opened, answered, and hung up on.
fn connection(socket: &Path) -> Result<()> {
    let mut line = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
    line.set_read_timeout(Some(WAIT))?;
    // At once: whatever comes first is taken for the whole line.
    line.write_all(format!("CONNECT {}\n", ports::CONTROL).as_bytes())?;
    let mut answer = String::new();
    BufReader::new(&line).read_line(&mut answer)?;
    ensure!(answer.starts_with("OK "), "answered {answer:?}");
    Ok(())
}

#[test]
fn a_guest_is_reached_however_many_connections_came_before() -> Result<()> {
    on_each(|monitor: Monitor| {
        if !monitor.has_machine() {
            return Ok(());
        }
        let world = World::on(monitor)?;
        let (_registry, image) = pulled(&world)?;
        let run = ["run", "-d", "--tee-simulate", "-m", "256m", "-p", "127.0.0.1:0:8080/ra-tls", "--name", "busy"];
        world.coffer(&[&run[..], &[&image, "sleep", "600"]].concat())?.ok()?;
        let id = world.coffer(&["inspect", "--format", "{{.Id}}", "busy"])?.ok()?;
        let socket = world.home().join("boxes").join(id.trim()).join("vsock.sock");
        for number in 0..CONNECTIONS {
            let patience = Instant::now() + WAIT;
            // A guest that has not come round to those before hangs up on this one, and not for long.
            while let Err(error) = connection(&socket) {
                ensure!(Instant::now() < patience, "connection {number} of {CONNECTIONS}: {error:#}");
                thread::sleep(Duration::from_millis(20));
            }
        }
        let answers = || world.coffer(&["attest", "busy", "--allow-simulated"])?.ok();
        answers()?;
        // Commands that are killed at whatever they are.
        for moment in (0..40).map(|number| Duration::from_millis(10 * number)) {
            let mut command = world.command(&["attest", "busy", "--allow-simulated"]);
            let mut killed = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
            thread::sleep(moment);
            killed.kill()?;
            killed.wait()?;
        }
        answers()?;
        // Strangers at a port of a guest that is paused, for longer than a guest is waited for.
        let port = world.coffer(&["port", "busy", "8080"])?.ok()?;
        world.coffer(&["pause", "busy"])?.ok()?;
        let strangers: Vec<_> = (0..3).map(|_| TcpStream::connect(port.trim())).collect::<Result<_, _>>()?;
        thread::sleep(Duration::from_secs(12));
        drop(strangers);
        world.coffer(&["unpause", "busy"])?.ok()?;
        answers()?;
        world.coffer(&["rm", "-f", "busy"])?.ok()?;
        Ok(())
    })
}
