//! `coffer-hardware`: what the first person with an SEV-SNP host runs, and sends back.
//!
//! Looks at the host, goes through the stories on each monitor, and writes one archive: what was typed and printed, reports,
//! certificates, versions. A story that fails is written down and the next one is told. With a simulated processor the same
//! road is a test.
//! Never: puts a key, a secret or a broker's state into the archive.

mod archive;
mod stories;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::World;
use crate::process::run;
use archive::Record;

/// What is run, and where it goes.
#[derive(Clone, Debug)]
pub struct Options {
    /// The simulator in the processor's place.
    pub simulated: bool,
    /// Boxes at once, in the last story.
    pub boxes: usize,
    /// The archive.
    pub out: PathBuf,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every story went as told on at least one monitor, and none failed.
    Passed,
    /// One did not.
    Failed,
    /// The host cannot launch anything; it was looked at.
    NoHardware,
}

/// Monitors, by the word of `--isolation`.
const MONITORS: [&str; 2] = ["qemu", "kvm"];

/// Runs everything and writes the archive, whatever comes of it.
///
/// # Errors
/// If the archive cannot be written, or Coffer was not built.
pub fn tell(options: &Options) -> Result<Verdict> {
    let world = World::new()?;
    let mut record = Record::new(world.folder.path().join("coffer-hardware"))?;
    own_certificates(&world)?;
    let verdict = all(options, &world, &mut record)?;
    record.put(
        "results.json",
        serde_json::to_vec_pretty(&json!({ "simulated": options.simulated, "stories": record.results() }))?.as_slice(),
    )?;
    record.write(&options.out).with_context(|| format!("cannot write {}", options.out.display()))?;
    println!(
        "\n{} has everything; it holds no key and no secret, but names this host and its chip. Look into it before you send it.",
        options.out.display()
    );
    Ok(verdict)
}

fn all(options: &Options, world: &World, record: &mut Record) -> Result<Verdict> {
    host(world, record)?;
    if !Path::new("/dev/sev").exists() && !options.simulated {
        println!(
            "\nThis host cannot launch SEV-SNP guests: host.txt and doctor.txt in the archive say what is missing."
        );
        return Ok(Verdict::NoHardware);
    }
    let setting = stories::Setting::new(world, options.simulated)?;
    for monitor in MONITORS {
        match setting.launches(monitor)? {
            Err(why) => record.skipped(monitor, &why),
            Ok(()) => {
                for story in stories::ALL {
                    let begun = Instant::now();
                    let told = (story.tell)(&setting, monitor, options, record);
                    record.told(monitor, story.name, begun.elapsed(), told);
                    setting.clear();
                }
            }
        }
    }
    let results = record.results();
    let any = |outcome: &str| results.iter().any(|one| one["outcome"] == outcome);
    Ok(match (any("passed"), any("failed")) {
        (true, false) => Verdict::Passed,
        (false, false) => Verdict::NoHardware,
        (_, true) => Verdict::Failed,
    })
}

/// The certificates that this host's operator imported are those that guests of the stories hand on.
fn own_certificates(world: &World) -> Result<()> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let home = variable("COFFER_HOME").or_else(|| {
        let usual = PathBuf::from("/var/lib/coffer");
        if rustix::process::getuid().is_root() {
            Some(usual)
        } else {
            Some(variable("HOME")?.join(".local/share/coffer"))
        }
    });
    let Ok(bytes) = fs::read(home.unwrap_or_default().join("host/certificates.bin")) else { return Ok(()) };
    let folder = world.home().join("host");
    fs::create_dir_all(&folder)?;
    for private in [world.home(), folder.clone()] {
        fs::set_permissions(private, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    }
    Ok(fs::write(folder.join("certificates.bin"), bytes)?)
}

/// Looks at the host.
fn host(world: &World, record: &mut Record) -> Result<()> {
    let typed = |file: &str, program: &str, arguments: &[&str]| -> Result<bool> {
        let finished = run(Command::new(program).args(arguments), b"");
        let text = finished.as_ref().map_or_else(|error| format!("{error:#}\n"), crate::process::Finished::describe);
        record.put(file, text.as_bytes())?;
        Ok(finished.is_ok_and(|finished| finished.status == 0))
    };
    typed("kernel.txt", "uname", &["-a"])?;
    typed("kernel-log.txt", "sh", &["-c", "dmesg 2>&1 | grep -i -e sev -e snp -e rmp -e ccp -e kvm | tail -n 200"])?;
    typed("processor.txt", "sh", &["-c", "sed '/^$/q' /proc/cpuinfo; cat /etc/os-release"])?;
    typed("qemu.txt", "sh", &["-c", "\"${COFFER_QEMU:-qemu-system-x86_64}\" --version"])?;
    let coffer = |file: &str, arguments: &[&str]| -> Result<bool> {
        let finished = world.coffer(arguments)?;
        record.put(file, finished.describe().as_bytes())?;
        Ok(finished.status == 0)
    };
    coffer("coffer.txt", &["--version"])?;
    coffer("platform.txt", &["measure", "--platform-files"])?;
    coffer("doctor.txt", &["doctor"])?;
    coffer("host.txt", &["--json", "host", "status"])?;
    coffer("tcb.txt", &["host", "tcb"])?;
    coffer("certificates.txt", &["host", "certificates", "show"])?;
    record.put("certificates.bin", &kept(&world.home().join("host/certificates.bin")))
}

/// A word of JSON that a command printed.
fn word<'a>(value: &'a Value, name: &str) -> Result<&'a str> {
    value[name].as_str().with_context(|| format!("no {name} in {value}"))
}

/// A file of the world, read for the archive.
fn kept(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_default()
}
