//! Flags about the network of a box.

use std::net::Ipv4Addr;

use clap::Args;
use coffer_runtime::networks::Wish;
use coffer_runtime::publish::{self, Publish};
use coffer_runtime::request::{self, ADD_HOST, NetworkWords, Wanted};
use coffer_spec::{Domain, Name, ResolverOption};

use crate::error::{self, Class, CliError};

/// Its card, and what the guest knows of the machines behind it.
#[derive(Debug, Args)]
pub struct NetworkFlags {
    /// Network of the box: user, a card behind which the host carries connections out, and never to its own loopback, link-local
    /// addresses or those of clouds' metadata; the name of one that `coffer network create` made, whose boxes know each other by
    /// name; or none. With a TEE the card and its address are measured; with --spec, the network that the spec's card is of
    /// [default: user; with a TEE none, unless a port is published through it].
    #[arg(long, alias = "net", value_name = "user|none|NAME")]
    network: Option<Wanted>,
    /// Address of the box in its network [default: one that is free].
    #[arg(long, value_name = "ADDRESS", conflicts_with = "spec")]
    ip: Option<Ipv4Addr>,
    /// A further name of the box in its network; may be repeated.
    #[arg(long, alias = "net-alias", value_name = "NAME")]
    network_alias: Vec<Name>,
    /// Ask this server for names, an address of IPv4, in place of the host's resolver; may be repeated, 3 at most.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "spec")]
    dns: Vec<Ipv4Addr>,
    /// Look for a short name in this domain too; may be repeated, 6 at most. `.` alone: in none.
    #[arg(long, value_name = "DOMAIN", conflicts_with = "spec")]
    dns_search: Vec<String>,
    /// Word for the resolver of the box, as resolv.conf(5) has them: ndots:2; may be repeated, 16 at most.
    #[arg(long, alias = "dns-opt", value_name = "OPTION", conflicts_with = "spec")]
    dns_option: Vec<ResolverOption>,
    /// Let the box know a name without asking: NAME:ADDRESS.
    #[arg(long, value_name = "NAME:ADDRESS", conflicts_with = "spec")]
    add_host: Vec<String>,
    /// Publish every port that the image says it listens on, of TCP and UDP, each at a port of the host that is free; `coffer port` says which.
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// With --publish-all: a further port, or FIRST-LAST.
    #[arg(long, value_name = "PORT[/tcp|/udp]", requires = "publish_all")]
    expose: Vec<String>,
}

impl NetworkFlags {
    /// What they say.
    ///
    /// # Errors
    /// Class `usage`.
    pub fn words(&self, publish: &[Publish], has_spec: bool) -> Result<NetworkWords, CliError> {
        if has_spec && matches!(self.network, Some(Wanted::User | Wanted::Nothing)) {
            let message = "--network user or none changes the card, which --spec fixes";
            return Err(
                CliError::new(Class::Usage, message).hint("leave it out, or name a network that the card is of")
            );
        }
        let usage = |flag: &str, text: &str, why: &dyn std::fmt::Display| {
            CliError::new(Class::Usage, format!("invalid value {text:?} for {flag}: {why}"))
        };
        let host = |text: &String| {
            let refused = |why: String| usage("--add-host", text, &why).hint(format!("write {ADD_HOST}"));
            request::host_entry(text).map_err(refused)
        };
        let hosts = self.add_host.iter().map(host).collect::<Result<_, _>>()?;
        let domain = |text: &String| text.parse::<Domain>().map_err(|why| usage("--dns-search", text, &why));
        // Docker's word for none.
        let nowhere = self.dns_search == ["."];
        let search = self.dns_search.iter().filter(|_| !nowhere).map(domain).collect::<Result<_, _>>()?;
        let mut expose = Vec::new();
        for text in &self.expose {
            expose.extend(publish::exposed(text).map_err(|why| usage("--expose", text, &why))?);
        }
        let words = NetworkWords {
            wanted: self.network.clone(),
            dns: self.dns.clone(),
            search,
            options: self.dns_option.clone(),
            hosts,
            publish_all: self.publish_all,
            expose,
            wish: Wish { address: self.ip, aliases: self.network_alias.clone() },
        };
        if words.network().is_none() && words.wish != Wish::default() {
            let message = "--ip and --network-alias are about a network that boxes share, and none is named";
            return Err(CliError::new(Class::Usage, message).hint("add --network NAME"));
        }
        words.ask_for_card(publish).map_err(error::of)?;
        Ok(words)
    }
}
