//! Real boots: what a box runs, what the host gets from it, and that nothing of it outlives its end.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use coffer_guest_proto::{
    ExecRequest, ExecStart, InjectRequest, LogsRequest, UnsealRequest, control_client::ControlClient, exec_request,
    owner_client::OwnerClient,
};
use coffer_ratls::Identity;
use coffer_runtime::{
    agent,
    owner_access::{self, GuestAppraiser, Place},
};
use coffer_tests::{
    World,
    image::pulled,
    monitors::{Monitor, on_each, on_each_machine},
    process::{Finished, run, wait_for},
    services::Registry,
};
use coffer_verifier::{EvidencePolicy, ExpectedGuest};
use serde_json::Value;

fn world_on(monitor: Monitor) -> Result<(World, Registry, String)> {
    let world = World::on(monitor)?;
    let (registry, image) = pulled(&world)?;
    Ok((world, registry, image))
}

fn boxes(world: &World) -> Result<Vec<Value>> {
    Ok(serde_json::from_str(&world.coffer(&["--json", "ps", "-a"])?.ok()?)?)
}

fn inspect(world: &World, name: &str) -> Result<Value> {
    let list: Value = serde_json::from_str(&world.coffer(&["inspect", name])?.ok()?)?;
    Ok(list[0].clone())
}

/// Processes of this world other than its registry.
fn running(world: &World) -> Result<Vec<String>> {
    let folder = world.folder.path().to_string_lossy().into_owned();
    let home = world.home().to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let path = entry.path();
        let Ok(command) = fs::read(path.join("cmdline")) else { continue };
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        // QEMU's working directory is the box folder; its arguments are relative.
        let at = fs::read_link(path.join("cwd")).map(|cwd| cwd.to_string_lossy().into_owned()).unwrap_or_default();
        // init in namespaces says nothing, and is nowhere; its lines to the host come from the box folder.
        let mounts = fs::read_to_string(path.join("mountinfo")).unwrap_or_default();
        if (command.contains(&folder) || at.starts_with(&home) || mounts.contains(&home))
            && !command.contains("docker-registry")
        {
            found.push(command);
        }
    }
    Ok(found)
}

fn expect_nothing_runs(world: &World) -> Result<()> {
    let outcome = wait_for(Duration::from_secs(10), || running(world).is_ok_and(|found| found.is_empty()));
    ensure!(outcome.is_ok(), "still running: {:#?}", running(world)?);
    Ok(())
}

fn kill_9(pid: &Value) -> Result<()> {
    let pid = pid.as_u64().with_context(|| format!("no pid: {pid}"))?;
    run(Command::new("kill").args(["-9", &pid.to_string()]), b"")?.ok().map(drop)
}

#[track_caller]
fn refused(finished: &Finished, word: &str) {
    assert!(matches!(finished.status, 6 | 125), "{}", finished.describe());
    assert!(finished.stderr.contains(word), "expected {word:?}\n{}", finished.describe());
}

/// Asks for everything on the plain ports, and over RA-TLS with a key the spec does not list. Gives the guest's words.
async fn ask_the_guest(folder: &Path, simulator: &Path) -> Result<Vec<String>> {
    let refused =
        |status: Option<tonic::Status>| status.map_or("let in".to_owned(), |status| status.message().to_owned());
    let mut words = Vec::new();
    let logs = agent::control(folder).await?.logs(LogsRequest::default()).await;
    words.push(refused(logs.err()));
    let start = ExecRequest {
        message: Some(exec_request::Message::Start(ExecStart { argv: vec!["id".into()], ..ExecStart::default() })),
    };
    let exec = agent::exec(folder).await?.run(tokio_stream::iter([start])).await;
    words.push(refused(exec.err()));

    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let appraiser = GuestAppraiser::new(
        coffer_runtime::simulator::anchors(simulator)?,
        EvidencePolicy::default_floor(),
        ExpectedGuest::WhateverThePolicyAdmits,
    );
    let stranger = Identity::generate("stranger")?;
    let connection = owner_access::connect(&Place::Box(folder.to_owned()), &stranger, Arc::new(appraiser)).await?;
    let logs = ControlClient::new(connection.channel()).logs(LogsRequest::default()).await;
    words.push(refused(logs.err()));
    let mut owner = OwnerClient::new(connection.channel());
    words.push(refused(owner.inject(InjectRequest::default()).await.err()));
    words.push(refused(owner.unseal(UnsealRequest::default()).await.err()));
    Ok(words)
}

