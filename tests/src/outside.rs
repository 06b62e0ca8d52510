//! Networks in which a host and what it reaches are stood up: two namespaces joined by a wire. Needs root of this machine.
//!
//! ```text
//! host: loopback, 192.0.2.1 ── wire ── outside: 192.0.2.9, a resolver there, 169.254.169.254 as clouds have it
//! ```

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    net::UdpSocket,
    os::fd::AsFd as _,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::{Service, run};

/// What is outside, as the host reaches it.
pub const ADDRESS: &str = "192.0.2.9";

/// The two, and the services in them. Dropped, they are gone.
#[derive(Debug)]
pub struct Networks {
    // Services end before what they run in.
    _services: [Service; 2],
    host: Namespace,
    outside: Namespace,
}

impl Networks {
    /// Stands them up where this is root; else there are none, and it is said. Services of HTTP say `the outside` at port 80 of the
    /// outside, and `the host` at port 9090 of the host's loopback. The resolver has one answer for every name: the outside.
    ///
    /// # Errors
    /// If a program is missing.
    pub fn of_root(folder: &Path) -> Result<Option<Self>> {
        if rustix::process::geteuid().is_root() {
            return Self::new(folder).map(Some);
        }
        println!("skipped: networks to try it in are root's to make");
        Ok(None)
    }

    fn new(folder: &Path) -> Result<Self> {
        let outside = Namespace::new("ip link set lo up")?;
        let resolver = folder.join("resolv.conf");
        fs::write(&resolver, format!("nameserver {ADDRESS}\n"))?;
        let host = Namespace::new(&format!(
            "ip link set lo up && mount --bind {} /etc/resolv.conf && ip link add out0 type veth peer name in0 netns {} \
             && ip addr add 192.0.2.1/24 dev out0 && ip link set out0 up && ip route add default via {ADDRESS}",
            resolver.display(),
            outside.pid()
        ))?;
        let addresses =
            format!("ip addr add {ADDRESS}/24 dev in0 && ip addr add 169.254.169.254/32 dev lo && ip link set in0 up");
        run(outside.command("sh").args(["-c", &addresses]), b"")?.ok()?;
        outside.answer_names()?;
        let serve = |namespace: &Namespace, words: &str, listen: &str| {
            let root = folder.join(words);
            fs::create_dir(&root)?;
            fs::write(root.join("index.html"), format!("{words}\n"))?;
            Service::start("nsenter", |command| {
                namespace.enter(command);
                command.args(["busybox", "httpd", "-f", "-p", listen, "-h"]).arg(root);
            })
        };
        let services = [serve(&outside, "the outside", "80")?, serve(&host, "the host", "127.0.0.1:9090")?];
        Ok(Self { _services: services, host, outside })
    }

    /// A command as the host runs it.
    pub fn on_host(&self, command: &Command) -> Command {
        self.host.around(command)
    }

    /// What a place on the web says to the host, once it says something.
    ///
    /// # Errors
    /// If it says nothing within a minute.
    pub fn host_reads(&self, url: &str) -> Result<String> {
        read(&self.host, url)
    }

    /// As [`Networks::host_reads`], to whoever is outside.
    ///
    /// # Errors
    /// As it.
    pub fn outside_reads(&self, url: &str) -> Result<String> {
        read(&self.outside, url)
    }

    /// A socket for datagrams as a program of the host has it, which waits a second for each.
    ///
    /// # Errors
    /// If the address is none of the host's, or taken.
    pub fn host_datagrams(&self, at: &str) -> Result<UdpSocket> {
        self.host.datagrams(at)
    }

    /// As [`Networks::host_datagrams`], of whoever is outside.
    ///
    /// # Errors
    /// As it.
    pub fn outside_datagrams(&self, at: &str) -> Result<UdpSocket> {
        self.outside.datagrams(at)
    }

    /// Whether anybody listens there, for the host.
    pub fn host_connects(&self, address: &str) -> Result<bool> {
        let (host, port) = address.rsplit_once(':').context("a port")?;
        let found = run(self.host.command("busybox").args(["nc", "-w", "5", host, port]), b"")?;
        Ok(found.status == 0)
    }

    /// What the host hears from there while it says nothing, and does not end either: that would be a word too.
    ///
    /// # Errors
    /// What a tool said.
    pub fn host_hears(&self, address: &str) -> Result<String> {
        let (host, port) = address.rsplit_once(':').context("a port")?;
        let script = "for try in $(seq 5); do heard=$(sleep 4 | timeout 3 busybox nc \"$0\" \"$1\"); [ -n \"$heard\" ] && echo \"$heard\" && exit; done; exit 1";
        run(self.host.command("sh").args(["-c", script, host, port]), b"")?.ok()
    }
}

fn read(namespace: &Namespace, url: &str) -> Result<String> {
    let script = "for try in $(seq 600); do timeout 10 busybox wget -q -O - \"$0\" && exit; sleep 0.1; done; exit 1";
    run(namespace.command("sh").args(["-c", script, url]), b"")?.ok()
}

/// A network and mounts of its own, as long as a program lives in it.
#[derive(Debug)]
struct Namespace(Child);

impl Namespace {
    fn new(setup: &str) -> Result<Self> {
        let mut unshare = Command::new("unshare");
        // Its input closes with us.
        let script = format!("{setup} && echo ready && exec cat");
        unshare.args(["--net", "--mount", "sh", "-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut made = Self(unshare.spawn().context("cannot start unshare")?);
        let mut line = String::new();
        BufReader::new(made.0.stdout.take().context("an output")?).read_line(&mut line)?;
        anyhow::ensure!(line == "ready\n", "no namespace was set up: {setup}");
        Ok(made)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn enter(&self, nsenter: &mut Command) {
        nsenter.args(["--net", "--mount", "-t", &self.pid().to_string(), "--"]);
    }

    fn command(&self, program: &str) -> Command {
        self.around(&Command::new(program))
    }

    fn around(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        self.enter(&mut inside);
        inside.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside
    }

    /// A socket in there, bound by a thread that goes in for it.
    fn bind(&self, at: String) -> Result<UdpSocket> {
        let network = File::open(format!("/proc/{}/ns/net", self.pid()))?;
        let bound = thread::spawn(move || -> Result<UdpSocket> {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(UdpSocket::bind(at)?)
        });
        bound.join().ok().context("the thread of a socket")?
    }

    fn datagrams(&self, at: &str) -> Result<UdpSocket> {
        let socket = self.bind(at.to_owned())?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        Ok(socket)
    }

    /// A thread of ours, which answers every question for an address with the one of the outside.
    fn answer_names(&self) -> Result<()> {
        let socket = self.bind(format!("{ADDRESS}:53"))?;
        thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                if let Some(answer) = answer(&question[..length]) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// To one question: the address, for one of IPv4, and no other. Source: RFC 1035 §4.1.
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let mut at = HEADER;
    while *question.get(at)? != 0 {
        at += usize::from(question[at]) + 1;
    }
    let end = at + 5;
    let of_ipv4 = question.get(at + 1..end)? == [0, 1, 0, 1];
    let mut all = question[..2].to_vec();
    all.extend([0x81, 0x80, 0, 1, 0, u8::from(of_ipv4), 0, 0, 0, 0]);
    all.extend(&question[HEADER..end]);
    if of_ipv4 {
        all.extend([0xC0, 0x0C, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 9]);
    }
    Some(all)
}
