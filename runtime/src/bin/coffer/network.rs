//! `coffer network`: networks that boxes share, in Docker's words.

pub mod connect;
pub mod create;
pub mod disconnect;
pub mod inspect;
pub mod ls;
pub mod prune;
pub mod rm;

use coffer_runtime::engine::{ListedNetwork, NetworkFilter};
use coffer_runtime::networks::{BoxNetwork, NetworkIsolation};
use coffer_spec::Name;
use coffer_vmm::net::switch::{Rule, mac_of};
use serde_json::{Map, Value, json};

use crate::boxes::filters;
use crate::error::{Class, CliError};
use crate::row::Entry;
use crate::table;

/// Look after networks, whose boxes reach each other by name.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer network create app
  coffer run -d --name db --network app postgres
  coffer network inspect app")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] = &[
    command!("create": create),
    command!("ls": ls),
    command!("inspect": inspect),
    command!("connect": connect),
    command!("disconnect": disconnect),
    command!("rm": rm),
    command!("prune": prune),
];

/// The one kind there is.
const DRIVER: &str = "bridge";

/// A name as it is typed: what is none is the name of no network.
fn name(text: &str) -> Result<Name, CliError> {
    let no_name = |error| CliError::new(Class::Usage, format!("invalid network name {text:?}: {error}"));
    text.parse().map_err(no_name)
}

/// Reads filters.
fn filter(texts: &[String], keys: &str) -> Result<NetworkFilter, CliError> {
    let mut filter = NetworkFilter::default();
    for text in texts {
        let invalid =
            || CliError::new(Class::Usage, format!("invalid filter '{text}'")).hint(format!("filters are {keys}"));
        match text.split_once('=').ok_or_else(invalid)? {
            (key, value) if value.is_empty() || !keys.contains(&format!("{key}=")) => return Err(invalid()),
            ("name", value) => filter.names.push(value.into()),
            ("label", value) => filter.labels.push(filters::label(value)),
            ("dangling", "true" | "1") => filter.dangling = Some(true),
            ("dangling", "false" | "0") => filter.dangling = Some(false),
            ("driver", DRIVER) => {}
            _ => return Err(invalid()),
        }
    }
    Ok(filter)
}

/// Everything known of a network.
fn describe(ListedNetwork { network, boxes }: &ListedNetwork) -> Value {
    let rules = |rules: &[Rule]| rules.iter().map(Rule::to_string).collect::<Vec<_>>();
    let inside = boxes.iter().map(|(found, place)| {
        let mut there = place_json(place);
        there["Name"] = found.name.as_str().into();
        there["Running"] = found.state.is_up().into();
        (found.id.to_string(), there)
    });
    let subnet = network.subnet;
    json!({
        "Name": network.name.as_str(), "Driver": DRIVER, "Scope": "local",
        "Created": table::rfc3339(network.created), "Labels": network.labels, "EnableIPv6": false,
        "IPAM": { "Config": [{ "Subnet": subnet, "Gateway": subnet.gateway() }] },
        "Internal": network.isolation == NetworkIsolation::Strict, "Isolation": network.isolation,
        "Rules": {
            "Between": network.rules.between, "Egress": rules(&network.rules.egress),
            "Ingress": rules(&network.rules.ingress),
        },
        "Containers": inside.collect::<Map<_, _>>(),
    })
}

/// What a box has in a network.
pub fn place_json(BoxNetwork { address, aliases, .. }: &BoxNetwork) -> Value {
    let mac = mac_of(*address).map(|byte| format!("{byte:02x}")).join(":");
    json!({ "IPAddress": address, "MacAddress": mac, "Aliases": aliases })
}