#[test]
fn a_plain_box_gives_the_workloads_output_and_status() -> Result<()> {
    on_each(plain_box)
}

fn plain_box(monitor: Monitor) -> Result<()> {
    let (world, _registry, image) = world_on(monitor)?;
    let script = "echo out; echo err >&2; id -u; cat /etc/hostname; touch /new; ls /dev/vda /dev/mem 2>&1; exit 7";
    let setting = if monitor.has_machine() { "net.core.somaxconn=77" } else { "kernel.shmmni=77" };
    let words = ["run", "--rm", "--hostname", "inside", "--sysctl", setting, &image, "sh", "-c"];
    let script = format!("cat /proc/sys/{} >&2; {script}", setting.trim_end_matches("=77").replace('.', "/"));
    let finished = world.coffer(&[&words[..], &[script.as_str()]].concat())?;
    assert!(finished.stderr.starts_with("77\n"), "{}", finished.describe());
    assert_eq!(finished.status, 7, "{}", finished.describe());
    assert!(finished.stdout.starts_with("out\n0\ninside\n"), "{}", finished.describe());
    assert!(finished.stderr.contains("err"), "{}", finished.describe());
    assert!(!finished.stdout.lines().any(|line| line == "/dev/vda" || line == "/dev/mem"), "{}", finished.describe());
    let missing = world.coffer(&["run", "--rm", &image, "/nosuch"])?;
    assert_eq!(missing.status, 127, "{}", missing.describe());
    assert_eq!(boxes(&world)?.len(), 0);
    expect_nothing_runs(&world)
}

#[test]
fn a_box_of_the_least_memory_runs_a_program_and_what_is_executed_beside_it() -> Result<()> {
    on_each_machine(least_memory)
}

fn least_memory(monitor: Monitor) -> Result<()> {
    const LEAST: [&str; 2] = ["--memory", "128m"];
    let (world, _registry, image) = world_on(monitor)?;
    for tee in [&["--network", "user"][..], &["--tee-simulate", "--host-may", "stop,logs,exec"]] {
        let words = [&["run", "-d", "--name", "small"], &LEAST[..], tee, &[&image, "sleep", "600"]].concat();
        world.coffer(&words)?.ok()?;
        let script = "head -c 4000000 /dev/zero >/tmp/written; wc -c </tmp/written";
        assert_eq!(world.coffer(&["exec", "small", "sh", "-c", script])?.ok()?, "4000000\n");
        let output = world.coffer(&["exec", "small", "head", "-c", "10000000", "/dev/zero"])?.ok()?;
        assert_eq!(output.len(), 10_000_000);
        world.coffer(&["rm", "-f", "small"])?.ok()?;
    }
    // What needs more says so by name, before there is a box.
    let refused = world.coffer(&[&["run", "--rm"], &LEAST[..], &["--scratch", "256m", &image, "true"]].concat())?;
    assert_eq!(refused.status, 125, "{}", refused.describe());
    for word in ["scratch disk", "144 MiB"] {
        assert!(refused.stderr.contains(word), "{}", refused.describe());
    }
    Ok(())
}

/// What box one wrote, from an overlay of the guest's own kernel.
fn written_is_listed_and_committed(world: &World) -> Result<()> {
    world.coffer(&["exec", "one", "sh", "-c", "echo new >/new; rm /etc/passwd; rm -r /lib64"])?.ok()?;
    let listed = world.coffer(&["diff", "one"])?.ok()?;
    assert!(listed.contains("A /new\n") && listed.contains("C /etc\nD /etc/passwd\nD /lib64\n"), "{listed}");
    let exported = world.folder.path().join("one.tar").display().to_string();
    world.coffer(&["export", "-o", &exported, "one"])?.ok()?;
    let names = run(Command::new("tar").args(["-tf", &exported]), b"")?.ok()?;
    assert!(names.contains("\nnew\n") && !names.contains("etc/passwd"), "{names}");
    let id = world.coffer(&["commit", "one", "written:1"])?.ok()?;
    assert!(id.starts_with("sha256:"), "{id}");
    Ok(())
}

