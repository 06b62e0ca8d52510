//! `coffer network`: networks that boxes share, in Docker's words.

pub mod connect;
pub mod create;
pub mod disconnect;
pub mod inspect;
pub mod ls;
pub mod prune;
pub mod rm;

use std::net::Ipv4Addr;

use coffer_runtime::engine::{ListedNetwork, NamedFilter};
use coffer_runtime::networks::{BoxNetwork, NetworkIsolation};
use coffer_spec::Name;
use coffer_vmm::net::switch::{Rule, mac_of};
use serde_json::{Map, Value, json};

use crate::error::CliError;
use crate::named;
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

/// A name as it is typed.
fn name(text: &str) -> Result<Name, CliError> {
    named::name("network", text)
}

/// Reads filters.
fn filter(texts: &[String], keys: &str) -> Result<NamedFilter, CliError> {
    named::filter(texts, keys, DRIVER)
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

/// The same for the list of `--json`, which is in no words of Docker's.
fn row(ListedNetwork { network, boxes }: &ListedNetwork) -> Value {
    json!({
        "name": network.name.as_str(), "created": table::rfc3339(network.created), "labels": network.labels,
        "subnet": network.subnet, "isolation": network.isolation,
        "boxes": boxes.iter().map(|(found, _)| found.name.as_str()).collect::<Vec<_>>(),
    })
}

/// What a box has in a network.
pub fn place_json(BoxNetwork { address, aliases, .. }: &BoxNetwork) -> Value {
    json!({ "IPAddress": address, "MacAddress": mac(*address), "Aliases": aliases })
}

fn mac(address: Ipv4Addr) -> String {
    mac_of(address).map(|byte| format!("{byte:02x}")).join(":")
}
