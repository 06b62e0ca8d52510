//! `coffer-verifier serve`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use coffer_rim::{
    Class, Classify as _, Failure,
    ready::{self, Announced},
    sys::heap::keep_freed,
    usage::ip_and_port,
};
use coffer_verifier_service::{Config, ConfigFile, Reload, Server, config_path};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    check::{configured, warnings},
    error::Said as _,
};

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
SIGHUP reads the configuration and what it names again: all of it counts, or none. SIGTERM lets what was begun come to its end.

Examples:
  coffer-verifier serve --state ./verifier
  coffer-verifier serve --state ./verifier --listen 127.0.0.1:0 \\
      --ready-file ready.json")]
pub struct Args {
    /// State folder made by `coffer-verifier init`.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Configuration [default: STATE/config.toml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where callers connect, instead of the configuration's; port 0: any.
    #[arg(long, value_name = "IP:PORT", value_parser = ip_and_port)]
    listen: Option<SocketAddr>,
    /// Write the address to this file, as JSON, once the listener is open.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

impl Args {
    fn path(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| config_path(&self.state))
    }

    fn configured(&self) -> Result<Config, Failure> {
        let change = |file: &mut ConfigFile| {
            if let Some(listen) = self.listen {
                file.listen = listen.to_string();
            }
        };
        configured(&self.path(), change)
    }
}

/// For work beside the event loop that still runs at the end.
const LAST_WORK: Duration = Duration::from_secs(1);

/// Serves until told to stop.
pub fn run(args: &Args, as_json: bool) -> Result<(), Failure> {
    // Bodies and answers are taken and freed all the time.
    keep_freed();
    let config = args.configured()?;
    open_to_others(&args.state);
    warn(&config);
    for policy in config.appraiser.policies.iter().filter(|policy| !policy.simulated_roots().is_empty()) {
        tracing::warn!(policy = %policy.name, "policy believes simulated evidence, which proves nothing about hardware");
    }
    let event_loop = crate::event_loop::event_loop()?;
    ready::clear_stale(args.ready_file.as_deref())?;
    let ended = event_loop.block_on(async {
        let server = Server::bind(config, &args.state).await.map_err(|error| error.said())?;
        // Signals are taken before anybody is told that we are ready.
        let taken = |kind| signal(kind).class_while(Class::Internal, "waiting for signals");
        let (mut term, mut int) = (taken(SignalKind::terminate())?, taken(SignalKind::interrupt())?);
        let reloading = reload(args, taken(SignalKind::hangup())?, server.reload());
        let _announced = announce(args, server.address().class(Class::Internal)?, as_json)?;
        let told_to_stop = async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            tracing::info!("stopping: what was begun may finish");
        };
        tokio::select! {
            () = Box::pin(server.run(told_to_stop)) => Ok(()),
            never = reloading => match never {},
        }
    });
    event_loop.shutdown_timeout(LAST_WORK);
    ended
}

/// Says so where others may put something else in the place of a key or of the configuration, each of which is private by itself.
fn open_to_others(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(folder).map_or(0, |there| there.permissions().mode() & 0o777);
    if mode & 0o077 != 0 {
        tracing::warn!(folder = %folder.display(), mode = %format_args!("{mode:04o}"), "others reach the state folder; hint: chmod 700");
    }
}

fn warn(config: &Config) {
    if config.access.anyone {
        tracing::warn!("anyone_who_connects_may_ask: whoever connects asks, with no key and no certificate");
    }
    for what in warnings(config) {
        tracing::warn!("configuration: {}", coffer_rim::foreign(&what));
    }
}

/// Reads the configuration again whenever the system says SIGHUP.
async fn reload(args: &Args, mut hangup: Signal, reload: Reload) -> std::convert::Infallible {
    loop {
        if hangup.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        let again = args.clone();
        let read = tokio::task::spawn_blocking(move || again.configured()).await;
        match read.class(Class::Internal).and_then(|read| read) {
            Ok(config) => {
                warn(&config);
                let waiting = reload.apply(config);
                tracing::info!("configuration read again: it counts from now on");
                if !waiting.is_empty() {
                    let keys = waiting.join(", ");
                    tracing::warn!(%keys, "changed since the start, and as it was until the next one: start again for it to count");
                }
            }
            Err(failure) => {
                let (error, hint) = (failure.to_string(), failure.hint.unwrap_or_default());
                tracing::error!(%error, hint, "configuration was not read again: everything is as it was");
            }
        }
    }
}

fn announce(args: &Args, listen: SocketAddr, as_json: bool) -> Result<Announced, Failure> {
    let text = format!("coffer-verifier listening on {listen}");
    let (announced, document) = ready::announce(args.ready_file.as_deref(), json!({ "listen": listen }))?;
    coffer_rim::println!("{}", if as_json { document } else { text });
    Ok(announced)
}