/// Box one, while box two goes on.
fn held_and_let_go(world: &World) -> Result<()> {
    world.coffer(&["pause", "one"])?.ok()?;
    let held = inspect(world, "one")?;
    assert_eq!((&held["State"]["Status"], &held["State"]["Paused"]), (&"paused".into(), &true.into()), "{held:#}");
    let refused = world.coffer(&["exec", "one", "true"])?;
    assert!(refused.status == 125 && refused.stderr.contains("box one is paused"), "{}", refused.describe());
    assert_eq!(world.coffer(&["exec", "two", "echo", "beside it"])?.ok()?, "beside it\n");
    world.coffer(&["unpause", "one"])?.ok()?;
    assert_eq!(world.coffer(&["exec", "one", "echo", "goes on"])?.ok()?, "goes on\n");
    Ok(())
}

/// What only the guest could answer is not waited for while it is held.
fn held_is_said(world: &World, name: &str) -> Result<()> {
    world.coffer(&["pause", name])?.ok()?;
    for words in [&["logs"][..], &["logs", "-f"], &["top"]] {
        let refused = world.coffer(&[words, &["--allow-simulated", name]].concat())?;
        assert_eq!(refused.status, 3, "{}", refused.describe());
        for said in ["is paused", "hint: let it go on with `coffer unpause"] {
            assert!(refused.stderr.contains(said), "{}", refused.describe());
        }
    }
    world.coffer(&["unpause", name])?.ok()?;
    world.coffer(&["logs", name, "--allow-simulated"])?.ok().map(drop)
}

#[test]
fn two_boxes_at_once_survive_nothing_but_tell_the_truth() -> Result<()> {
    on_each(two_at_once)
}

fn two_at_once(monitor: Monitor) -> Result<()> {
    let (world, _registry, image) = world_on(monitor)?;
    for name in ["one", "two"] {
        world.coffer(&["run", "-d", "--name", name, &image, "sleep", "600"])?.ok()?;
    }
    let list = boxes(&world)?;
    assert_eq!(list.len(), 2);
    assert!(list.iter().all(|each| each["state"] == "running"), "{list:#?}");
    let (one, two) = (inspect(&world, "one")?, inspect(&world, "two")?);
    let echoed = world.coffer(&["exec", "one", "echo", "from inside"])?.ok()?;
    assert_eq!(echoed, "from inside\n");
    written_is_listed_and_committed(&world)?;

    if monitor.has_machine() {
        held_and_let_go(&world)?;
    } else {
        let refused = world.coffer(&["pause", "one"])?;
        assert!(refused.status == 4 && refused.stderr.contains("isolation process"), "{}", refused.describe());
    }

    kill_9(&one["State"]["Pid"])?;
    kill_9(&two["State"]["SupervisorPid"])?;
    wait_for(Duration::from_secs(10), || {
        boxes(&world).is_ok_and(|list| list.iter().all(|each| each["state"] == "exited"))
    })?;
    for (name, word) in [("one", monitor.name), ("two", "supervisor")] {
        let record = inspect(&world, name)?;
        assert_eq!(record["State"]["ExitCode"], 137, "{record:#}");
        let error = record["State"]["Error"].as_str().unwrap_or_default();
        assert!(error.contains(word), "{name}: {error}");
    }
    expect_nothing_runs(&world)?;

    world.coffer(&["start", "one"])?.ok()?;
    assert_eq!(world.coffer(&["exec", "one", "echo", "again"])?.ok()?, "again\n");
    world.coffer(&["rm", "-f", "one", "two"])?.ok()?;
    assert_eq!(fs::read_dir(world.home().join("boxes"))?.count(), 0);
    expect_nothing_runs(&world)
}

#[test]
fn a_box_in_the_foreground_ends_with_its_command() -> Result<()> {
    on_each(in_the_foreground)
}

