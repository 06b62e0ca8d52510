//! Every way around the agent is tried from inside, by root with all that a workload gets, as the workload and beside it: none is open.

use std::{collections::BTreeMap, path::Path, process::Command, time::Duration};

use anyhow::{Result, ensure};
use coffer_tests::{
    World, image,
    monitors::on_each,
    process::{Finished, run, wait_for},
    services::Registry,
};

const PROGRAM: &str = "sys/side_doors.rs";
/// What the program ends with.
const END: &str = "all tried";
/// Doors that the program tries.
const DOORS: usize = 55;

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
