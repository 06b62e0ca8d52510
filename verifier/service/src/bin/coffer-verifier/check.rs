//! `coffer-verifier check`.

use std::path::{Path, PathBuf};

use coffer_rim::Failure;
use coffer_verifier_service::{Config, ConfigFile, config_path};
use serde_json::json;

use crate::error::Said as _;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer-verifier check --state ./verifier")]
pub struct Args {
    /// State folder made by `coffer-verifier init`.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Configuration [default: STATE/config.toml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The configuration, and all that it names.
pub fn configured(path: &Path, change: impl FnOnce(&mut ConfigFile)) -> Result<Config, Failure> {
    let mut file = ConfigFile::read(path).map_err(|error| error.said())?;
    change(&mut file);
    file.resolve(path.parent().unwrap_or(Path::new("."))).map_err(|error| error.said())
}

/// Says every mistake, or what there is.
pub fn run(args: &Args, as_json: bool) -> Result<(), Failure> {
    let path = args.config.clone().unwrap_or_else(|| config_path(&args.state));
    let config = configured(&path, |_| {})?;
    let policies = config.appraiser.policies.to_json();
    let issuer = config.appraiser.issuer.as_ref().map(|issuer| issuer.issuer.to_string());
    if as_json {
        let mut value = policies;
        value["listen"] = json!(config.listen);
        value["issuer"] = json!(issuer);
        value["tls"] = json!(config.tls.is_some());
        coffer_rim::println!("{value}");
        return Ok(());
    }
    coffer_rim::println!("listen    {}{}", config.listen, if config.tls.is_some() { "" } else { " (plain HTTP)" });
    coffer_rim::println!("issuer    {}", issuer.as_deref().unwrap_or("none: no tokens"));
    for policy in config.appraiser.policies.iter() {
        let is_default = policies["default"] == policy.name.as_str();
        let simulated = policy.simulated_roots().len();
        let more = [
            is_default.then(|| "default".to_owned()),
            policy.has_rego().then(|| "with Rego".to_owned()),
            (simulated > 0).then(|| format!("believes {simulated} simulated roots")),
        ];
        let more = more.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let more = if more.is_empty() { more } else { format!(" ({more})") };
        coffer_rim::println!("policy    {} {}{more}", policy.name, &policy.revision.as_str()[..16]);
    }
    Ok(())
}
