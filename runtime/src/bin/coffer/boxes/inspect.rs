//! `coffer inspect`.

use std::process::ExitCode;

use coffer_runtime::engine::{Guest, Inspection};
use coffer_runtime::health::{Health, HealthCheck, Look};
use coffer_runtime::networks::BoxNetwork;
use coffer_runtime::publish::Publish;
use coffer_runtime::request::tmpfs_options;
use coffer_runtime::{BoxRecord, BoxState};
use coffer_spec::{Domain, Mount, Network, WorkloadSpec};
use serde_json::{Map, Value, json};

use crate::boxes::live::timings_json;
use crate::boxes::ps;
use crate::context::Context;
use crate::error::{self, Class, CliError};
use crate::inspected;
use crate::network;
use crate::prove::guest::Trust;
use crate::prove::owner::in_force;
use crate::table;

/// Print everything known of boxes, as a JSON array. Of a box of --rm that did not come to run its workload, why is known.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer inspect web | jq -r '.[0].State.Status'
  coffer inspect --format '{{.State.Status}} {{json .Config.Labels}}' web
  coffer inspect --owners --allow-simulated team | jq '.[0].Tee.OwnersInForce'")]
pub struct Args {
    /// Also ask the guest of each, as one of its owners and once it has proved itself, who its owners are: by the spec, or by which list.
    #[arg(long)]
    owners: bool,
    #[command(flatten)]
    trust: Trust,
    /// Print each by a template, a box a line; `json` is one line of JSON.
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// What its files and its root file system take of the disk, too.
    #[arg(short, long)]
    size: bool,
    /// Names or ids.
    #[arg(required = true, value_name = "BOX")]
    boxes: Vec<String>,
}

/// Prints what is found, and fails if something was not: with `--json` as an object with the failure and what was found.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    if args.trust.is_given() && !args.owners {
        let message = "nothing is asked of a guest that it would have to prove itself for";
        return Err(CliError::new(Class::Usage, message).hint("add --owners, or leave out what it must prove"));
    }
    let engine = context.engine()?;
    let trust = args.trust.read()?;
    engine.open().map_err(error::of)?;
    let runtime = if args.owners { Some(context.runtime()?) } else { None };
    inspected::print(context, args.format.as_deref(), &args.boxes, |name| {
        if let (true, Some(runtime)) = (Guest::is_elsewhere(name), &runtime) {
            // Of one elsewhere this is all that an owner learns.
            let told = runtime.block_on(engine.owners_in_force(name, &trust)).map_err(error::of)?;
            return Ok(json!({ "Name": name, "Tee": { "OwnersInForce": told.as_ref().map(in_force::described) } }));
        }
        let inspection = engine.inspect(name).map_err(error::of)?;
        let mut described = describe(&inspection);
        if args.size {
            described["SizeRw"] = engine.disk_bytes(&inspection.record).map_err(error::of)?.into();
            described["SizeRootFs"] =
                std::fs::metadata(&inspection.record.options.root).map_or(Value::Null, |root| root.len().into());
        }
        if let Some(runtime) = &runtime {
            let told = runtime.block_on(engine.owners_in_force(name, &trust)).map_err(error::of)?;
            described["Tee"]["OwnersInForce"] = told.as_ref().map(in_force::described).into();
        }
        Ok(described)
    })
}

