//! The story itself.

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::{
    attack::{changed_platform, forged_host_data, replayed_evidence},
    screen::Screen,
    upgrade, web,
};
use crate::{
    World,
    image::busybox_layout,
    monitors::Monitor,
    process::{Finished, run, wait_for},
    services::{Kbs, Registry},
};

/// Where the secret lies at the key broker.
pub const SECRET_PATH: &str = "kbs:///demo/app/password";

/// What the workload runs: it prints digests of what it was given, never the values.
pub const WORKLOAD: &str = "trap 'exit 0' TERM
echo secret $(sha256sum </run/secrets/password)
while [ ! -f /run/secrets/note ]; do sleep 1; done
echo note $(sha256sum </run/secrets/note)
while true; do sleep 1; done";

/// Tells the story, on this monitor or on whichever `coffer` chooses.
///
/// # Errors
/// The first step that did not go as told.
pub fn tell(monitor: Option<Monitor>) -> Result<()> {
    let mut screen = Screen::new();
    println!(
        "Coffer demo: a secret for one workload, on a machine its owner does not trust. Secure processor: SIMULATED.\n"
    );
    let world = monitor.map_or_else(World::new, World::on)?;
    let folder = world.folder.path().to_owned();

    let (layout, server) = screen.step("build an OCI image from busybox-static", || {
        let layout = folder.join("layout");
        let server = web::Server::found()?;
        let files: Vec<_> = server.files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
        busybox_layout(&layout, "demo", &files)?;
        let note = format!("with {}", server.name);
        Ok(((layout, server), note))
    })?;
    let registry = Registry::start(&folder)?;
    let image = screen.step("push it to a docker-registry on loopback", || {
        let image = registry.push(&layout, "demo", "demo:1")?;
        Ok((image.clone(), image))
    })?;
    screen.step("coffer pull", || {
        world.coffer(&["pull", &image])?.ok()?;
        Ok(((), String::new()))
    })?;

    let anchor = simulator_anchor(&world)?;
    let anchor = anchor.to_str().context("temporary folders have plain names")?;
    let mut kbs = screen.step("start the key broker; it lists this simulator's anchor", || {
        let kbs = Kbs::start(&folder, &["--allow-simulated", anchor, "--tenant", "default"])?;
        let note = format!("{} pin {}…", kbs.address, &kbs.pin[..16]);
        Ok((kbs, note))
    })?;

    let box_flags = run_flags(&kbs, &image);
    let flags: Vec<&str> = box_flags.iter().map(String::as_str).collect();
    let secret = "correct horse battery staple\n";
    let secret_digest = sha256(secret.as_bytes());
    screen.step("put a secret, and list the measurement that may have it", || {
        kbs_admin(&world, &kbs, &["secret", "put", SECRET_PATH, "--allow-simulated"], secret.as_bytes())?;
        let mut measure = vec!["--json", "measure"];
        measure.extend(&flags);
        let reference = world.coffer(&measure)?.ok()?;
        kbs_admin(&world, &kbs, &["reference", "add", "--from", "-", "--name", "demo"], reference.as_bytes())?;
        let value: serde_json::Value = serde_json::from_str(&reference)?;
        let measurement = value["measurement"].as_str().context("measure prints a measurement")?;
        Ok(((), format!("measurement {}…", &measurement[..16])))
    })?;

    screen.step("coffer run -d --tee-simulate: boots, attests, gets the secret", || {
        let mut arguments = vec!["run", "-d", "--name", "demo", "--timing"];
        arguments.extend(&flags);
        let finished = world.coffer(&arguments)?;
        let text = finished.stderr.clone();
        finished.ok()?;
        if std::env::var_os("COFFER_DEMO_VERBOSE").is_some() {
            println!("{text}");
        }
        Ok(((), String::new()))
    })?;
    screen.step("the workload printed the SHA-256 of what it read", || {
        expect_log(&world, &format!("secret {secret_digest}"))?;
        Ok(((), format!("{}…", &secret_digest[..16])))
    })?;

    let evidence = folder.join("evidence.cmw");
    screen.step("coffer attest --explain", || {
        let to = ["--allow-simulated", "--evidence-out", plain(&evidence)?];
        let text = world.coffer(&[&["attest", "demo", "--explain"], &to[..]].concat())?.ok()?;
        println!("{}", indent(&shorten(&text)));
        Ok(((), String::new()))
    })?;
    screen.step("inject-secret as owner; its SHA-256 printed inside", || {
        let note = b"injected by its owner";
        world.coffer_with(&["inject-secret", "demo", "--secret", "note=-", "--allow-simulated"], note)?.ok()?;
        expect_log(&world, &format!("note {}", sha256(note)))?;
        Ok(((), format!("{}…", &sha256(note)[..16])))
    })?;
    let sealed = folder.join("state.sealed");
    let state = b"state that outlives the box".to_vec();
    screen.step("seal, restart the box, unseal: the same bytes", || {
        let path = plain(&sealed)?;
        world.coffer_with(&["seal", "demo", "--allow-simulated", "-o", path], &state)?.ok()?;
        world.coffer(&["restart", "demo"])?.ok()?;
        let back = world.coffer(&["unseal", "demo", "--allow-simulated", path])?.ok()?;
        ensure!(back.as_bytes() == state, "unsealed {back:?}");
        let file = fs::read(&sealed)?;
        ensure!(!contains(&file, &state), "the sealed file shows its contents");
        Ok(((), format!("{} bytes sealed", file.len())))
    })?;

    let site =
        screen.step("a web server in a box of its own, behind the ingress", || web::serve(&world, &image, &server))?;
    screen.step("coffer connect: an attested client reads its page", || Ok(((), site.read(&world)?)))?;

    println!("\nNow the host turns hostile.\n");
    let changed = changed_platform(&world.platform, &folder.join("changed"), 1)?;
    let told = Cell::new(0);
    let run_refused = |name: &str, platform: &Path, words: &[&str]| -> Result<Finished> {
        let mut command = world.command(&["run", "-d", "--name", name]);
        command.env("COFFER_PLATFORM", platform).args(words);
        let finished = run(&mut command, b"")?;
        ensure!(finished.status == 125, "expected status 125\n{}", finished.describe());
        ensure!(finished.text().contains("not-released"), "expected `not-released`\n{}", finished.describe());
        Ok(finished)
    };
    screen.attack("a changed initrd", || {
        run_refused("changed-initrd", &changed, &flags)?;
        reason(&kbs, &told, "measurement")
    })?;
    screen.attack("a changed workload command", || {
        let mut words = flags.clone();
        *words.last_mut().context("flags end in the command")? = "cat /run/secrets/password; sleep 60";
        run_refused("changed-command", &world.platform, &words)?;
        reason(&kbs, &told, "workload")
    })?;
    screen.attack("the right HOST_DATA on a changed platform", || {
        forged_host_data(&world, &kbs, &changed, &evidence)?;
        reason(&kbs, &told, "measurement")
    })?;
    screen.attack("evidence replayed from the first connection", || {
        replayed_evidence(&kbs, &evidence)?;
        reason(&kbs, &told, "REPORT_DATA")
    })?;
    screen.attack("a client led to another guest than the one it named", || site.another(&world, &flags))?;

    println!("\nThen a new release of the platform comes.\n");
    screen.step("seal, admit both, reseal, revoke the old: data moves over", || {
        upgrade::carry_over(&world, &kbs, &flags, &state)
    })?;

    screen.step("stop everything", || {
        world.coffer(&["rm", "-f", "demo", "next", "web"])?.ok()?;
        kbs.stop();
        let left = leftovers(&folder)?;
        ensure!(left.is_empty(), "still running: {left:#?}");
        Ok(((), "nothing runs on".into()))
    })?;
    drop(registry);
    drop(world);
    ensure!(!folder.exists(), "{} is still there", folder.display());
    let machine = monitor.is_none_or(|monitor| monitor.has_machine());
    screen.finish(if machine { "a microVM" } else { "namespaces" });
    Ok(())
}

