//! `coffer-verifier check`.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use coffer_rim::Failure;
use coffer_verifier::UnixTime;
use coffer_verifier_service::{Config, ConfigFile, config_path};
use serde_json::json;

use crate::error::Said as _;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = KEYS)]
pub struct Args {
    /// State folder made by `coffer-verifier init`.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Configuration [default: STATE/config.toml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Every key, for whoever has the program and not its pages.
const KEYS: &str = "\
Keys of config.toml. Files are relative to its folder; those with a secret have mode 0600. What reads `listen` to `limits` counts at the \
next start, all else at SIGHUP too.

  listen                             IP:PORT
  local_socket                       true: a Unix socket too, in the folder
  challenge_key                      file; replicas share it
  [kds] service, simulated_service   who is asked for what evidence lacks
        offline                      true: nobody; what is kept is all
  traces                             http://IP:PORT of a collector here
  [limits] connections, requests, requests_of_one, request_bytes,
           request_seconds, head_seconds
  issuer, token_keys                 who issues tokens, and the keys of it
  default_policy                     left out: strict
  endorsements                       certificates and lists, files
  [tls] certificate, key, client_roots
  [[api_keys]] name, sha256          `coffer-verifier api-key` writes one
  [policies.NAME] floor              strict, vmpl-and-debug-alone or TOML
                  rego, bundle_key   Rego behind it, and who signed it
                  simulated_evidence_is_believed_of
  plain_http_for_this_machine_alone  true: no TLS, on the loopback alone
  anyone_who_connects_may_ask        true: with no key and no certificate

Examples:
  coffer-verifier check --state ./verifier";

/// The configuration, and all that it names.
pub fn configured(path: &Path, change: impl FnOnce(&mut ConfigFile)) -> Result<Config, Failure> {
    let mut file = ConfigFile::read(path).map_err(|error| error.said())?;
    change(&mut file);
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    file.resolve(folder).map_err(|error| {
        let absent = error.mistakes().iter().any(|one| one.contains("No such file"));
        let failure = error.said();
        if !absent {
            return failure;
        }
        let hint =
            format!("files are relative to the folder of the configuration, {}; {}", folder.display(), error.hint());
        failure.hint(hint)
    })
}

fn now() -> UnixTime {
    SystemTime::now().into()
}

/// What does not keep a configuration from being used, and nobody will have meant.
pub fn warnings(config: &Config) -> Vec<String> {
    config.warnings(now())
}

/// Says every mistake, or what there is.
pub fn run(args: &Args, as_json: bool) -> Result<(), Failure> {
    let path = args.config.clone().unwrap_or_else(|| config_path(&args.state));
    let config = configured(&path, |_| {})?;
    let warnings = warnings(&config);
    let policies = config.appraiser.policies.to_json();
    let issuer = config.appraiser.issuer.as_ref().map(|issuer| issuer.issuer.to_string());
    if as_json {
        let mut value = policies;
        value["listen"] = json!(config.listen);
        value["issuer"] = json!(issuer);
        value["tls"] = json!(config.tls.is_some());
        value["warnings"] = json!(warnings);
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
    for warning in &warnings {
        coffer_rim::println!("warning   {}", coffer_rim::foreign(warning));
    }
    Ok(())
}
