//! Both guest kernels boot, and a workload on either is attested and sees the same machine: Debian's, and our own where
//! `make kernel` has built it.

use anyhow::{Context, Result, ensure};
use coffer_tests::{World, image::busybox_layout, process::wait_for, services::Registry};
use serde_json::Value;

/// What a workload may rely on, each on a line of its own. The kernel's release comes first: it alone differs.
const WORKLOAD: &str = "uname -r
echo written >/new && cat /new
echo root $(df / | grep -c overlay) shm $(df /dev/shm | grep -c /dev/shm)
echo secrets $(grep -c ' /run/secrets tmpfs ro,' /proc/mounts)
echo namespaces $(ls /proc/self/ns | tr '\\n' ' ')
echo seccomp $(grep Seccomp: /proc/self/status | cut -f 2)
echo controllers $(cut -f 1 /proc/cgroups | grep -E '^(cpu|memory|pids|cpuset|blkio)$' | wc -l)
echo loopback $(grep -c 'lo$' /proc/net/if_inet6)
echo swaps $(head -n 1 /proc/swaps | cut -c 1-8)
echo verity $(cat /sys/block/dm-0/dm/name)
dd if=/bin/busybox bs=64k of=/dev/null 2>/dev/null && echo read
sleep 600";

/// Runs the workload as a simulated TEE, attests it, and gives the release and what else it printed.
fn attested_workload(world: &World) -> Result<(String, Vec<String>)> {
    let layout = world.folder.path().join("layout");
    busybox_layout(&layout, "t", &[])?;
    let registry = Registry::start(world.folder.path())?;
    let image = registry.push(&layout, "t", "app:1")?;
    world.coffer(&["owner", "init"])?.ok()?;
    let what = ["--tee-simulate", "--vcpus", "2", &image, "sh", "-c", WORKLOAD];
    let run = [&["run", "-d", "--name", "box", "--timing"][..], &what].concat();
    let started = world.coffer(&run)?;
    eprintln!("{}", started.stderr);
    started.ok()?;

    let attested = world.coffer(&["--json", "attest", "box", "--allow-simulated"])?.ok()?;
    let attested: Value = serde_json::from_str(&attested)?;
    let predicted = world.coffer(&[&["--json", "measure"][..], &what].concat())?.ok()?;
    let predicted: Value = serde_json::from_str(&predicted)?;
    ensure!(attested["verdict"] == "accepted", "{attested:#}");
    ensure!(attested["claims"]["report"]["measurement"] == predicted["measurement"], "{predicted:#}\n{attested:#}");

    let mut printed = String::new();
    wait_for(std::time::Duration::from_secs(30), || {
        printed = world.coffer(&["logs", "box", "--allow-simulated"]).map(|done| done.text()).unwrap_or_default();
        printed.lines().any(|line| line == "read")
    })
    .with_context(|| format!("the workload printed:\n{printed}"))?;
    world.coffer(&["rm", "-f", "box"])?.ok()?;
    let mut lines = printed.lines().map(str::to_owned);
    Ok((lines.next().context("a release")?, lines.collect()))
}

/// The same on every kernel.
fn expect_the_machine(printed: &[String]) {
    let expected = [
        "written",
        "root 1 shm 1",
        "secrets 1",
        "namespaces cgroup ipc mnt net pid pid_for_children time time_for_children user uts",
        "seccomp 2",
        "controllers 5",
        "loopback 1",
        "swaps Filename",
        "verity coffer-root",
        "read",
    ];
    assert_eq!(printed, expected);
}

#[test]
fn debians_kernel_runs_an_attested_workload() -> Result<()> {
    let (release, printed) = attested_workload(&World::new()?)?;
    assert!(release.ends_with("-cloud-amd64"), "{release}");
    expect_the_machine(&printed);
    Ok(())
}

#[test]
fn our_own_kernel_runs_the_same_where_it_is_built() -> Result<()> {
    let mut world = World::new()?;
    let own = world.platform.with_file_name("platform-own");
    if !own.join("platform.json").exists() {
        eprintln!("skipped: our own kernel is not built; `make kernel` builds it");
        return Ok(());
    }
    world.platform = own;
    let (release, printed) = attested_workload(&world)?;
    assert!(release.ends_with("-coffer"), "{release}");
    expect_the_machine(&printed);
    Ok(())
}
