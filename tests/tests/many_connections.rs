//! More connections to a guest than a device's own ports come before the guest's: those that come and go, each opened anew.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
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
        world.coffer(&["run", "-d", "--tee-simulate", "-m", "256m", "--name", "busy", &image, "sleep", "600"])?.ok()?;
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
        world.coffer(&["attest", "busy", "--allow-simulated"])?.ok()?;
        world.coffer(&["rm", "-f", "busy"])?.ok()?;
        Ok(())
    })
}
