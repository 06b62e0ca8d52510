//! The stories, each on a monitor: boot with a secret, attest, seal across a restart, tampering, many boxes at once.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::archive::Record;
use super::{Options, kept, word};
use crate::World;
use crate::demo::attack::changed_platform;
use crate::demo::story::{SECRET_PATH, kbs_admin, sha256, simulator_anchor};
use crate::image::busybox_layout;
use crate::process::{Finished, run, wait_for};
use crate::services::{Kbs, Registry};

/// One story; it says what it saw.
pub struct Story {
    pub name: &'static str,
    pub tell: fn(&Setting<'_>, &str, &Options, &mut Record) -> Result<String>,
}

/// In the order they are told. Each begins and ends without a box.
pub const ALL: [Story; 5] = [
    Story { name: "boot, attest, secret", tell: boot },
    Story { name: "seal across a restart", tell: seal },
    Story { name: "another initrd is refused", tell: other_initrd },
    Story { name: "another command is refused", tell: other_command },
    Story { name: "many boxes at once", tell: many },
];

const WORKLOAD: &str = "trap 'exit 0' TERM; sha256sum </run/secrets/password; while true; do sleep 1; done";
const SECRET: &str = "a secret of this run alone\n";
const NAME: &str = "hardware";

/// Registry, broker, image, and how boxes are asked for.
pub struct Setting<'a> {
    world: &'a World,
    kbs: Kbs,
    image: String,
    simulated: bool,
    owner: String,
    _registry: Registry,
}

impl<'a> Setting<'a> {
    /// Starts services and puts the secret.
    pub fn new(world: &'a World, simulated: bool) -> Result<Self> {
        let folder = world.folder.path();
        let layout = folder.join("layout");
        busybox_layout(&layout, "hardware", &[])?;
        let registry = Registry::start(folder)?;
        let image = registry.push(&layout, "hardware", "hardware:1")?;
        let mut extra = vec!["--tenant".to_owned(), "default".to_owned()];
        if simulated {
            let anchor = simulator_anchor(world)?;
            extra.extend(["--allow-simulated".to_owned(), anchor.display().to_string()]);
        }
        let kbs = Kbs::start(folder, &extra.iter().map(String::as_str).collect::<Vec<_>>())?;
        let put = ["secret", "put", SECRET_PATH, "--allow-simulated"];
        kbs_admin(world, &kbs, &put[..if simulated { 4 } else { 3 }], SECRET.as_bytes())?;
        world.coffer(&["owner", "init"])?.ok()?;
        let owner = folder.join("owner.pem");
        fs::write(&owner, world.coffer(&["owner", "show", "--pem"])?.ok()?)?;
        Ok(Self { world, kbs, image, simulated, owner: owner.display().to_string(), _registry: registry })
    }

