//! `coffer kbs`: secrets, references and the audit trail of a key broker, over its admin API.
//!
//! Trusts: the broker behind the key that the admin profile pins. What can be wrong on this side is found before it is asked.

mod audit;
mod broker;
mod certificate;
mod crl;
mod guests;
mod manifest;
mod manifest_key;
mod operator;
mod policy;
pub mod reference;
mod revoke;
mod sealing;
mod secret;
pub mod signer;
mod tenant;
mod terms;
mod times;
mod volume;

use std::path::PathBuf;

use self::times::{expiry, parse_time, rfc3339};
use crate::context::Context;
use crate::error::CliError;
use crate::row::Entry;

/// Manage a key broker: which secrets it holds, and which guests it admits.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs secret put default/app/password --file value --profile admin.toml
  coffer measure --spec spec.toml --json | coffer kbs reference add \\
      --from - --name web-1
  coffer kbs manifest-key add manifest.pem.pub && \\
      coffer kbs manifest add web.json
  coffer kbs signer add web-releases --author-key author.pem.pub \\
      --family-id acme --image-id web --minimum-svn 3
  coffer kbs audit --limit 20")]
pub struct Args {
    /// Admin profile written by `coffer-kbs init` [default: $COFFER_KBS_PROFILE].
    #[arg(long, global = true, value_name = "FILE", help_heading = "Key broker")]
    profile: Option<PathBuf>,

    /// Admin address to use instead of the profile's; the profile's pin holds [default: $COFFER_KBS_ADDRESS].
    #[arg(long, global = true, value_name = "HOST:PORT", value_parser = host_and_port, help_heading = "Key broker")]
    address: Option<String>,

    /// The broker of this machine by its local socket, STATE/local/kbs.sock, in place of address and profile.
    #[arg(long, global = true, value_name = "PATH", conflicts_with_all = ["address", "profile"], help_heading = "Key broker")]
    admin_socket: Option<PathBuf>,
}

impl Args {
    /// The broker that they name.
    fn broker<'a>(&self, context: &'a Context) -> Result<broker::Broker<'a>, CliError> {
        let (profile, address) = (self.profile.as_deref(), self.address.as_deref());
        broker::Broker::new(profile, address, self.admin_socket.as_deref(), context)
    }
}

/// An address as it is dialled; whether anything is there is found out then.
fn host_and_port(text: &str) -> Result<String, String> {
    let port =
        text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse::<u16>().ok());
    port.filter(|port| *port != 0).map(|_| text.to_owned()).ok_or_else(|| "expected HOST:PORT".into())
}

/// A row whose command asks a broker: it gets a [`broker::Broker`] in place of the context.
macro_rules! admin {
    ($name:literal: $args:ty => $run:path) => {
        $crate::row::Entry {
            name: $name,
            exits: $crate::exits::Exits::Class,
            define: <$args as clap::Args>::augment_args,
            does: $crate::row::Does::Run(|matches, context| {
                let whom: $crate::kbs::Args = $crate::row::parse(matches)?;
                $run(&$crate::row::parse::<$args>(matches)?, &whom.broker(context)?)
            }),
        }
    };
}
use admin;

/// Commands to a broker.
pub const COMMANDS: &[Entry] = &[
    noun!("secret": secret),
    noun!("reference": reference),
    noun!("signer": signer),
    noun!("manifest-key": manifest_key),
    noun!("manifest": manifest),
    noun!("sealing": sealing),
    noun!("volume": volume),
    noun!("certificate": certificate),
    noun!("policy": policy),
    noun!("crl": crl),
    noun!("revoke": revoke),
    admin!("guests": guests::Args => guests::run),
    noun!("tenant": tenant),
    noun!("admin": operator),
    entry!(audit),
];

/// Whose secrets and rules.
#[derive(Debug, clap::Args)]
struct Tenant {
    /// Tenant, as workload specs name it.
    #[arg(long, default_value = "default", value_name = "NAME")]
    tenant: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for good in ["127.0.0.1:4481", "[::1]:4481", "kbs.acme.example:1"] {
            assert_eq!(host_and_port(good).as_deref(), Ok(good));
        }
        for bad in ["nonsense", ":4481", "host:", "host:x", "host:0", "host:70000"] {
            assert!(host_and_port(bad).is_err(), "{bad}");
        }
    }
}
