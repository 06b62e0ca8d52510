//! What comes through a published port of a box, and what comes through passt alone: the same box, the same card and the same passt, with
//! nothing of ours between the two.
//!
//! ```text
//! -p:     client ── passt ── port and filter (supervisor) ── card ── server in the box
//! alone:  client ── passt ────────────────────────────────── card ── server in the box
//! ```

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    os::fd::OwnedFd,
    os::unix::net::UnixListener,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::net::sockopt::{set_socket_send_buffer_size, set_socket_send_buffer_size_force};

use crate::{
    World,
    image::{program, pulled_with},
    monitors::Monitor,
    process::{Service, wait_for},
    services::{Registry, free_port},
};

/// Which way bytes go, as the server knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Out of the box.
    Out,
    /// Into it.
    Into,
}

/// A box with a server, reached at a port of this host.
#[derive(Debug)]
pub struct Forwarded {
    port: u16,
    bytes: usize,
    _passt: Option<Service>,
    _world: World,
    _registry: Registry,
}

/// Bytes that passt may say at once.
const ROOM: usize = 8 << 20;
/// Port of the server.
const INSIDE: u16 = 5201;

impl Forwarded {
    /// One whose port Coffer publishes.
    ///
    /// # Errors
    /// If the box does not start.
    pub fn published(monitor: Monitor, bytes: usize) -> Result<Self> {
        let (world, registry, image) = served(monitor)?;
        let port = free_port()?;
        let publish = format!("127.0.0.1:{port}:{INSIDE}");
        let words = ["run", "-d", "--name", "pours", "-p", &publish, &image, "/bin/pour"];
        world.coffer(&[&words[..], &[&INSIDE.to_string(), &bytes.to_string()]].concat())?.ok()?;
        Self { port, bytes, _passt: None, _world: world, _registry: registry }.answers()
    }

    /// One whose card leads to a passt of its own, with the words that Coffer gives its own.
    ///
    /// # Errors
    /// If the box or passt does not start.
    pub fn by_passt_alone(monitor: Monitor, bytes: usize) -> Result<Self> {
        let (world, registry, image) = served(monitor)?;
        let port = free_port()?;
        let socket: PathBuf = world.folder.path().join("alone.sock");
        let listener = UnixListener::bind(&socket)?;
        listener.set_nonblocking(true)?;
        // What leads to our relay leads there instead. It is also asked for its version elsewhere.
        let change = format!("[ ! -S net.sock ] || {{ mv net.sock relay.sock; ln -s {} net.sock; }}", socket.display());
        let (variable, path) = monitor.behind(world.folder.path(), &change)?;
        let words = ["run", "-d", "--name", "pours", "--network", "user", &image, "/bin/pour"];
        let mut run = world.command(&[&words[..], &[&INSIDE.to_string(), &bytes.to_string()]].concat());
        let mut run = run.env(variable, path).stdout(Stdio::null()).spawn()?;
        let mut card = None;
        wait_for(Duration::from_mins(1), || {
            card = listener.accept().ok();
            card.is_some() || run.try_wait().is_ok_and(|status| status.is_some_and(|status| !status.success()))
        })?;
        let (card, _) = card.context("the box did not start")?;
        card.set_nonblocking(false)?;
        // As Coffer does it: without, passt drops most of what it says, and nothing is there to be compared.
        if set_socket_send_buffer_size_force(&card, ROOM).is_err() {
            set_socket_send_buffer_size(&card, ROOM)?;
        }
        let passt = Service::start("passt", |command| {
            let ports = format!("127.0.0.1/{port}:{INSIDE}");
            command.args(["--foreground", "--quiet", "--ipv4-only", "--no-dhcp", "--no-dhcpv6", "--no-ndp", "--no-ra"]);
            command.args(["--interface", "lo", "--fd", "0", "--mtu", "65520", "--mac-addr", "02:c0:ff:e2:00:01"]);
            command.args(["--address", "10.0.2.15", "--netmask", "255.255.255.0", "--gateway", "10.0.2.2"]);
            command.args(["--tcp-ports", &ports, "--udp-ports", "none", "--no-map-gw"]);
            command.stdin(Stdio::from(OwnedFd::from(card))).stdout(Stdio::null()).stderr(Stdio::null());
        })?;
        ensure!(run.wait()?.success(), "the box did not start");
        Self { port, bytes, _passt: Some(passt), _world: world, _registry: registry }.answers()
    }

    fn answers(self) -> Result<Self> {
        wait_for(Duration::from_secs(30), || self.once(Way::Into).is_ok()).context("the server does not answer")?;
        Ok(self)
    }

    /// Seconds until all bytes are there.
    ///
    /// # Errors
    /// If they are not.
    pub fn once(&self, way: Way) -> Result<f64> {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_mins(1)))?;
        let (mut piece, mut left) = (vec![0; 64 << 10], self.bytes);
        stream.write_all(if way == Way::Out { b"d" } else { b"u" })?;
        while left > 0 {
            let next = left.min(piece.len());
            let count = match way {
                Way::Into => stream.write_all(&piece[..next]).map(|()| next)?,
                Way::Out => stream.read(&mut piece[..next])?,
            };
            ensure!(count > 0, "it ended {left} bytes too early");
            left -= count;
        }
        if way == Way::Into {
            stream.read_exact(&mut piece[..1])?;
        }
        Ok(begun.elapsed().as_secs_f64())
    }
}

fn served(monitor: Monitor) -> Result<(World, Registry, String)> {
    let world = World::on(monitor)?;
    let pour = program(world.folder.path(), "pour.rs")?;
    let (registry, image) = pulled_with(&world, &[("bin/pour", &pour)])?;
    Ok((world, registry, image))
}
