//! A workload that takes all it can get takes nothing from the agent, which goes on to prove what the guest is and to end it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use coffer_tests::{World, image::pulled, monitors::on_each_machine, process::wait_for};

/// What it does, said in its output once it has come to its limit.
const GREED: [(&str, &str); 3] = [
    // Processes: children that stay, of a program that tries again and again.
    (
        "fork",
        r#"exec busybox awk 'BEGIN { while (1) if (system("sleep 600 &") && !said) { said = 1; print "at the limit"; fflush() } }'"#,
    ),
    // Memory: the kernel ends the program that takes it, and the shell lives.
    ("memory", "tail /dev/zero; echo at the limit; exec sleep 600"),
    // The writable layer, and with it memory.
    ("disk", "cat /dev/zero >/greed; echo at the limit; exec sleep 600"),
];

#[test]
fn a_greedy_workload_leaves_the_agent_what_it_needs() -> Result<()> {
    on_each_machine(|monitor| {
        let world = World::on(monitor)?;
        let (_registry, image) = pulled(&world)?;
        for (name, script) in GREED {
            world
                .coffer(&["run", "-d", "--name", name, "-m", "256m", "--tee-simulate", &image, "sh", "-c", script])?
                .ok()?;
            let said = || world.coffer(&["logs", name, "--allow-simulated"]).map(|it| it.text()).unwrap_or_default();
            wait_for(Duration::from_secs(40), || said().contains("at the limit")).with_context(|| {
                format!(
                    "{name}: {}\n{}",
                    said(),
                    world.coffer(&["inspect", name]).map(|it| it.text()).unwrap_or_default()
                )
            })?;
            for _ in 0..3 {
                world.coffer(&["attest", name, "--allow-simulated"])?.ok()?;
            }
            world.coffer(&["top", name, "--allow-simulated"])?.ok()?;
            // Whatever its programs do makes the kernel say nothing to the host.
            let words = world.console_words(name)?;
            ensure!(words.last().is_some_and(|word| word == "running"), "{name}: {words:?}");
            let ended = world.coffer(&["stop", "-t", "1", name])?;
            ensure!(ended.status == 0, "{name}: {}", ended.describe());
            world.coffer(&["rm", "-f", name])?.ok()?;
        }
        Ok(())
    })
}