/// Flags of the demo's box, image and command included; the same for `measure` and `run`.
pub fn run_flags(kbs: &Kbs, image: &str) -> Vec<String> {
    [
        "--tee-simulate",
        "--kbs",
        &kbs.address,
        "--kbs-pin",
        &kbs.pin,
        "--secret",
        &format!("password={SECRET_PATH}"),
        "--inject",
        "note",
        "--host-may",
        "stop,stats,logs",
        image,
        "sh",
        "-c",
        WORKLOAD,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Makes the simulator installation of this home and gives the file of its root certificate.
///
/// # Errors
/// If `coffer sim init` fails.
pub fn simulator_anchor(world: &World) -> Result<PathBuf> {
    let text = world.coffer(&["--json", "sim", "init", "--product", "milan"])?.ok()?;
    let value: serde_json::Value = serde_json::from_str(&text)?;
    let path = value["anchors"][0]["ark"].as_str().with_context(|| format!("sim init names no ark file: {text}"))?;
    Ok(path.into())
}

/// Runs a command of `coffer kbs` as this broker's administrator.
///
/// # Errors
/// If it fails.
pub fn kbs_admin(world: &World, kbs: &Kbs, arguments: &[&str], input: &[u8]) -> Result<String> {
    let mut command = world.command(&["kbs", "--profile"]);
    command.arg(&kbs.profile).args(arguments);
    run(&mut command, input)?.ok()
}

fn expect_log(world: &World, line: &str) -> Result<()> {
    let mut last = String::new();
    wait_for(Duration::from_secs(30), || {
        last = world.coffer(&["logs", "demo"]).map(|finished| finished.text()).unwrap_or_default();
        last.contains(line)
    })
    .with_context(|| format!("expected {line:?} in the log, found:\n{last}"))
}

/// The key broker's own reason for its last refusal, which must speak of `word`.
fn reason(kbs: &Kbs, told: &Cell<usize>, word: &str) -> Result<String> {
    let refusals = || -> Vec<String> {
        kbs.log().lines().filter(|line| line.contains("\"outcome\":\"refused\"")).map(str::to_owned).collect()
    };
    // Refusals of strangers are summed, and written within a second.
    wait_for(Duration::from_secs(10), || refusals().len() > told.get()).context("the key broker logged no refusal")?;
    let all = refusals();
    told.set(all.len());
    let refusal = all.last().context("the key broker logged no refusal")?;
    ensure!(refusal.contains(word), "refused, but not for its {word}: {refusal}");
    let first = serde_json::from_str::<serde_json::Value>(refusal).ok().and_then(|value| {
        let reasons: Vec<&str> = value["reasons"].as_array()?.iter().filter_map(serde_json::Value::as_str).collect();
        // The broker gives every reason; this one says it for people.
        reasons
            .iter()
            .find_map(|reason| reason.strip_prefix("reference: "))
            .or(reasons.first().copied())
            .map(str::to_owned)
    });
    let detail = || refusal.split_once("detail=").map(|(_, detail)| detail.trim_matches('"').to_owned());
    Ok(shorten(&first.or_else(detail).unwrap_or_else(|| refusal.clone())))
}

/// Cuts long hexadecimal words, which nobody reads.
fn shorten(text: &str) -> String {
    let cut = |word: &str| {
        let is_hex = word.len() > 24 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hex { format!("{}…", &word[..12]) } else { word.to_owned() }
    };
    let mut out = String::new();
    for piece in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let end = piece.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).len();
        out.push_str(&cut(&piece[..end]));
        out.push_str(&piece[end..]);
    }
    out
}

/// Processes whose command line names the scratch folder.
fn leftovers(folder: &Path) -> Result<Vec<String>> {
    let output = run(Command::new("ps").args(["-eo", "pid,args"]), b"")?.ok()?;
    let folder = folder.to_string_lossy();
    let registry = "docker-registry";
    Ok(output.lines().filter(|line| line.contains(&*folder) && !line.contains(registry)).map(str::to_owned).collect())
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// A name of a file that goes into arguments.
pub(super) fn plain(path: &Path) -> Result<&str> {
    path.to_str().context("temporary folders have plain names")
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("          | {line}")).collect::<Vec<_>>().join("\n")
}
