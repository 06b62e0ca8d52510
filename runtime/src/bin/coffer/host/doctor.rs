//! `coffer doctor`.

use std::borrow::Cow;
use std::fs::File;
use std::process::ExitCode;

use coffer_runtime::Home;
use coffer_runtime::host::needs::version;
use coffer_runtime::host::{Device, Facts, Firmware as _, Need, needs};
use coffer_runtime::monitor::Monitor as _;
use coffer_runtime::monitor::kvm::VMM;
use coffer_runtime::monitor::namespaces::{Namespaces, TUN};
use coffer_runtime::monitor::network::PASST;
use coffer_runtime::monitor::qemu::{QEMU, VHOST_VSOCK, capabilities, version_line};
use coffer_runtime::monitor::{self, Isolation};
use coffer_runtime::platform_folder::load_platform;
use coffer_runtime::tools::Search;
use serde::Serialize;

use crate::context::Context;
use crate::error::CliError;
use crate::table::size;

/// Check what this machine can run, and say why not.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer doctor
  coffer --json doctor")]
pub struct Args {}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Mark {
    Ok,
    Note,
    Missing,
}

#[derive(Debug, Serialize)]
struct Line {
    what: Cow<'static, str>,
    mark: Mark,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// Exit 0 if boxes can run here, 4 if something is missing.
pub fn run(_: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let lines = examine(context);
    let missing = lines.iter().any(|line| line.mark == Mark::Missing);
    if context.json {
        println!("{}", serde_json::json!({ "ok": !missing, "checks": lines }));
    } else {
        for line in &lines {
            let mark = match line.mark {
                Mark::Ok => "ok     ",
                Mark::Note => "note   ",
                Mark::Missing => "MISSING",
            };
            println!("{mark} {:<23} {}", line.what, line.found);
            if let Some(hint) = &line.hint {
                println!("{:32}hint: {hint}", "");
            }
        }
    }
    Ok(ExitCode::from(if missing { 4 } else { 0 }))
}

fn examine(context: &Context) -> Vec<Line> {
    let ok = |what: &'static str, found: String| Line { what: what.into(), mark: Mark::Ok, found, hint: None };
    let note = |what: &'static str, found: String, hint: &str| Line {
        what: what.into(),
        mark: Mark::Note,
        found,
        hint: Some(hint.into()),
    };
    let failed = |what: &'static str, failure: CliError| Line {
        what: what.into(),
        mark: Mark::Missing,
        found: failure.message,
        hint: failure.hint,
    };
    let mut lines = Vec::new();
    lines.push(match context.search.program(&QEMU) {
        Ok(path) => match version_line(&path) {
            Ok(version) => ok("qemu", format!("{} ({version})", path.display())),
            Err(failure) => failed("qemu", failure),
        },
        Err(failure) => failed("qemu", failure),
    });
    lines.push(match context.search.program(&VHOST_VSOCK) {
        Ok(path) => ok("vhost-device-vsock", path.display().to_string()),
        Err(failure) => failed("vhost-device-vsock", failure),
    });
    lines.push(match context.search.program(&PASST) {
        Ok(path) => ok("passt", path.display().to_string()),
        Err(failure) => note(
            "passt",
            format!("{}: boxes have no network", failure.message),
            failure.hint.as_deref().unwrap_or_default(),
        ),
    });
    lines.push(match File::options().read(true).write(true).open(TUN) {
        Ok(_) => ok("tun", format!("{TUN} opens: boxes without a machine have network cards")),
        Err(error) => note(
            "tun",
            format!("{TUN}: {error}: boxes without a machine have no network"),
            "load the module tun, or let this user open the device; boxes with a machine need none",
        ),
    });
    lines.push(match context.search.program(&VMM) {
        Ok(path) => ok("coffer-vmm", path.display().to_string()),
        Err(_) => {
            note("coffer-vmm", "our own monitor is not here".into(), "run `make build`; guests run in QEMU without it")
        }
    });
    let found = capabilities();
    lines.push(if found.hardware {
        ok("kvm", found.why)
    } else {
        note("kvm", found.why, "slower, and otherwise the same")
    });
    lines.push(match monitor::strongest(&context.search) {
        Ok(isolation) => ok("isolation", chosen(isolation, &context.search)),
        Err(failure) => failed("isolation", failure),
    });
    lines.push(match Namespaces::new(&context.search).check() {
        Ok(found) => ok("namespaces", format!("for --isolation process: {}", found.why)),
        Err(failure) => note(
            "namespaces",
            failure.message,
            "only --isolation process wants them, which is for speed and no isolation from the host",
        ),
    });
    lines.extend(snp(context));
    lines.push(match context.search.platform_folder(None).and_then(|folder| load_platform(&folder)) {
        Ok(platform) => ok(
            "platform",
            format!(
                "{}: {}, kernel {}, initrd {}",
                platform.folder.display(),
                platform.manifest.kernel_package,
                &platform.manifest.kernel[..12.min(platform.manifest.kernel.len())],
                &platform.manifest.initrd[..12.min(platform.manifest.initrd.len())]
            ),
        ),
        Err(failure) => failed("platform", failure),
    });
    match context.open_home() {
        Err(failure) => lines.push(failed("home", failure)),
        Ok(home) => {
            lines.push(ok("home", format!("{}, mode 0700", home.root().display())));
            lines.push(disk(&home));
            if home.owner().join("key.pem").exists() {
                lines.push(note(
                    "owner's key",
                    format!("{} lies on this host", home.owner().join("key.pem").display()),
                    "whoever is root here can act as this owner; for --tee keep it elsewhere and pass --owner PUBLIC-KEY.pem",
                ));
            }
        }
    }
    lines
}

