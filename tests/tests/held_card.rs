//! A guest that proves itself holds its own network card to the rules of its spec: a host that has the other end of it gets no further,
//! and nothing that is opened outside later opens anything inside.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use coffer_tests::{
    World,
    image::{program, pulled, pulled_with},
    monitors::Monitor,
    outside::{ADDRESS, Networks},
    process::{Finished, run, wait_for},
};

const SERVER: &str = "datagrams serve 5353 & datagrams serve 5354 & mkdir /www && echo served inside >/www/index.html && busybox httpd -p 8081 -h /www && exec busybox httpd -f -p 8080 -h /www";

/// The host has the card's socket: frames of its own, past everything that stands outside of the guest.
#[test]
fn a_host_that_has_the_other_end_of_the_card_reaches_published_ports_alone() -> Result<()> {
    let qemu = Monitor::of("qemu").context("a row")?;
    let world = World::on(qemu)?;
    let folder = world.folder.path();
    let datagrams = program(folder, "datagrams.rs")?;
    let (_registry, image) = pulled_with(&world, &[("bin/datagrams", &datagrams)])?;
    let hostile = folder.join("hostile");
    fs::write(&hostile, program(folder, "hostile_card.rs")?)?;
    let answers = folder.join("answers");
    let takes_the_card = format!(
        "chmod +x {0}; mv net.sock honest.sock; {0} net.sock {1} >/dev/null 2>&1 & until [ -S net.sock ]; do sleep 0.1; done",
        hostile.display(),
        answers.display()
    );
    let (variable, monitor) = qemu.behind(folder, &takes_the_card)?;
    let flags = ["run", "-d", "--name", "web", "--tee-simulate", "--host-may", "stop,stats,logs,exec"];
    let ports = ["-p", "127.0.0.1::8080", "-p", "127.0.0.1::5353/udp", &image, "sh", "-c", SERVER];
    let mut command = world.command(&[&flags[..], &ports].concat());
    run(command.env(variable, monitor), b"")?.ok()?;

    let said = || fs::read_to_string(&answers).unwrap_or_default();
    let both = || said().contains("tcp-open\n") && said().contains("udp-open\n");
    wait_for(Duration::from_mins(1), both).with_context(|| format!("no published port answers: {}", said()))?;
    // Everything does listen, to whoever is inside.
    let inside = ["exec", "web", "busybox", "wget", "-q", "-O", "-", "http://10.0.2.15:8081/"];
    let serves = || world.coffer(&inside).is_ok_and(|it| it.stdout == "served inside\n");
    wait_for(Duration::from_secs(30), serves).context("nobody listens inside")?;
    let asks = world.coffer(&["exec", "web", "datagrams", "ask", "9999", "10.0.2.15:5354"])?.ok()?;
    ensure!(asks == "inside: asked\n", "{asks}");
    // Some rounds more, until what was dropped stands in the box's output.
    let told = || world.coffer(&["logs", "web"]).is_ok_and(|it| it.text().contains("network card: dropped frames: "));
    wait_for(Duration::from_mins(1), told).context("nobody is told of what was dropped")?;
    ensure!(said() == "tcp-open\nudp-open\n", "the host got an answer to: {}", said());
    let logs = world.coffer(&["logs", "web"])?.text();
    for why in ["that would begin what no rule allows", "that no rule allows", "neither ARP, TCP, UDP nor ICMP"] {
        ensure!(logs.contains(&format!("to the guest {why}")), "{why}: {logs}");
    }
    world.coffer(&["rm", "-f", "web"])?.ok().map(drop)
}

/// A network that is opened for the box afterwards opens what is outside of it, and not the box.
#[test]
fn what_is_opened_outside_later_opens_nothing_inside() -> Result<()> {
    let world = World::new()?;
    let (_registry, image) = pulled(&world)?;
    let Some(networks) = Networks::of_root(world.folder.path())? else { return Ok(()) };
    let coffer = |words: &[&str]| run(&mut networks.on_host(&world.command(words)), b"");
    let egress = format!("{ADDRESS}:80/tcp");
    coffer(&["network", "create", "--isolation", "custom", "--egress", &egress, "narrow"])?.ok()?;
    coffer(&["network", "create", "wide"])?.ok()?;
    let proves = ["--isolation", "qemu", "--tee-simulate", "--host-may", "stop,stats,logs,exec"];
    let start = |flags: &[&str]| coffer(&[&["run", "-d"], flags, &[&image, "sleep", "600"]].concat())?.ok().map(drop);
    start(&[&["--name", "held", "--network", "narrow"], &proves[..]].concat())?;
    let light = ["--isolation", coffer_tests::monitors::with_cards(&world)?];
    start(&[&["--name", "plain", "--network", "narrow"], &light[..]].concat())?;
    for name in ["held", "plain"] {
        coffer(&["network", "connect", "wide", name])?.ok()?;
    }
    let tries = |from: &str, words: &[&str]| -> Result<Finished> {
        coffer(&[&["exec", from, "busybox", "timeout", "5", "busybox"], words].concat())
    };
    // What the guest was made for passes, by name too: it may always ask the servers of its spec.
    for name in ["held", "plain"] {
        for url in [&format!("http://{ADDRESS}/"), "http://any.name.test/"] {
            let found = tries(name, &["wget", "-q", "-O", "-", url])?;
            ensure!(found.status == 0 && found.stdout == "the outside\n", "{name} {url}: {}", found.describe());
        }
    }
    // Outside both may do more now, such as come to the host's own address; and one does.
    let folder = world.folder.path().join("served");
    fs::create_dir(&folder)?;
    fs::write(folder.join("index.html"), "the host's\n")?;
    let mut httpd = Command::new("busybox");
    httpd.args(["httpd", "-f", "-p", "192.0.2.1:8001", "-h"]).arg(&folder);
    let mut httpd = networks.on_host(&httpd).spawn()?;
    let found = ["plain", "held"].map(|name| tries(name, &["wget", "-q", "-O", "-", "http://192.0.2.1:8001/"]));
    httpd.kill()?;
    httpd.wait()?;
    let [plain, held] = found;
    let plain = plain?;
    ensure!(plain.stdout == "the host's\n", "{}", plain.describe());
    let held = held?;
    ensure!(held.status != 0 && held.stdout.is_empty(), "opened inside: {}", held.describe());
    let shut = tries("held", &["ping", "-c", "1", "-W", "3", ADDRESS])?;
    ensure!(shut.status != 0, "opened inside: {}", shut.describe());
    for name in ["held", "plain"] {
        coffer(&["rm", "-f", name])?.ok()?;
    }
    Ok(())
}
