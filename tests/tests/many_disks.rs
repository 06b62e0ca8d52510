//! A machine as full as its model allows: every transport works, and a box reads every disk it may have.

use std::fs;

use anyhow::{Result, ensure};
use coffer_machine::{devices::VIRTIO_MMIO_COUNT, spec_disk::DOCUMENT_LIMIT};
use coffer_platform::files::Platform;
use coffer_spec::Volume;
use coffer_tests::{
    World,
    bare_boot::{BareBoot, INIT_SPOKE, TALKATIVE},
    image::pulled,
    monitors::{Monitor, on_each},
};

#[test]
fn the_kernel_finds_and_hears_every_transport() -> Result<()> {
    let platform = Platform::load(&World::new()?.platform)?;
    let boot = BareBoot { disks: VIRTIO_MMIO_COUNT, ..BareBoot::honest(&platform, TALKATIVE)? };
    // The kernel looks for partitions on each disk before it goes on: without its interrupt, it would wait for ever.
    let outcome = boot.run(INIT_SPOKE)?;
    ensure!(outcome.console.contains(INIT_SPOKE), "{outcome:#?}");
    let found = outcome.console.matches(" 512-byte logical blocks").count();
    ensure!(found == VIRTIO_MMIO_COUNT as usize, "{found} disks\n{}", outcome.console);
    Ok(())
}

#[test]
fn a_box_reads_each_of_as_many_volumes_as_a_spec_may_have() -> Result<()> {
    on_each(every_volume)
}

fn every_volume(monitor: Monitor) -> Result<()> {
    let world = World::on(monitor)?;
    let (_registry, image) = pulled(&world)?;
    let binds: Vec<String> = (0..=Volume::MOST)
        .map(|index| {
            let file = world.folder.path().join(format!("file{index}"));
            fs::write(&file, format!("volume {index}\n"))?;
            Ok(format!("{}:/volumes/{index:02}:ro", file.display()))
        })
        .collect::<Result<_>>()?;
    let run = |volumes: usize| {
        let mut words = vec!["run", "--rm", "--tee-simulate", "--allow-simulated"];
        if monitor.has_machine() {
            words.extend(["--scratch", "16m"]);
        }
        words.extend(binds[..volumes].iter().flat_map(|bind| ["-v", bind]));
        words.extend([
            image.as_str(),
            "sh",
            "-c",
            "cat /volumes/*; ls -d /sys/block/vd* | wc -l; cut -c 1-8 /proc/swaps",
        ]);
        world.coffer(&words)
    };
    let printed = run(Volume::MOST)?.ok()?;
    let mut lines = printed.lines();
    for index in 0..Volume::MOST {
        ensure!(lines.next() == Some(&format!("volume {index}")), "{printed}");
    }
    if monitor.has_machine() {
        // Root, spec, scratch.
        let disks = (Volume::MOST + 3).to_string();
        ensure!(lines.next() == Some(&disks), "{printed}");
        ensure!(lines.eq(["Filename", "/dev/dm-"]), "{printed}");
    }

    let refused = run(Volume::MOST + 1)?;
    ensure!(refused.status == 125 && refused.stderr.contains("a box has room for 16"), "{}", refused.describe());
    Ok(())
}

#[test]
fn a_spec_of_the_largest_size_boots_and_a_larger_one_is_refused_when_it_is_made() -> Result<()> {
    on_each(largest_spec)
}

fn largest_spec(monitor: Monitor) -> Result<()> {
    let world = World::on(monitor)?;
    let (_registry, image) = pulled(&world)?;
    let words = |last: usize| {
        let mut words: Vec<String> = vec!["--name".into(), "box".into()];
        words.extend(["--network", "none"].map(str::to_owned));
        // No argument of a program may have more than 128 KiB.
        for (name, length) in [("A", 100_000), ("B", 100_000), ("C", last)] {
            words.extend(["-e".into(), format!("{name}={}", "x".repeat(length))]);
        }
        words.extend([image.as_str(), "sh", "-c", "echo ${#A} ${#B} ${#C}"].map(str::to_owned));
        words
    };
    let coffer = |command: &str, words: &[String]| {
        let words: Vec<&str> = [command].into_iter().chain(words.iter().map(String::as_str)).collect();
        world.coffer(&words)
    };
    let short = coffer("spec", &words(1)[2..])?.ok()?.len();
    let last = DOCUMENT_LIMIT - short + 1;
    let exact = coffer("spec", &words(last)[2..])?.ok()?;
    ensure!(exact.len() == DOCUMENT_LIMIT, "{} bytes", exact.len());

    let finished = coffer("run", &words(last))?;
    ensure!(finished.stdout == format!("100000 100000 {last}\n"), "{}", finished.describe());
    world.coffer(&["rm", "box"])?.ok()?;
    for command in ["spec", "measure", "create"] {
        let from = if command == "create" { 0 } else { 2 };
        let refused = coffer(command, &words(last + 1)[from..])?;
        ensure!(refused.status != 0, "{command}: {}", refused.describe());
        let says = format!("workload spec has {} bytes, more than {DOCUMENT_LIMIT}", DOCUMENT_LIMIT + 1);
        ensure!(refused.stderr.contains(&says), "{command}: {}", refused.describe());
    }
    Ok(())
}
