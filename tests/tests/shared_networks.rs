//! Networks that boxes share, one of them a machine that is booted where there are boxes without: who reaches whom, by name and by address, before and after a box joins and leaves.

use anyhow::{Context, Result, ensure};
use coffer_tests::{
    World,
    image::pulled,
    monitors::with_cards,
    outside::{ADDRESS, Networks},
    process::run,
};
use serde_json::Value;

#[test]
fn boxes_of_a_network_know_each_other_and_nobody_else_reaches_them() -> Result<()> {
    let world = World::new()?;
    let (_registry, image) = pulled(&world)?;
    let Some(networks) = Networks::of_root(world.folder.path())? else { return Ok(()) };
    let coffer = |words: &[&str]| run(&mut networks.on_host(&world.command(words)), b"");
    coffer(&["network", "create", "app"])?.ok()?;
    coffer(&["network", "create", "--isolation", "strict", "--subnet", "10.90.0.0/24", "back"])?.ok()?;

    // One in both kinds of box, and one that is in no network at first. Each serves its own name.
    let serves = |name: &str| {
        format!("mkdir /www && echo {name} inside >/www/index.html && exec busybox httpd -f -p 8080 -h /www")
    };
    let (db, web, alone) = (serves("db"), serves("web"), serves("alone"));
    let start = |flags: &[&str], script: &str| -> Result<()> {
        coffer(&[&["run", "-d"], flags, &[&image, "sh", "-c", script]].concat())?.ok().map(drop)
    };
    let light = ["--isolation", with_cards(&world)?];
    start(&[&light[..], &["--name", "db", "--network", "back", "--network-alias", "store"]].concat(), &db)?;
    let proves =
        ["--isolation", "qemu", "--tee-simulate", "--host-may", "stop,stats,logs,exec", "-p", "127.0.0.1::8080"];
    start(&[&["--name", "web", "--network", "app", "--ip", "10.89.0.7"], &proves[..]].concat(), &web)?;
    start(&[&light[..], &["--name", "alone"]].concat(), &alone)?;

    let reads = |from: &str, url: &str| -> Result<Option<String>> {
        let wget = ["busybox", "timeout", "5", "busybox", "wget", "-q", "-O", "-", url];
        let found = coffer(&[&["exec", from], &wget[..]].concat())?;
        Ok((found.status == 0).then_some(found.stdout))
    };
    // A server that is only just starting is waited for; how often says nothing.
    let waits = |from: &str, url: &str, said: &str| -> Result<()> {
        for _ in 0..60 {
            if reads(from, url)?.as_deref() == Some(said) {
                return Ok(());
            }
        }
        anyhow::bail!("{from} does not read {said:?} at {url}")
    };
    let never = |from: &str, urls: &[&str]| -> Result<()> {
        for url in urls {
            let found = reads(from, url)?;
            ensure!(found.is_none(), "{from} reads {found:?} at {url}");
        }
        Ok(())
    };
    let address = |name: &str, network: &str| -> Result<String> {
        let known: Value = serde_json::from_str(&coffer(&["network", "inspect", network])?.ok()?)?;
        let boxes = known[0]["Containers"].as_object().context("boxes")?;
        let place = boxes.values().find(|place| place["Name"] == name).with_context(|| known.to_string())?;
        Ok(place["IPAddress"].as_str().context("an address")?.to_owned())
    };
    ensure!(address("web", "app")? == "10.89.0.7" && address("db", "back")? == "10.90.0.2");
    let outside = format!("http://{ADDRESS}/");

    // Each for itself: the way out is where it is allowed, and none leads to another network.
    waits("alone", &outside, "the outside\n")?;
    waits("web", &outside, "the outside\n")?;
    never("db", &[&outside, "http://10.90.0.1:9090/", "http://169.254.169.254/", "http://10.89.0.7:8080/"])?;
    never("web", &["http://db:8080/", "http://10.90.0.2:8080/", "http://10.89.0.1:9090/", "http://169.254.169.254/"])?;
    never("alone", &["http://10.90.0.2:8080/", "http://10.89.0.7:8080/"])?;
    let port = coffer(&["port", "web", "8080/tcp"])?.ok()?.trim().to_owned();
    ensure!(networks.host_reads(&format!("http://{port}/"))? == "web inside\n");

    let stats: Value = serde_json::from_str(&coffer(&["--json", "stats", "--no-stream", "web"])?.ok()?)?;
    for counted in ["cpu_us", "processors", "network_received_bytes", "network_sent_bytes", "disk_read_bytes"] {
        ensure!(stats["boxes"][0][counted].as_u64() > Some(0), "{counted}: {stats}");
    }
    ensure!(stats["boxes"][0]["memory_bytes"].as_u64() < stats["boxes"][0]["memory_limit_bytes"].as_u64(), "{stats}");

    // They join: by name, by alias, by address; also the one whose spec is measured, and the one whose card is of no network.
    coffer(&["network", "connect", "back", "web"])?.ok()?;
    coffer(&["network", "connect", "--alias", "late", "back", "alone"])?.ok()?;
    for url in ["http://db:8080/", "http://store.back:8080/", "http://10.90.0.2:8080/"] {
        waits("web", url, "db inside\n")?;
        waits("alone", url, "db inside\n")?;
    }
    waits("db", "http://web:8080/", "web inside\n")?;
    waits("db", "http://late:8080/", "alone inside\n")?;
    waits("db", &format!("http://{}:8080/", address("alone", "back")?), "alone inside\n")?;
    waits("web", "http://alone:8080/", "alone inside\n")?;
    // By the one that is a machine: without one nobody has raw sockets.
    let ping = coffer(&["exec", "web", "busybox", "ping", "-c", "1", "-W", "10", "db"])?;
    ensure!(ping.status == 0, "{}", ping.describe());
    waits("web", &outside, "the outside\n")?;
    never("db", &[&outside])?;

    // They leave, and a network with boxes stays.
    ensure!(coffer(&["network", "rm", "back"])?.status == 3);
    coffer(&["network", "disconnect", "back", "alone"])?.ok()?;
    never("alone", &["http://10.90.0.2:8080/"])?;
    never("db", &["http://late:8080/"])?;
    waits("web", "http://db:8080/", "db inside\n")?;
    coffer(&["network", "disconnect", "back", "db"])?.ok()?;
    never("web", &["http://10.90.0.2:8080/"])?;
    coffer(&["network", "connect", "back", "db"])?.ok()?;
    ensure!(address("db", "back")? == "10.90.0.2", "the address of its card");
    waits("web", "http://db:8080/", "db inside\n")?;

    let known: Value = serde_json::from_str(&coffer(&["inspect", "db"])?.ok()?)?;
    let folder = known[0]["Folder"].as_str().context("a folder")?;
    let log = std::fs::read_to_string(format!("{folder}/supervisor.log"))?;
    for why in ["that no rule of its networks allows", "of a network that the box is not in", "to a link-local address"]
    {
        ensure!(log.contains(&format!("network: refused from the guest: a packet {why}\n")), "{log}");
    }
    ensure!(!log.contains("another card") && !log.contains("another address"), "{log}");
    ensure!(coffer(&["ps", "-q", "--filter", "network=back"])?.ok()?.lines().count() == 2);
    for name in ["web", "db", "alone"] {
        coffer(&["rm", "-f", name])?.ok()?;
    }
    ensure!(coffer(&["network", "prune", "-f"])?.ok()? == "Deleted networks:\napp\nback\n");
    Ok(())
}