fn in_the_foreground(monitor: Monitor) -> Result<()> {
    let (world, _registry, image) = world_on(monitor)?;
    let mut command = world.command(&["run", "--name", "front", &image, "sh", "-c", "echo up; sleep 600"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    wait_for(Duration::from_mins(1), || {
        world.coffer(&["logs", "front"]).is_ok_and(|finished| finished.stdout.contains("up"))
    })?;
    child.kill()?;
    child.wait()?;
    wait_for(Duration::from_secs(30), || {
        boxes(&world).is_ok_and(|list| list.iter().all(|each| each["state"] == "exited"))
    })?;
    expect_nothing_runs(&world)
}

#[test]
fn a_start_that_somebody_ends_is_no_box_that_runs() -> Result<()> {
    on_each_machine(ended_while_it_starts)
}

fn ended_while_it_starts(monitor: Monitor) -> Result<()> {
    let (world, _registry, image) = world_on(monitor)?;
    world.coffer(&["create", "--name", "early", &image, "sleep", "600"])?.ok()?;
    let ended = |start: &[&str], end: &dyn Fn(u32) -> Result<()>| -> Result<Finished> {
        let mut command = world.command(start);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        // Recorded as running is a box once its monitor runs, seconds before its workload.
        let up = || boxes(&world).is_ok_and(|list| list.iter().any(|each| each["state"] == "running"));
        wait_for(Duration::from_secs(30), up)?;
        end(child.id())?;
        let output = child.wait_with_output()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let status = output.status.code().context("an exit code")?;
        Ok(Finished { status, stdout: text(output.stdout), stderr: text(output.stderr), command: start.join(" ") })
    };
    let why = "was stopped before its workload ran";
    let interrupt = |pid: u32| run(Command::new("kill").args(["-INT", &pid.to_string()]), b"")?.ok().map(drop);
    let finished = ended(&["start", "early"], &interrupt)?;
    assert_eq!((finished.status, finished.stdout.as_str()), (125, ""), "{}", finished.describe());
    assert!(finished.stderr.contains(why), "{}", finished.describe());

    let finished = ended(&["--json", "start", "early"], &|_| world.coffer(&["stop", "early"])?.ok().map(drop))?;
    let document: Value = serde_json::from_str(&finished.stdout)?;
    assert_eq!((finished.status, &document["error"]["class"]), (125, &"config".into()), "{document:#}");
    assert!(document["boxes"][0]["error"]["message"].as_str().is_some_and(|text| text.contains(why)), "{document:#}");
    assert_eq!(inspect(&world, "early")?["State"]["ExitCode"], 125);

    let remove = |_: u32| world.coffer(&["rm", "-f", "gone"])?.ok().map(drop);
    let finished = ended(&["run", "-d", "--name", "gone", &image, "sleep", "600"], &remove)?;
    assert_eq!((finished.status, finished.stdout.as_str()), (125, ""), "{}", finished.describe());
    assert!(finished.stderr.contains(why), "{}", finished.describe());
    expect_nothing_runs(&world)
}

#[test]
fn the_host_gets_from_a_tee_box_what_its_spec_says_and_no_more() -> Result<()> {
    on_each(what_the_host_gets)
}

fn what_the_host_gets(monitor: Monitor) -> Result<()> {
    let (world, _registry, image) = world_on(monitor)?;
    let other = World::new()?;
    other.coffer(&["owner", "init"])?.ok()?;
    let key = other.home().join("owner/cert.pem");
    let key = key.to_str().context("plain names")?;
    world.coffer(&["owner", "init"])?.ok()?;
    let script = "echo the workload speaks; sleep 600";
    world
        .coffer(&["run", "-d", "--name", "theirs", "--tee-simulate", "--owner", key, &image, "sh", "-c", script])?
        .ok()?;

    // The commands say so before they ask.
    for arguments in [&["exec", "theirs", "--allow-simulated", "id"][..], &["logs", "theirs", "--allow-simulated"]] {
        refused(&world.coffer(arguments)?, "neither the host nor the local owner");
    }
    // A host that asks the guest itself, and a stranger with a key of his own, are refused by the guest.
    let folder = PathBuf::from(inspect(&world, "theirs")?["Folder"].as_str().context("a folder")?);
    let words = tokio::runtime::Runtime::new()?.block_on(ask_the_guest(&folder, &world.home().join("sim")))?;
    assert_eq!(
        words,
        ["host-may-not:logs", "host-may-not:exec", "owner-not-listed", "owner-not-listed", "owner-not-listed"]
    );

    // The console, which the host reads, has fixed words only.
    let console = fs::read_to_string(folder.join("console.log"))?;
    assert!(!console.contains("the workload speaks"), "{console}");
    assert_eq!(world.console_words("theirs")?, ["running"], "{console}");
    let log = fs::read_to_string(folder.join("log.jsonl")).unwrap_or_default();
    assert!(!log.contains("the workload speaks"), "{log}");

    // Simulated evidence counts only for who says so.
    let strict = world.coffer(&["attest", "theirs"])?;
    assert_eq!(strict.status, 5, "{}", strict.describe());
    assert!(strict.stdout.contains("untrusted-root"), "{}", strict.describe());
    let value: Value =
        serde_json::from_str(&world.coffer(&["--json", "attest", "theirs", "--allow-simulated"])?.ok()?)?;
    assert_eq!((&value["verdict"], &value["simulated"]), (&"accepted".into(), &true.into()));

    // What was measured is what files alone predict.
    let mut measure = vec!["--json", "measure", "--tee-simulate", "--owner", key, &image];
    measure.extend(["sh", "-c", script]);
    let predicted: Value = serde_json::from_str(&world.coffer(&measure)?.ok()?)?;
    assert_eq!(predicted["measurement"], value["claims"]["report"]["measurement"]);
    assert_eq!(predicted["host_data"], value["claims"]["report"]["host_data"]);

    // Timings of every phase are kept.
    let timings = inspect(&world, "theirs")?["Timings"].to_string();
    for phase in ["launched", "booted", "spec-checked", "root-ready", "agent-ready", "running"] {
        assert!(timings.contains(phase), "{timings}");
    }
    world.coffer(&["rm", "-f", "theirs"])?.ok()?;
    expect_nothing_runs(&world)
}

#[test]
fn an_owner_gets_in_after_the_guest_has_proved_itself() -> Result<()> {
    on_each(an_owner_gets_in)
}

fn an_owner_gets_in(monitor: Monitor) -> Result<()> {
    let (world, _registry, image) = world_on(monitor)?;
    let script = "trap 'exit 0' TERM; echo mine; while true; do sleep 1; done";
    world
        .coffer(&["run", "-d", "--name", "mine", "--tee-simulate", "--inject", "note", &image, "sh", "-c", script])?
        .ok()?;
    let owner = |arguments: &[&str]| world.coffer(&[arguments, &["--allow-simulated"]].concat());
    assert_eq!(owner(&["logs", "mine"])?.ok()?, "mine\n");
    let inside =
        world.coffer(&["exec", "--allow-simulated", "mine", "sh", "-c", "id -u; ls /dev/sev-guest /dev/mem"])?;
    assert!(inside.stdout.starts_with("0\n"), "{}", inside.describe());
    assert_ne!(inside.status, 0, "{}", inside.describe());
    // Without the flag nothing is sent into a guest that nobody vouches for.
    let strict = world.coffer(&["exec", "mine", "id"])?;
    assert_eq!(strict.status, 125, "{}", strict.describe());

    let wrong = world.coffer_with(&["inject-secret", "mine", "--secret", "other=-", "--allow-simulated"], b"value")?;
    refused(&wrong, "other");
    world.coffer_with(&["inject-secret", "mine", "--secret", "note=-", "--allow-simulated"], b"value")?.ok()?;
    let read = world.coffer(&["exec", "--allow-simulated", "mine", "cat", "/run/secrets/note"])?.ok()?;
    assert_eq!(read, "value");

    if monitor.has_machine() {
        held_is_said(&world, "mine")?;
    }

    // What one workload sealed, another on the same platform and chip does not open.
    let sealed = world.folder.path().join("sealed");
    let path = sealed.to_str().context("plain names")?;
    world.coffer_with(&["seal", "mine", "--allow-simulated", "-o", path], b"state")?.ok()?;
    world.coffer(&["run", "-d", "--name", "another", "--tee-simulate", &image, "sh", "-c", "sleep 600"])?.ok()?;
    let other = world.coffer(&["unseal", "another", "--allow-simulated", path])?;
    assert_ne!(other.status, 0, "{}", other.describe());
    assert!(other.stderr.contains("does not open"), "{}", other.describe());
    assert_eq!(world.coffer(&["unseal", "mine", "--allow-simulated", path])?.ok()?, "state");

    world.coffer(&["stop", "mine"])?.ok()?;
    assert_eq!(inspect(&world, "mine")?["State"]["ExitCode"], 0);
    world.coffer(&["rm", "-f", "mine", "another"])?.ok()?;
    expect_nothing_runs(&world)
}
