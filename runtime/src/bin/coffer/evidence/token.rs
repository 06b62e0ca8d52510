//! `coffer token`: results for others, signed (EAR), and the other end that reads one.

mod issue;
mod keys;
mod verify;

use crate::row::Entry;

/// Issue results as signed tokens (EAR), and decide about one.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer token init --out keys.json
  coffer token issue evidence.cmw --policy fleet.toml --keys keys.json \\
      --iss https://verifier.example --aud https://bank.example > token.jwt
  coffer token jwks keys.json > jwks.json
  coffer token verify token.jwt --jwks jwks.json --aud https://bank.example")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] = &[
    command!("init": keys::InitArgs => keys::init),
    command!("rotate": keys::RotateArgs => keys::rotate),
    command!("jwks": keys::JwksArgs => keys::jwks),
    command!("configuration": keys::ConfigurationArgs => keys::configuration),
    command!("issue": issue),
    command!("show": verify::ShowArgs => verify::show),
    command!("verify": verify),
];