#[test]
fn what_a_shared_network_cannot_do_is_refused_by_its_name() -> Result<()> {
    let world = World::new()?;
    let (_registry, image) = pulled(&world)?;
    world.coffer(&["network", "create", "app"])?.ok()?;
    world.coffer(&["network", "create", "--internal", "back"])?.ok()?;
    for (words, status, said) in [
        (&["network", "create", "app"][..], 3, "network with name app already exists"),
        (&["network", "create", "--driver", "overlay", "x"], 2, "there is no network driver"),
        (&["network", "create", "--subnet", "fd00::/64", "x"], 2, "IPv6"),
        (&["network", "create", "--subnet", "10.0.0.0/8", "x"], 2, "boxes that are in no network have it"),
        (&["network", "create", "--subnet", "10.89.0.0/16", "x"], 3, "which is network app"),
        (&["network", "create", "--egress", "192.0.2.0/24", "x"], 2, "rules of --isolation custom"),
        (&["network", "create", "--isolation", "custom", "--egress", "192.0.2.1:0", "x"], 2, "no PORT"),
        (&["network", "create", "--ipv6", "x"], 2, "IPv4 alone"),
        (&["network", "rm", "nosuch"], 1, "no such network: nosuch"),
        (&["run", "--network", "nosuch", &image, "true"], 125, "no such network: nosuch"),
        (&["run", "--network", "back", "-p", "8080:80", &image, "true"], 125, "lets nobody in"),
        (&["run", "--network", "app", "--ip", "10.89.1.7", &image, "true"], 125, "no address of a box in network app"),
        (&["run", "--ip", "10.89.0.7", &image, "true"], 125, "--network NAME"),
        (&["run", "--network", "host", &image, "true"], 125, "shares no network with its host"),
        (&["run", "--network", "app", "-p", "53:53/sctp", &image, "true"], 125, "\"sctp\" is no protocol"),
    ] {
        let found = world.coffer(words)?;
        ensure!(found.status == status && found.text().contains(said), "{words:?} {said}: {}", found.describe());
    }
    // What is measured says the address.
    let spec = |flags: &[&str]| world.coffer(&[&["spec", "--tee-simulate"], flags, &[&image]].concat())?.ok();
    let written = spec(&["--network", "app", "--ip", "10.89.0.9"])?;
    ensure!(written.contains("address = \"10.89.0.9\"") && written.contains("gateway = \"10.89.0.1\""), "{written}");
    let path = world.folder.path().join("spec.toml");
    std::fs::write(&path, written)?;
    let path = path.to_str().context("a path")?;
    let found = world.coffer(&[
        "create",
        "--isolation",
        "qemu",
        "--tee-simulate",
        "--network",
        "back",
        "--spec",
        path,
        &image,
    ])?;
    ensure!(found.status == 125 && found.text().contains("and network back is 10.89.1.0/24"), "{}", found.describe());
    world
        .coffer(&[
            "create",
            "--isolation",
            "qemu",
            "--tee-simulate",
            "--network",
            "app",
            "--spec",
            path,
            "--name",
            "web",
            &image,
        ])?
        .ok()?;
    let taken = world.coffer(&["create", "--isolation", "qemu", "--network", "app", "--ip", "10.89.0.9", &image])?;
    ensure!(taken.status == 125 && taken.text().contains("address of box web"), "{}", taken.describe());
    Ok(())
}
