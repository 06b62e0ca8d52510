//! `coffer inspect`.

use std::process::ExitCode;

use coffer_runtime::boxes::files;
use coffer_runtime::id_block::SignedLaunch;
use coffer_runtime::{BoxRecord, BoxState, Home};
use coffer_spec::Document;
use serde_json::{Value, json};

use crate::cli::Context;
use crate::error::{self, Class, CliError};
use crate::live::timings_json;
use crate::{ps, table};

/// Print everything known of boxes, as a JSON array.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer inspect web | jq -r '.[0].State.Status'")]
pub struct Args {
    /// Names or ids.
    #[arg(required = true, value_name = "BOX")]
    boxes: Vec<String>,
}

/// Prints what is found, and fails if something was not.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let (home, state) = context.open_state()?;
    let (mut found, mut missing) = (Vec::new(), false);
    for name in &args.boxes {
        match state.find(name) {
            Ok(record) => found.push(describe(&home, &record)),
            Err(error) => {
                missing = true;
                error::print(&CliError::caused(Class::NotFound, &error), false);
            }
        }
    }
    println!("{}", serde_json::to_string_pretty(&found).unwrap_or_else(|_| "[]".into()));
    Ok(if missing { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn describe(home: &Home, record: &BoxRecord) -> Value {
    let folder = home.box_folder(&record.id);
    let spec = std::fs::read(folder.join(files::SPEC)).ok().and_then(|bytes| Document::parse(bytes).ok());
    let time = |moment: Option<i64>| moment.map(table::rfc3339);
    let options = &record.options;
    json!({
        "Id": record.id,
        "Name": format!("/{}", record.name),
        "Created": table::rfc3339(record.created),
        "Image": options.image_digest,
        "Path": options.command.first(),
        "Args": options.command.get(1..),
        "State": {
            "Status": record.state, "Running": record.state == BoxState::Running, "Dead": record.state == BoxState::Dead,
            "Pid": record.vmm_pid.unwrap_or(0), "SupervisorPid": record.supervisor_pid.unwrap_or(0),
            "ExitCode": record.exit_code.unwrap_or(0), "Error": record.error.clone().unwrap_or_default(),
            "StartedAt": time(record.started), "FinishedAt": time(record.finished),
        },
        "Config": {
            "Image": record.image,
            "Env": spec.as_ref().map(|d| d.spec().process.env.clone()),
            "WorkingDir": spec.as_ref().map(|d| d.spec().process.cwd.clone()),
            "User": spec.as_ref().map(|d| d.spec().process.user.clone()),
            "Hostname": spec.as_ref().map(|d| d.spec().process.hostname.to_string()),
        },
        "HostConfig": { "Memory": options.memory_bytes, "NanoCpus": u64::from(options.vcpus) * 1_000_000_000,
            "AutoRemove": options.remove, "Isolation": options.isolation },
        "Tee": {
            "Kind": ps::tee_word(options.tee), "WorkloadDigest": options.workload_digest,
            "HostMay": spec.as_ref().map(|d| d.spec().host_may),
            "Owners": spec.as_ref().map(|d| d.spec().owners.clone()),
            "Platform": options.platform,
            "IdBlock": SignedLaunch::of_box(&folder, options).ok().flatten().map(|signed| signed.facts()),
        },
        "Timings": timings_json(&record.timings),
        "Folder": folder,
    })
}