fn describe(inspection: &Inspection) -> Value {
    let Inspection { record, document: spec, id_block, ports, health, folder } = inspection;
    let time = |moment: Option<i64>| moment.map(table::rfc3339);
    let options = &record.options;
    // Zero is Docker's for what nothing bounds.
    let (memory, cpus) = if options.launch.is_machine() {
        (options.memory_bytes, options.vcpus)
    } else {
        (options.limits.memory_bytes.unwrap_or(0), options.limits.cpus.unwrap_or(0))
    };
    json!({
        "Id": record.id,
        "Name": format!("/{}", record.name),
        "Created": table::rfc3339(record.created),
        "Image": options.image_digest,
        "Path": options.command.first(),
        "Args": options.command.get(1..),
        "RestartCount": record.restarts,
        "State": {
            "Status": record.state, "Running": record.state.is_up(),
            "Paused": record.state == BoxState::Paused, "Restarting": record.state == BoxState::Restarting, "Dead": record.state == BoxState::Dead,
            "Pid": record.vmm_pid.unwrap_or(0), "SupervisorPid": record.supervisor_pid.unwrap_or(0),
            "ExitCode": record.exit_code.unwrap_or(0), "Error": record.error.clone().unwrap_or_default(),
            "Reason": record.reason,
            "StartedAt": time(record.started), "FinishedAt": time(record.finished),
            "Health": health.as_ref().map(health_json),
        },
        "Config": {
            "Image": record.image,
            // Of one piece here: an image's entry point is part of it.
            "Cmd": options.command, "Entrypoint": null,
            "Env": spec.as_ref().map(|d| d.spec().process.env.clone()),
            "WorkingDir": spec.as_ref().map(|d| d.spec().process.cwd.clone()),
            "User": spec.as_ref().map(|d| d.spec().process.user.clone()),
            "Healthcheck": options.health.as_ref().map(check_json),
            "Labels": options.labels, "StopTimeout": options.stop_timeout,
            "StopSignal": spec.as_ref().map(|d| d.spec().process.stop_signal),
            "Hostname": spec.as_ref().map(|d| d.spec().process.hostname.to_string()),
            "Domainname": spec.as_ref().map(|d| d.spec().process.domainname.as_ref().map_or("", Domain::as_str)),
        },
        "HostConfig": {
            "LogConfig": {
                "Type": "json-file",
                "Config": { "max-size": options.log.max_bytes.to_string(), "max-file": options.log.files.to_string() },
            },
            "PortBindings": bindings_json(&options.publish),
            "Dns": spec.as_ref().map(|d| card_words(d.spec(), |card| &card.dns)),
            "DnsSearch": spec.as_ref().map(|d| card_words(d.spec(), |card| &card.search)),
            "DnsOptions": spec.as_ref().map(|d| card_words(d.spec(), |card| &card.options)),
            "RestartPolicy": { "Name": options.restart.name(), "MaximumRetryCount": options.restart.most() },
            "ReadonlyRootfs": spec.as_ref().map(|d| d.spec().root.read_only),
            "Sysctls": spec.as_ref().map(|d| sysctls_json(d.spec())),
            "Init": spec.as_ref().map(|d| d.spec().process.init),
            "ShmSize": spec.as_ref().map(|d| d.spec().shm_bytes),
            "Tmpfs": spec.as_ref().map(|d| tmpfs_json(&d.spec().mounts)),
            "Memory": memory, "NanoCpus": u64::from(cpus) * 1_000_000_000,
            "AutoRemove": options.remove, "Isolation": options.isolation,
            "LaunchForm": options.launch },
        "Mounts": spec.as_ref().map(|d| mounts_json(record, d.spec())),
        "NetworkSettings": {
            "Ports": ports.as_deref().map(ports_json), "Networks": networks_json(record),
            "IPAddress": spec.as_ref().map_or_else(String::new, |d| own_address(record, d.spec())),
        },
        "Tee": {
            "Kind": ps::tee_word(options.tee), "WorkloadDigest": options.workload_digest,
            "HostMay": spec.as_ref().map(|d| d.spec().host_may),
            "Owners": spec.as_ref().map(|d| d.spec().owners.clone()),
            "OwnerAuthority": spec.as_ref().map(|d| d.spec().owner_authority.clone()),
            "Platform": options.platform,
            "IdBlock": id_block,
        },
        "Timings": timings_json(&record.timings),
        "Folder": folder,
    })
}

/// As Docker has it.
fn health_json(health: &Health) -> Value {
    let look = |look: &Look| json!({ "Start": table::rfc3339(look.start), "End": table::rfc3339(look.end), "ExitCode": look.exit_code, "Output": look.output });
    json!({
        "Status": health.status, "FailingStreak": health.failing_streak,
        "Log": health.log.iter().map(look).collect::<Vec<_>>(),
    })
}

