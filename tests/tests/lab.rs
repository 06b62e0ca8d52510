//! Boxes in our own monitor on a real KVM, and QEMU beside it: in the nested laboratory, whose host is `coffer_tests::lab`'s.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use coffer_tests::{
    World,
    image::{self, program, pulled_with},
    lab::{Lab, PROGRAMS},
    process::binary,
    services::Registry,
};

/// For a host that is emulated and ten guests inside it, of half a minute each where nothing else runs.
const PATIENCE: Duration = Duration::from_mins(25);

/// What a guest reads through its verified disk, to be timed; it does not compress.
fn bulk() -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()
    };
    std::iter::repeat_with(next).take(4 << 20).flatten().collect()
}

#[test]
fn a_box_runs_in_our_own_monitor_on_a_real_kvm() -> Result<()> {
    let world = World::new()?;
    let layout = world.folder.path().join("layout");
    image::busybox_layout(&layout, "t", &[])?;
    let registry = Registry::start(world.folder.path())?;
    let image = registry.push(&layout, "t", "app:1")?;
    world.coffer(&["pull", "-q", &image])?.ok()?;
    let story = format!("IMAGE={image}\n{}", include_str!("lab/one_box.sh"));
    let said = Lab::new(&world)?.run(&story, PATIENCE)?;
    for expected in ["inside 6.12", "\"Isolation\": \"kvm\"", "\"ExitCode\": 3"] {
        ensure!(said.contains(expected), "no {expected:?} in:\n{said}");
    }
    Ok(())
}

#[test]
#[ignore = "8 minutes on an emulated host; `make lab` runs it"]
fn boxes_run_in_our_own_monitor_on_a_real_kvm() -> Result<()> {
    let world = World::new()?;
    let layout = world.folder.path().join("layout");
    image::busybox_layout(&layout, "t", &[("bulk", &bulk())])?;
    let registry = Registry::start(world.folder.path())?;
    let image = registry.push(&layout, "t", "app:1")?;
    world.coffer(&["pull", "-q", &image])?.ok()?;
    let said = Lab::new(&world)?.run(&format!("IMAGE={image}\n{}", include_str!("lab/story.sh")), PATIENCE)?;
    println!("{said}");
    for expected in ["inside 6.12", "accepted: app", "executed as owner", "coffer-vmm was kill", "all done"] {
        ensure!(said.contains(expected), "no {expected:?} in:\n{said}");
    }
    Ok(())
}

#[test]
#[ignore = "2 to 4 minutes on an emulated host; `make lab` runs it"]
fn boxes_of_our_own_monitor_have_network_cards_on_a_real_kvm() -> Result<()> {
    let world = World::new()?;
    let datagrams = program(world.folder.path(), "datagrams.rs")?;
    let asks = world.folder.path().join("datagrams");
    fs::write(&asks, &datagrams)?;
    fs::set_permissions(&asks, fs::Permissions::from_mode(0o755))?;
    let (_registry, image) = pulled_with(&world, &[("bin/datagrams", &datagrams)])?;
    // Takes minutes there.
    world.coffer(&["sim", "init", "--product", "milan"])?.ok()?;
    let lab = Lab::new(&world)?;
    lab.program(&asks, PROGRAMS)?;
    let said = lab.run(&format!("IMAGE={image}\n{}", include_str!("lab/cards.sh")), PATIENCE)?;
    println!("{said}");
    for expected in ["\n65520\n", "\"Isolation\": \"kvm\"", "accepted: proved", "all done"] {
        ensure!(said.contains(expected), "no {expected:?} in:\n{said}");
    }
    Ok(())
}

#[test]
#[ignore = "a minute on an emulated host; `make lab` runs it"]
fn a_box_without_a_machine_is_bounded_by_its_hosts_control_groups() -> Result<()> {
    let world = World::new()?;
    let layout = world.folder.path().join("layout");
    image::busybox_layout(&layout, "t", &[])?;
    let registry = Registry::start(world.folder.path())?;
    let image = registry.push(&layout, "t", "app:1")?;
    world.coffer(&["pull", "-q", &image])?.ok()?;
    let said = Lab::new(&world)?.run(&format!("IMAGE={image}\n{}", include_str!("lab/bounded.sh")), PATIENCE)?;
    println!("{said}");
    for expected in ["201326592", "200000 100000", "0::/", "\"Memory\": 201326592", "\"NanoCpus\": 2000000000"] {
        ensure!(said.contains(expected), "no {expected:?} in:\n{said}");
    }
    let (bounded, unbounded) = said.split_once("above is bounded, below is not").context("both ran")?;
    ensure!(!bounded.contains("250000000") && unbounded.contains("250000000"), "{said}");
    Ok(())
}

/// The stories of the table of monitors, by this very program.
const STORIES: [&str; 3] = ["hostile_host::", "root_tamper::", "demo::"];

/// For some fifty guests, one after the other.
const LONG_PATIENCE: Duration = Duration::from_hours(1);

#[test]
#[ignore = "three quarters of an hour on an emulated host; `make lab` runs it"]
fn the_stories_of_every_monitor_are_told_on_a_real_kvm() -> Result<()> {
    let world = World::new()?;
    let lab = Lab::new(&world)?;
    // Beside the programs they look for, as where they are built.
    let deps = format!("{PROGRAMS}/deps");
    let stories = std::env::current_exe()?;
    lab.program(&stories, &deps)?;
    lab.program(&binary("coffer-demo")?, PROGRAMS)?;
    for service in ["docker-registry", "skopeo", "setpriv"] {
        lab.program(&Path::new("/usr/bin").join(service), PROGRAMS)?;
    }
    // A registry's client wants roots, though this one is on loopback.
    lab.file(Path::new("/etc/ssl/certs/ca-certificates.crt"), "etc/ssl/certs")?;
    let name = stories.file_name().and_then(|name| name.to_str()).context("a plain name")?;
    let tell =
        |story: &str| format!("/{deps}/{name} {story} --test-threads 1 --nocapture || failed=\"$failed {story}\"\n");
    let told = STORIES.map(tell).concat();
    let rooted = "[ \"${1:-}\" = rooted ] || exec rooted sh /story rooted";
    let story = format!("{rooted}\nfailed=\n{told}echo \"failed:$failed\"\n[ -z \"$failed\" ]");
    let said = lab.run(&story, LONG_PATIENCE)?;
    println!("{said}");
    // Seven tests and the demonstration, each on both.
    for monitor in ["kvm", "qemu"] {
        let told = said.matches(&format!("monitor {monitor}: as told")).count();
        ensure!(told == 8, "{told} stories were told on {monitor}:\n{said}");
    }
    Ok(())
}
