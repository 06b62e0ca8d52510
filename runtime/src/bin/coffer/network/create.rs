//! `coffer network create`.

use std::process::ExitCode;

use clap::ValueEnum;
use coffer_rim::foreign;
use coffer_runtime::engine::NetworkRequest;
use coffer_runtime::networks::{NetworkIsolation, host_network};
use coffer_vmm::net::switch::{Rule, Rules, Subnet};
use serde_json::json;

use super::DRIVER;
use crate::boxes::new_box::labels;
use crate::context::Context;
use crate::error::{self, Class, CliError};

/// Make a network, and print its name.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer network create app
  coffer network create --subnet 10.90.0.0/24 --isolation strict back
  coffer network create --isolation custom --between --egress 192.0.2.0/24 \\
    --ingress 127.0.0.1:8080 front")]
pub struct Args {
    /// Driver; there is one.
    #[arg(short, long, value_name = "DRIVER", default_value = DRIVER)]
    driver: String,
    /// Its addresses, of which the first is the gateway's [default: the first of 10.89.0.0/24, 10.89.1.0/24 … that is free].
    #[arg(long, value_name = "ADDRESS/PREFIX")]
    subnet: Option<Subnet>,
    /// none: its boxes reach each other and, as boxes in no network do, the world, and published ports lead in; strict: each other
    /// alone; custom: what the three flags below allow, and nothing else.
    #[arg(long, value_enum, value_name = "none|strict|custom", default_value = "none", hide_possible_values = true)]
    isolation: Word,
    /// The same as --isolation strict.
    #[arg(long, conflicts_with = "isolation")]
    internal: bool,
    /// Its boxes reach each other.
    #[arg(long)]
    between: bool,
    /// Its boxes reach these machines: ADDRESS[/PREFIX][:PORT[-LAST]][/tcp|udp|icmp]; may be repeated. With any, they may ask the
    /// host's resolver for names, too.
    #[arg(long, value_name = "RULE")]
    egress: Vec<Rule>,
    /// These machines reach published ports of its boxes, the port being the box's; 127.0.0.1 is who comes from the host's loopback.
    #[arg(long, value_name = "RULE")]
    ingress: Vec<Rule>,
    /// What the network is found by.
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Its name.
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Word {
    None,
    Strict,
    Custom,
}

/// Makes it.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    if args.driver != DRIVER {
        let message = format!("there is no network driver {:?}", args.driver);
        return Err(CliError::new(Class::Usage, message).hint(format!("there is one, {DRIVER}: leave --driver out")));
    }
    let custom = args.between || !args.egress.is_empty() || !args.ingress.is_empty();
    if custom && args.isolation != Word::Custom {
        let message = "--between, --egress and --ingress are rules of --isolation custom";
        return Err(CliError::new(Class::Usage, message).hint("add --isolation custom"));
    }
    let (isolation, rules) = match args.isolation {
        Word::None if args.internal => (NetworkIsolation::Strict, Rules::inside()),
        Word::None => (NetworkIsolation::None, Rules::open()),
        Word::Strict => (NetworkIsolation::Strict, Rules::inside()),
        Word::Custom => {
            let rules = Rules { between: args.between, egress: args.egress.clone(), ingress: args.ingress.clone() };
            (NetworkIsolation::Custom, rules)
        }
    };
    let request = NetworkRequest {
        name: super::name(&args.name)?,
        subnet: args.subnet,
        isolation,
        rules,
        labels: labels(&args.label)?,
    };
    let network = context.engine()?.create_network(request).map_err(error::of)?;
    if let Some((range, interface)) = host_network(network.subnet) {
        eprintln!(
            "coffer: warning: this host is in {range} itself ({}): boxes of {} do not reach those machines",
            foreign(&interface),
            network.name
        );
    }
    if context.json {
        println!("{}", json!({ "name": network.name.as_str(), "subnet": network.subnet }));
    } else {
        println!("{}", network.name);
    }
    Ok(ExitCode::SUCCESS)
}