/// What a box gets that nobody names an isolation for, and why it gets no stronger one.
fn chosen(isolation: Isolation, search: &Search) -> String {
    let stronger = Isolation::UNASKED.into_iter().take_while(|one| *one != isolation);
    let why = stronger.filter_map(|one| {
        let lacking = monitor::of(one, search).and_then(|monitor| monitor.check()).err()?;
        Some(format!("; not {one}: {}", lacking.message))
    });
    format!("{isolation}, where none is named{}", why.collect::<String>())
}

/// What SEV-SNP needs: notes, for all else runs without.
fn snp(context: &Context) -> Vec<Line> {
    let (facts, _) = facts(context);
    if facts.processor.product.is_none() {
        return vec![Line {
            what: "sev-snp".into(),
            mark: Mark::Note,
            found: "this processor has none that a guest could be launched with: --tee is refused here".into(),
            hint: Some(
                "--tee-simulate runs the same flow under a simulated root; `coffer host status` has all that a host needs"
                    .into(),
            ),
        }];
    }
    let line = |need: Need| Line {
        what: format!("sev-snp {}", need.what).into(),
        mark: if need.met { Mark::Ok } else { Mark::Note },
        found: need.found,
        hint: need.remedy.map(Into::into),
    };
    needs(&facts).into_iter().map(line).collect()
}

/// Everything that can be found out about this machine as an SEV-SNP host; the chip's identifier in hexadecimal.
pub fn facts(context: &Context) -> (Facts, Option<String>) {
    let mut facts = Facts::gather();
    let said = context.search.program(&QEMU).and_then(|path| version_line(&path)).ok();
    facts.qemu = said.and_then(|line| version(line.split_once("version ")?.1));
    let mut chip = None;
    if let Ok(mut device) = Device::open(&facts.processor) {
        facts.status = device.status().ok();
        chip = device.chip().ok().map(|chip| chip.to_string());
    }
    (facts, chip)
}

const LITTLE: u64 = 1 << 30;

fn disk(home: &Home) -> Line {
    match rustix::fs::statvfs(home.root()) {
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let little = free < LITTLE;
            Line {
                what: "disk".into(),
                mark: if little { Mark::Note } else { Mark::Ok },
                found: format!("{} free under {}", size(free), home.root().display()),
                hint: little.then(|| "images and boxes need room: `coffer rmi`, or --home elsewhere".into()),
            }
        }
        Err(error) => Line { what: "disk".into(), mark: Mark::Note, found: error.to_string(), hint: None },
    }
}
