//! `coffer system info`.

use std::process::ExitCode;

use coffer_runtime::BoxState;
use coffer_runtime::engine::{Filter, NamedFilter};
use coffer_runtime::images::{self, of_image};
use coffer_runtime::monitor;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{self, CliError};
use crate::table;

/// Show how many boxes, images, volumes and networks there are, and what they run on.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "`coffer doctor` says what this machine can run, and why not; `coffer system df` what all of it takes of the disk.

Examples:
  coffer system info
  coffer --json system info"
)]
pub struct Args {}

/// Shows it.
pub fn run(_: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    let boxes = engine.list(&Filter::default()).map_err(error::of)?;
    let of = |states: &[BoxState]| boxes.iter().filter(|found| states.contains(&found.state)).count();
    let home = engine.home().map_err(error::of)?;
    let images = images::open(home)?.list().map_err(|error| of_image(&error))?.images.len();
    let volumes = engine.list_volumes(&NamedFilter::default()).map_err(error::of)?.len();
    let networks = engine.list_networks(&NamedFilter::default()).map_err(error::of)?.len();
    let isolation = monitor::strongest(&context.search).ok().map(|isolation| isolation.to_string());
    let system = rustix::system::uname();
    let memory = rustix::system::sysinfo();
    let info = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "home": home.root().display().to_string(),
        "boxes": {
            "total": boxes.len(),
            "running": of(&[BoxState::Running, BoxState::Restarting]),
            "paused": of(&[BoxState::Paused]),
            "stopped": of(&[BoxState::Created, BoxState::Exited, BoxState::Dead]),
        },
        "images": images,
        "volumes": volumes,
        "networks": networks,
        "isolation": isolation,
        "processors": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        "memory_bytes": u64::from(memory.mem_unit).saturating_mul(memory.totalram),
        "kernel": system.release().to_string_lossy(),
        "architecture": system.machine().to_string_lossy(),
    });
    if context.json {
        println!("{info}");
    } else {
        println!("{}", lines(&info).join("\n"));
    }
    Ok(ExitCode::SUCCESS)
}

fn lines(info: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let line = |what: &str, found: &Value| {
        let found = if found.is_null() { "none works here".to_owned() } else { text(found) };
        format!("{what}: {}", coffer_rim::foreign(&found))
    };
    let boxes = &info["boxes"];
    vec![
        line("Boxes", &boxes["total"]),
        line(" Running", &boxes["running"]),
        line(" Paused", &boxes["paused"]),
        line(" Stopped", &boxes["stopped"]),
        line("Images", &info["images"]),
        line("Volumes", &info["volumes"]),
        line("Networks", &info["networks"]),
        line("Version", &info["version"]),
        line("Home", &info["home"]),
        line("Isolation", &info["isolation"]),
        line("Kernel", &info["kernel"]),
        line("Architecture", &info["architecture"]),
        line("CPUs", &info["processors"]),
        format!("Total Memory: {}", table::binary_size(info["memory_bytes"].as_u64().unwrap_or(0))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_shown_as_docker_shows_it() {
        let info = json!({
            "version": "1", "home": "/h\n", "boxes": { "total": 3, "running": 1, "paused": 0, "stopped": 2 },
            "images": 1, "volumes": 0, "networks": 0, "isolation": null, "processors": 2,
            "memory_bytes": 2_u64 << 30, "kernel": "6.1", "architecture": "x86_64",
        });
        let lines = lines(&info).join("|");
        assert!(lines.starts_with("Boxes: 3| Running: 1| Paused: 0| Stopped: 2|Images: 1|"), "{lines}");
        assert!(
            lines.ends_with(
                "Home: /h\\n|Isolation: none works here|Kernel: 6.1|Architecture: x86_64|CPUs: 2|Total Memory: 2GiB"
            ),
            "{lines}"
        );
    }
}
