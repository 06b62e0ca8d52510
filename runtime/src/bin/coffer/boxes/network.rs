//! Flags about the network of a box.

use std::net::Ipv4Addr;

use clap::Args;
use coffer_runtime::publish::{self, Publish};
use coffer_runtime::request::{self, ADD_HOST, NetworkWords, Wanted};

use crate::error::{self, Class, CliError};

/// Its card, and what the guest knows of the machines behind it.
#[derive(Debug, Args)]
pub struct NetworkFlags {
    /// Network of the box: user, a card behind which the host carries connections out, and never to its own loopback, link-local
    /// addresses or those of clouds' metadata; or none. With a TEE the card is measured [default: user where the isolation has
    /// cards, which QEMU has; with a TEE none, unless a port is published through it].
    #[arg(long, alias = "net", value_name = "user|none", conflicts_with = "spec")]
    network: Option<Wanted>,
    /// Ask this server for names, an address of IPv4, in place of the host's resolver; may be repeated, 3 at most.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "spec")]
    dns: Vec<Ipv4Addr>,
    /// Let the box know a name without asking: NAME:ADDRESS.
    #[arg(long, value_name = "NAME:ADDRESS", conflicts_with = "spec")]
    add_host: Vec<String>,
    /// Publish every TCP port that the image says it listens on, each at a port of the host that is free; `coffer port` says which.
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// With --publish-all: a further port, or FIRST-LAST.
    #[arg(long, value_name = "PORT[/tcp]", requires = "publish_all")]
    expose: Vec<String>,
}

impl NetworkFlags {
    /// What they say.
    ///
    /// # Errors
    /// Class `usage`.
    pub fn words(&self, publish: &[Publish]) -> Result<NetworkWords, CliError> {
        let usage = |flag: &str, text: &str, why: &dyn std::fmt::Display| {
            CliError::new(Class::Usage, format!("invalid value {text:?} for {flag}: {why}"))
        };
        let host = |text: &String| {
            let refused = |why: String| usage("--add-host", text, &why).hint(format!("write {ADD_HOST}"));
            request::host_entry(text).map_err(refused)
        };
        let hosts = self.add_host.iter().map(host).collect::<Result<_, _>>()?;
        let mut expose = Vec::new();
        for text in &self.expose {
            let range = text.strip_suffix("/tcp").unwrap_or(text);
            expose.extend(publish::ports(range).map_err(|why| usage("--expose", text, &why))?);
        }
        let words =
            NetworkWords { wanted: self.network, dns: self.dns.clone(), hosts, publish_all: self.publish_all, expose };
        words.ask_for_card(publish).map_err(error::of)?;
        Ok(words)
    }
}
