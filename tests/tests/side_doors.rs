//! Every way around the agent is tried from inside, by root with all that a workload gets, as the workload and beside it: none is open.

use std::{collections::BTreeMap, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use coffer_tests::{
    World, image,
    monitors::{Monitor, on_each},
    process::{Finished, run, wait_for},
    services::Registry,
};

const PROGRAM: &str = "sys/side_doors.rs";
/// What the program ends with.
const END: &str = "all tried";
/// Doors that the program tries.
const DOORS: usize = 56;

/// Of each door, whether it was open, and how.
fn doors(text: &str) -> Result<BTreeMap<String, Option<String>>> {
    ensure!(text.lines().any(|line| line == END), "it did not come to its end:\n{text}");
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let (open, rest) = match (line.strip_prefix("OPEN "), line.strip_prefix("refused ")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => continue,
        };
        let (name, what) = rest.split_once(": ").unwrap_or((rest, ""));
        ensure!(found.insert(name.to_owned(), open.then(|| what.to_owned())).is_none(), "{name} twice");
    }
    ensure!(found.len() >= DOORS, "{} doors were tried, not {DOORS}:\n{text}", found.len());
    Ok(found)
}

fn none_is_open(text: &str) -> Result<()> {
    let open: Vec<_> = doors(text)?.into_iter().filter_map(|(name, what)| Some(format!("{name}: {}", what?))).collect();
    ensure!(open.is_empty(), "open: {}\n{text}", open.join(", "));
    Ok(())
}

/// Outside a box the same program finds doors that are open: it can tell.
fn it_tells_open_doors(program: &Path) -> Result<()> {
    let mut outside = Command::new("unshare");
    outside.args(["--mount", "--pid", "--fork", "--mount-proc"]).arg(program);
    let found = doors(&run(&mut outside, b"")?.ok()?)?;
    for name in [
        "vsock",
        "io_uring",
        "bpf",
        "qdisc-bypass",
        "tx-ring",
        "vnet-hdr",
        "userfaultfd",
        "mount-proc",
        "open_tree",
        "mount-namespace",
        "keyctl",
    ] {
        ensure!(found.get(name).is_some_and(Option::is_some), "{name} is closed outside a box too: it shows nothing");
    }
    Ok(())
}

#[test]
fn no_way_leads_around_the_agent() -> Result<()> {
    on_each(|monitor| {
        let world = World::on(monitor)?;
        let program = world.folder.path().join("program");
        let built = image::program(world.folder.path(), PROGRAM)?;
        it_tells_open_doors(&program)?;
        let layout = world.folder.path().join("layout");
        image::busybox_layout(&layout, "t", &[("bin/doors", &built)])?;
        let registry = Registry::start(world.folder.path())?;
        let image = registry.push(&layout, "t", "app:1")?;
        world
            .coffer(&["run", "-d", "--name", "box", "--tee-simulate", &image, "sh", "-c", "doors; exec sleep 600"])?
            .ok()?;
        let said = || world.coffer(&["logs", "box", "--allow-simulated"]).map(|it| it.stdout).unwrap_or_default();
        wait_for(Duration::from_mins(1), || said().contains(END))?;
        none_is_open(&said())?;
        let beside = world.coffer(&["exec", "box", "doors"]).and_then(Finished::ok);
        // An owner's, with what an exec gets.
        none_is_open(&beside.or_else(|_| world.coffer(&["exec", "--allow-simulated", "box", "doors"])?.ok())?)
    })
}

/// Where the kernel is the host's, naming a protocol would have it load a module.
#[test]
fn a_box_without_a_machine_has_the_sockets_that_programs_need_and_no_others() -> Result<()> {
    let process = Monitor::of("process").context("a row")?;
    let world = World::on(process)?;
    if let Some(why) = process.lacks(&world)? {
        println!("skipped: {why}");
        return Ok(());
    }
    let sockets = image::program(world.folder.path(), "sys/sockets.rs")?;
    let (_registry, image) = image::pulled_with(&world, &[("bin/sockets", &sockets)])?;
    let (made, not_permitted, no_protocol, no_family) = ("made", "1", "93", "97");
    let asked = [
        // TCP, UDP, echoes of both versions, a Unix socket, routes.
        ("2:1:0", made),
        ("2:1:6", made),
        ("10:2:17", made),
        ("1:1:0", made),
        ("16:3:0", made),
        // SCTP, DCCP's protocol, L2TP, MPTCP, SMC.
        ("2:1:132", no_protocol),
        ("2:2:33", no_protocol),
        ("10:2:115", no_protocol),
        ("2:1:262", no_protocol),
        ("2:1:256", no_protocol),
        // Raw ones, and SOCK_PACKET, which is AF_PACKET by another name.
        ("2:3:1", not_permitted),
        ("2:10:768", not_permitted),
        ("17:3:768", no_family),
        // Of netlink: diagnosis, netfilter, audit, generic.
        ("16:3:4", no_protocol),
        ("16:3:12", no_protocol),
        ("16:3:9", no_protocol),
        ("16:3:16", no_protocol),
        // Bridges, VLANs and disciplines of lines; and one for which nothing is loaded, of no address (EFAULT).
        ("ioctl:8940", not_permitted),
        ("ioctl:89a0", not_permitted),
        ("ioctl:8982", not_permitted),
        ("ioctl:5423", not_permitted),
        ("ioctl:8915", "14"),
    ];
    let words: Vec<&str> = asked.iter().map(|(wanted, _)| *wanted).collect();
    let said = world.coffer(&[&["run", "--rm", "--network", "none", &image, "sockets"], &words[..]].concat())?.ok()?;
    let expected: Vec<String> = asked.iter().map(|(wanted, said)| format!("{wanted} {said}\n")).collect();
    ensure!(said == expected.concat(), "{said}");
    Ok(())
}
