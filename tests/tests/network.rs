//! The network of a box: what it reaches, what reaches it, and what it does not reach.

use std::{net::UdpSocket, process::Command};

use anyhow::{Context, Result, ensure};
use coffer_tests::{
    World,
    image::{program, pulled, pulled_with},
    monitors::with_cards,
    outside::{ADDRESS, Networks},
    process::{Finished, run},
};
use serde_json::Value;

const SERVER: &str = "busybox nc -ll -p 8082 -e echo first & datagrams serve 5353 & datagrams serve 5354 & mkdir /www && echo served inside >/www/index.html && busybox httpd -p 8081 -h /www && exec busybox httpd -f -p 8080 -h /www";

#[test]
fn a_box_reaches_the_world_and_its_ports_are_reached_and_its_host_is_out_of_reach() -> Result<()> {
    let world = World::new()?;
    let datagrams = program(world.folder.path(), "datagrams.rs")?;
    let (_registry, image) = pulled_with(&world, &[("bin/datagrams", &datagrams)])?;
    let Some(networks) = Networks::of_root(world.folder.path())? else { return Ok(()) };
    let coffer = |words: &[&str]| run(&mut networks.on_host(&world.command(words)), b"");
    let isolated = ["--isolation", with_cards(&world)?];

    // A box that nobody measures has a card without a word.
    let wget = |url: &str| ["busybox", "timeout", "5", "busybox", "wget", "-q", "-O", "-", url].map(str::to_owned);
    let outside = format!("http://{ADDRESS}/");
    let plain = [&["run", "--rm"], &isolated[..], &[&image, "busybox", "wget", "-q", "-O", "-", &outside]].concat();
    ensure!(coffer(&plain)?.ok()? == "the outside\n");

    // In one that proves itself what it has is measured; what leads to its card stands beside what leads to its agent.
    let flags = ["run", "-d", "--name", "web", "--tee-simulate", "--host-may", "stop,stats,logs,exec"];
    let ports = ["-p", "127.0.0.1::8080", "-p", "127.0.0.1::8080/ra-tls", "-P", "--expose", "8081-8082"];
    let udp = ["-p", "127.0.0.1::5353/udp", "--expose", "5354/udp"];
    let named = format!("named:{ADDRESS}");
    let rest = ["--add-host", &named, &image, "sh", "-c", SERVER];
    coffer(&[&flags[..], &isolated, &ports, &udp, &rest].concat())?.ok()?;
    let port = |words: &str| Ok::<_, anyhow::Error>(coffer(&["port", "web", words])?.ok()?.trim().to_owned());
    let (loopback, everywhere) = (port("8080/tcp")?, port("8081")?);
    ensure!(loopback.starts_with("127.0.0.1:") && everywhere.starts_with("0.0.0.0:"), "{loopback} {everywhere}");
    let inside = "served inside\n";
    ensure!(networks.host_reads(&format!("http://{loopback}/"))? == inside);
    let number = everywhere.rsplit_once(':').context("a port")?.1;
    ensure!(networks.outside_reads(&format!("http://192.0.2.1:{number}/"))? == inside);
    // Whoever speaks first is heard by who says nothing.
    ensure!(networks.host_hears(&port("8082")?.replace("0.0.0.0", "127.0.0.1"))? == "first\n");
    let behind_ra_tls = port("8080/ra-tls")?;
    ensure!(behind_ra_tls != loopback && networks.host_connects(&behind_ra_tls)?);

    let by_udp = (port("5353/udp")?, port("5354/udp")?);
    datagrams_lead_in(&networks, &by_udp.0, &by_udp.1)?;

    let exec = |words: &[String]| -> Result<Finished> {
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        coffer(&[&["exec", "web"], &words[..]].concat())
    };
    for url in [&outside, "http://named/", "http://any.name.test/"] {
        let found = exec(&wget(url))?;
        ensure!(found.status == 0 && found.stdout == "the outside\n", "{url}: {}", found.describe());
    }
    // What the host reaches, and a box does not: its loopback behind the gateway, and what clouds tell machines.
    ensure!(networks.host_reads("http://127.0.0.1:9090/")? == "the host\n");
    ensure!(networks.host_reads("http://169.254.169.254/")? == "the outside\n");
    for url in ["http://10.0.2.2:9090/", "http://169.254.169.254/", "http://127.0.0.1:9090/"] {
        let found = exec(&wget(url))?;
        ensure!(found.status != 0 && found.stdout.is_empty(), "{url}: {}", found.describe());
    }
    // A guest begins nothing with the host by UDP either, be it from a port that others come in by, and hears nobody it did not ask.
    let host = networks.host_datagrams("127.0.0.1:0")?;
    let begins = |from: &str, to: &str| coffer(&["exec", "web", "datagrams", "ask", from, to])?.ok();
    ensure!(begins("8125", &format!("10.0.2.2:{}", host.local_addr()?.port()))? == "nothing\n");
    ensure!(host.recv(&mut [0; 64]).is_err(), "the host's loopback hears a guest");
    let outside = networks.outside_datagrams(&format!("{ADDRESS}:9999"))?;
    let asked = std::thread::scope(|scope| -> Result<String> {
        let asks = scope.spawn(|| begins("8125", &format!("{ADDRESS}:9999")));
        let mut bytes = [0; 64];
        let from = (0..20).find_map(|_| outside.recv_from(&mut bytes).ok()).context("nothing comes out")?.1;
        // Not from the port that the guest chose: another box may have it, or a service of the host's.
        ensure!(from.port() >= 32_768, "{from}");
        let other = networks.host_datagrams("127.0.0.1:0")?;
        let _ = other.send_to(b"of nobody asked", ("127.0.0.1", from.port()));
        outside.send_to(b"answered", from)?;
        asks.join().ok().context("exec")?
    })?;
    ensure!(asked == "answered\n", "{asked}");
    let known: Value = serde_json::from_str(&coffer(&["inspect", "web"])?.ok()?)?;
    let folder = known[0]["Folder"].as_str().context("a folder")?;
    let log = std::fs::read_to_string(format!("{folder}/supervisor.log"))?;
    for refused in ["to a link-local address", "to the gateway that neither answers nor asks for a name"] {
        ensure!(log.contains(&format!("network: refused from the guest: a packet {refused}\n")), "{log}");
    }
    let bound = &known[0]["NetworkSettings"]["Ports"]["5353/udp"][0];
    ensure!(by_udp.0 == format!("127.0.0.1:{}", bound["HostPort"].as_str().context("a port")?), "{bound}");
    let ps = coffer(&["ps", "--format", "{{.Ports}}"])?.ok()?;
    ensure!(ps.contains(&format!("{}->5353/udp", by_udp.0)), "{ps}");
    // What the card is, the box's root does not change.
    for change in
        ["ip link set eth0 down", "ip link set eth0 address 02:00:00:00:00:01", "ip addr add 10.0.2.16/24 dev eth0"]
    {
        let script = format!("busybox {change}");
        let found = coffer(&["exec", "web", "sh", "-c", &script])?;
        ensure!(found.status != 0, "{change}: {}", found.describe());
    }
    coffer(&["stop", "-t", "1", "web"])?.ok()?;
    ensure!(!networks.host_connects(&loopback)? && !networks.host_connects(&behind_ra_tls)?, "a port outlives its box");
    Ok(())
}