    fn flags(&self, monitor: &str, command: &str) -> Vec<String> {
        let tee = if self.simulated { "--tee-simulate" } else { "--tee" };
        let secret = format!("password={SECRET_PATH}");
        [
            tee,
            "--isolation",
            monitor,
            "--owner",
            &self.owner,
            "--kbs",
            &self.kbs.address,
            "--kbs-pin",
            &self.kbs.pin,
            "--secret",
            &secret,
            "--host-may",
            "stop,stats,logs",
            &self.image,
            "sh",
            "-c",
            command,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// A command about a guest that proves itself.
    fn proving(&self, arguments: &[&str], input: &[u8], record: &mut Record) -> Result<Finished> {
        let mut all = arguments.to_vec();
        if self.simulated {
            all.insert(2, "--allow-simulated");
        }
        let finished = self.world.coffer_with(&all, input)?;
        record.typed(&finished)?;
        Ok(finished)
    }

    fn run(&self, name: &str, monitor: &str, command: &str, platform: &Path, record: &mut Record) -> Result<Finished> {
        let flags = self.flags(monitor, command);
        let mut typed = self.world.command(&["run", "-d", "--timing", "--name", name]);
        let finished = run(typed.env("COFFER_PLATFORM", platform).args(&flags), b"")?;
        record.typed(&finished)?;
        Ok(finished)
    }

    /// Whether a box can be launched through a monitor here at all; else why not.
    pub fn launches(&self, monitor: &str) -> Result<Result<(), String>> {
        let mut arguments = vec!["create".to_owned(), "--name".to_owned(), NAME.to_owned()];
        arguments.extend(self.flags(monitor, WORKLOAD));
        let finished = self.world.coffer(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
        self.clear();
        Ok(if finished.status == 0 { Ok(()) } else { Err(finished.stderr.trim().replace('\n', "; ")) })
    }

    /// No box is left.
    pub fn clear(&self) {
        for id in self.world.coffer(&["ps", "-aq"]).map(|list| list.stdout).unwrap_or_default().split_whitespace() {
            let _ = self.world.coffer(&["rm", "-f", id]);
        }
    }

    /// Lists what this launch measures at the broker.
    fn admit(&self, monitor: &str, record: &mut Record) -> Result<()> {
        let flags = self.flags(monitor, WORKLOAD);
        let mut measure = vec!["--json", "measure"];
        measure.extend(flags.iter().map(String::as_str));
        let measured = self.world.coffer(&measure)?;
        record.typed(&measured)?;
        let reference = measured.ok()?;
        let listed = ["reference", "add", "--from", "-", "--name", monitor];
        kbs_admin(self.world, &self.kbs, &listed, reference.as_bytes())?;
        Ok(())
    }

    fn started(&self, monitor: &str, record: &mut Record) -> Result<()> {
        self.run(NAME, monitor, WORKLOAD, &self.world.platform, record)?.ok()?;
        Ok(())
    }
}

fn boot(setting: &Setting<'_>, monitor: &str, _: &Options, record: &mut Record) -> Result<String> {
    setting.admit(monitor, record)?;
    setting.started(monitor, record)?;
    let mut log = String::new();
    let expected = sha256(SECRET.as_bytes());
    wait_for(Duration::from_secs(30), || {
        log = setting.world.coffer(&["logs", NAME]).map(|finished| finished.text()).unwrap_or_default();
        log.contains(&expected)
    })
    .with_context(|| format!("the workload did not print the digest of its secret, but:\n{log}"))?;
    let evidence = setting.world.folder.path().join("evidence.cmw");
    let out = evidence.display().to_string();
    let attested = setting.proving(&["--json", "attest", NAME, "--evidence-out", &out], b"", record)?;
    record.put(&format!("evidence-{monitor}.cmw"), &kept(&evidence))?;
    let value: serde_json::Value = serde_json::from_str(&attested.ok()?)?;
    Ok(format!("verdict {}", word(&value, "verdict")?))
}

fn seal(setting: &Setting<'_>, monitor: &str, _: &Options, record: &mut Record) -> Result<String> {
    setting.started(monitor, record)?;
    let (state, sealed) = (b"state that outlives the box", setting.world.folder.path().join("state.sealed"));
    let path = sealed.display().to_string();
    setting.proving(&["seal", NAME, "-o", &path], state, record)?.ok()?;
    let restarted = setting.world.coffer(&["restart", NAME])?;
    record.typed(&restarted)?;
    restarted.ok()?;
    let back = setting.proving(&["unseal", NAME, &path], b"", record)?.ok()?;
    ensure!(back.as_bytes() == state, "unsealed {back:?}");
    Ok(format!("{} bytes sealed", kept(&sealed).len()))
}

fn other_initrd(setting: &Setting<'_>, monitor: &str, _: &Options, record: &mut Record) -> Result<String> {
    let changed = setting.world.folder.path().join("changed");
    let changed = if changed.exists() { changed } else { changed_platform(&setting.world.platform, &changed, 1)? };
    refused(&setting.run(NAME, monitor, WORKLOAD, &changed, record)?)
}

fn other_command(setting: &Setting<'_>, monitor: &str, _: &Options, record: &mut Record) -> Result<String> {
    let command = "cat /run/secrets/password; sleep 60";
    refused(&setting.run(NAME, monitor, command, &setting.world.platform, record)?)
}

/// It ran, and the broker gave it nothing.
fn refused(finished: &Finished) -> Result<String> {
    ensure!(finished.status == 125, "expected status 125\n{}", finished.describe());
    ensure!(finished.text().contains("not-released"), "expected `not-released`\n{}", finished.describe());
    Ok("not-released".into())
}

fn many(setting: &Setting<'_>, monitor: &str, options: &Options, record: &mut Record) -> Result<String> {
    let names: Vec<_> = (0..options.boxes).map(|number| format!("{NAME}-{number}")).collect();
    let all = std::thread::scope(|scope| {
        let started: Vec<_> = names
            .iter()
            .map(|name| {
                scope.spawn(move || {
                    let mut typed = setting.world.command(&["run", "-d", "--memory", "256m", "--name", name]);
                    run(typed.args(setting.flags(monitor, WORKLOAD)), b"")
                })
            })
            .collect();
        started.into_iter().map(|one| one.join().expect("no panic in a start")).collect::<Vec<_>>()
    });
    for finished in all {
        let finished = finished?;
        record.typed(&finished)?;
        finished.ok()?;
    }
    let running = setting.world.coffer(&["ps", "-q"])?.ok()?.lines().count();
    ensure!(running == options.boxes, "{running} of {} run", options.boxes);
    Ok(format!("{running} boxes"))
}