/// As Docker has it: times in nanoseconds.
fn check_json(check: &HealthCheck) -> Value {
    let nanos = |ms: u64| ms.saturating_mul(1_000_000);
    json!({
        "Test": check.test, "Interval": nanos(check.interval_ms), "Timeout": nanos(check.timeout_ms),
        "StartPeriod": nanos(check.start_period_ms), "StartInterval": nanos(check.start_interval_ms), "Retries": check.retries,
    })
}

/// As Docker has them: volumes by name, snapshots without a source, which nobody looks at again, and memory.
fn mounts_json(record: &BoxRecord, spec: &WorkloadSpec) -> Value {
    let plain = spec.data_volumes.iter().map(|at| (&at.path, at.read_only));
    let at = plain.chain(spec.sealed_volumes.iter().map(|at| (&at.path, at.read_only)));
    let data = record.options.data.iter().zip(at).map(|(volume, (path, read_only))| {
        let mode = if read_only { "ro" } else { "rw" };
        json!({ "Type": "volume", "Name": volume.name.as_str(), "Driver": "local", "Destination": path, "Mode": mode, "RW": !read_only })
    });
    let binds = spec.volumes.iter().map(|at| {
        json!({ "Type": "bind", "Destination": at.path, "Mode": "ro", "RW": false, "RootHash": at.verity.root_hash })
    });
    let memory = spec.mounts.iter().map(|at| json!({ "Type": "tmpfs", "Destination": at.path, "RW": !at.read_only }));
    data.chain(binds).chain(memory).collect()
}

/// As Docker has them: by name.
fn sysctls_json(spec: &WorkloadSpec) -> Value {
    spec.sysctls
        .iter()
        .map(|setting| (setting.name.clone(), Value::from(setting.value.clone())))
        .collect::<Map<_, _>>()
        .into()
}

/// As Docker has them: by path, options as they are typed.
fn tmpfs_json(mounts: &[Mount]) -> Value {
    mounts.iter().map(|mount| (mount.path.clone(), Value::from(tmpfs_options(mount)))).collect::<Map<_, _>>().into()
}

/// As Docker has them: by name.
fn networks_json(record: &BoxRecord) -> Value {
    let place = |place: &BoxNetwork| (place.name.to_string(), network::place_json(place));
    record.options.networks.iter().map(place).collect::<Map<_, _>>().into()
}

/// What stands in `/etc/resolv.conf` inside, of one kind; nothing without a card.
fn card_words<T: ToString>(spec: &WorkloadSpec, of: impl Fn(&Network) -> &Vec<T>) -> Vec<String> {
    spec.network.iter().flat_map(|card| of(card).iter().map(ToString::to_string)).collect()
}

/// As Docker has it: of a box in networks of its own each has its address, and this is that of the card of any other.
fn own_address(record: &BoxRecord, spec: &WorkloadSpec) -> String {
    let card = spec.network.as_ref().filter(|_| record.options.card_network.is_none() && record.state.is_up());
    card.map_or_else(String::new, |card| card.address.to_string())
}

/// As Docker has them: what was asked for, with nothing in place of a port that is any that is free.
fn bindings_json(asked: &[Publish]) -> Value {
    let mut all = ports_json(asked);
    let places = all.as_object_mut().into_iter().flat_map(Map::values_mut).filter_map(Value::as_array_mut).flatten();
    for place in places.filter(|place| place["HostPort"] == "0") {
        place["HostPort"] = "".into();
    }
    all
}

/// As Docker has them: by the box's port, a list of addresses of the host's.
fn ports_json(ports: &[Publish]) -> Value {
    let mut all = Map::new();
    for publish @ Publish { host, .. } in ports {
        let here = json!({ "HostIp": host.ip(), "HostPort": host.port().to_string() });
        if let Value::Array(list) = all.entry(publish.what()).or_insert_with(|| json!([])) {
            list.push(here);
        }
    }
    Value::Object(all)
}