/// Many clients of the host and one outside are answered, each by the address it asked; `everywhere` is a port of all addresses.
fn datagrams_lead_in(networks: &Networks, loopback: &str, everywhere: &str) -> Result<()> {
    ensure!(loopback.starts_with("127.0.0.1:") && everywhere.starts_with("0.0.0.0:"), "{loopback} {everywhere}");
    let asks = |client: &UdpSocket, text: &str| -> Result<()> {
        let mut bytes = [0; 2048];
        for _ in 0..60 {
            client.send(text.as_bytes())?;
            if let Ok(length) = client.recv(&mut bytes) {
                ensure!(bytes[..length] == *format!("inside: {text}").as_bytes(), "another answer");
                return Ok(());
            }
        }
        anyhow::bail!("no answer to {text:?}")
    };
    for client in ["one", "two"] {
        let socket = networks.host_datagrams("127.0.0.1:0")?;
        socket.connect(loopback)?;
        asks(&socket, client)?;
    }
    let number = everywhere.rsplit_once(':').context("a port")?.1;
    let outside = networks.outside_datagrams("0.0.0.0:0")?;
    outside.connect(format!("192.0.2.1:{number}"))?;
    asks(&outside, &"long ".repeat(300))
}

#[test]
fn what_a_network_cannot_do_is_refused_by_its_name() -> Result<()> {
    let world = World::new()?;
    let (_registry, image) = pulled(&world)?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let taken = format!("{}:80", taken.local_addr()?);
    let taken_by_udp = UdpSocket::bind("127.0.0.1:0")?;
    let taken_by_udp = format!("{}:53/udp", taken_by_udp.local_addr()?);
    for (flags, status, words) in [
        (&["-p", "53:53/sctp"][..], 125, "\"sctp\" is no protocol"),
        (&["-p", "80-81:80"], 125, "is no range that leads to the other"),
        (&["-p", "[::1]:8080:80"], 125, "boxes have IPv4 alone yet"),
        (&["--network", "none", "-p", "8080:80"], 125, "--network none leaves the box without"),
        (&["--network", "none", "--dns", ADDRESS], 125, "--dns needs a network card"),
        (&["--network", "mine"], 125, "no such network: mine"),
        (&["--network", "host"], 125, "shares no network with its host"),
        (&["--dns", "127.0.0.53"], 125, "network.dns"),
        (&["--add-host", "db:host-gateway"], 125, "loopback is not reached"),
        (&["--expose", "80"], 125, "--publish-all"),
        (&["-p", &taken], 125, &format!("cannot listen on {}", taken.trim_end_matches(":80"))),
        (&["-p", &taken_by_udp], 125, &format!("cannot listen on {}", taken_by_udp.trim_end_matches(":53/udp"))),
    ] {
        let found = world.coffer(&[&["run", "--rm"], flags, &[&image, "true"]].concat())?;
        ensure!(found.status == status && found.text().contains(words), "{words}: {}", found.describe());
    }
    let spec = |flags: &[&str]| world.coffer(&[&["spec"], flags, &[&image]].concat())?.ok();
    ensure!(!spec(&["--network", "none"])?.contains("[network]"));
    ensure!(!spec(&["--tee-simulate"])?.contains("[network]"), "a way into a guest that proves itself is asked for");
    ensure!(spec(&["--tee-simulate", "--network", "user"])?.contains("[network]"));
    let mut without: Command = world.command(&["run", "--rm", "--isolation", "qemu", &image, "true"]);
    let found = run(without.env("COFFER_PASST", "/nowhere"), b"")?;
    ensure!(found.status == 125 && found.stderr.contains("COFFER_PASST names /nowhere"), "{}", found.describe());
    Ok(())
}
