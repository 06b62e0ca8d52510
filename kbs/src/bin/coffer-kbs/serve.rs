//! `coffer-kbs serve`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::builder::NonEmptyStringValueParser;
use coffer_kbs::{
    Addresses, AuditLog, Clock, Config, ConfigFile, Reload, Rotation, Server, State, StateError, StoreError,
    checkpoint_path, config_path,
};
use coffer_rim::{
    Class, Classify as _, Failure, input,
    ready::{self, Announced},
    regular,
    usage::ip_and_port,
};
use coffer_verifier::{abi::SpkiDigest, root_digest};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{OrFail as _, Said as _};

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer-kbs serve --state ./kbs
  coffer-kbs serve --state ./kbs --listen 127.0.0.1:0 \\
      --admin-listen 127.0.0.1:0 --ready-file ready.json
  coffer-kbs serve --state ./kbs --tenant default \\
      --allow-simulated sim/ark-milan.der")]
pub struct Args {
    /// State folder made by `coffer-kbs init`.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Configuration [default: STATE/config.toml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where guests connect, instead of the configuration's; port 0: any.
    #[arg(long, value_name = "IP:PORT", value_parser = ip_and_port)]
    listen: Option<SocketAddr>,
    /// Where operators connect, instead of the configuration's; port 0: any.
    #[arg(long, value_name = "IP:PORT", value_parser = ip_and_port)]
    admin_listen: Option<SocketAddr>,
    /// Accept evidence under this simulated root for the tenant, where a secret allows it too: SHA-256 of the root's
    /// SubjectPublicKeyInfo, or the root certificate's file. May be repeated.
    #[arg(long, value_name = "HEX|FILE", requires = "tenant", value_parser = NonEmptyStringValueParser::new())]
    allow_simulated: Vec<String>,
    /// Tenant that --allow-simulated is for, which must be there.
    #[arg(long, value_name = "NAME", requires = "allow_simulated", value_parser = NonEmptyStringValueParser::new())]
    tenant: Option<String>,
    /// Write addresses and pin to this file, as JSON, once both listeners are open.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// Serves until told to stop.
pub fn run(args: &Args, as_json: bool) -> Result<(), Failure> {
    let path = args.config.clone().unwrap_or_else(|| config_path(&args.state));
    let config = configured(args, &path)?;
    open_to_others(&args.state);
    open_files(2 * config.source.all_told + OTHER_FILES);
    said(&config.cautions(Clock::system().now()));
    let checkpoint = config.checkpoint.as_deref().unwrap_or(Path::new("checkpoint"));
    one_checkpoint(args, &args.state.join(checkpoint))?;
    let event_loop = crate::event_loop()?;
    let ended = event_loop.block_on(async {
        let state = State::open(&args.state).await.or_fail()?;
        ready::clear_stale(args.ready_file.as_deref())?;
        let log = AuditLog::queued(coffer_rim::out::print_again).class_while(Class::Internal, "beginning to print")?;
        let server = Server::bind(state, config, log, Clock::system()).await.or_fail()?;
        // Signals are taken before anybody is told that we are ready.
        let taken = |kind| signal(kind).class_while(Class::Internal, "waiting for signals");
        let (mut term, mut int) = (taken(SignalKind::terminate())?, taken(SignalKind::interrupt())?);
        let reloading = reload(args, &path, taken(SignalKind::hangup())?, server.reload());
        let rotating = rotate(taken(SignalKind::user_defined1())?, server.rotation());
        let _announced = announce(args, server.addresses(), as_json)?;
        let told_to_stop = async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            tracing::info!("stopping: open calls may finish");
        };
        tokio::select! {
            ended = Box::pin(server.run(told_to_stop)) => ended.map_err(|error| error.said()),
            never = reloading => match never {},
            never = rotating => match never {},
        }
    });
    // What still computes has nobody to answer to; what was committed is safe.
    event_loop.shutdown_timeout(LAST_WORK);
    ended
}

/// All other commands know the folder alone: a checkpoint that only another configuration names would be none to `state verify`, `backup`
/// and `restore`.
fn one_checkpoint(args: &Args, wanted: &Path) -> Result<(), Failure> {
    let (Some(config), theirs) = (&args.config, checkpoint_path(&args.state)) else { return Ok(()) };
    if same_place(wanted, &theirs) {
        return Ok(());
    }
    let (config, wanted, theirs) = (config.display(), wanted.display(), theirs.display());
    let message =
        format!("{config} says that the checkpoint is {wanted}; by the state folder's own config.toml it is {theirs}");
    Err(Failure::new(Class::Config, message)
        .hint("give both the same `checkpoint`: other commands look at the folder's alone"))
}

/// One place by two names, also where nothing is yet.
fn same_place(one: &Path, other: &Path) -> bool {
    let whole = |path: &Path| {
        let folder = path.parent().and_then(|folder| std::fs::canonicalize(folder).ok())?;
        Some(folder.join(path.file_name()?))
    };
    one == other || whole(one).is_some_and(|one| whole(other) == Some(one))
}

/// Says so where others reach the folder, as `doctor` does: they may only see names, for each key in it is private.
fn open_to_others(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(folder).map_or(0, |there| there.permissions().mode() & 0o777);
    if mode & 0o077 != 0 {
        tracing::warn!(folder = %folder.display(), mode = %format_args!("{mode:04o}"), "others reach the state folder; hint: chmod 700");
    }
}

/// For work beside the event loop that still runs at the end.
const LAST_WORK: Duration = Duration::from_secs(1);

/// Files beside guests' connections: operators' connections, the database, logs.
const OTHER_FILES: usize = 1024;

/// Each connection is an open file: as many as the system allows, so that strangers do not use up those of the database.
fn open_files(needed: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = getrlimit(Resource::Nofile).maximum;
    // Where it is not allowed, what was given before is what there is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
    if let Some(found) = getrlimit(Resource::Nofile).current.filter(|found| *found < needed as u64) {
        tracing::warn!(found, needed, "strangers can use up the open files this process may have: raise LimitNOFILE");
    }
}

/// The file, with what the flags say in its place.
fn configured(args: &Args, path: &Path) -> Result<Config, Failure> {
    let mut file = ConfigFile::read(path).or_fail()?;
    if let Some(listen) = args.listen {
        file.listen = listen.to_string();
    }
    if let Some(listen) = args.admin_listen {
        file.admin_listen = listen.to_string();
    }
    let listed = args.tenant.as_ref().is_none_or(|tenant| file.tenants.contains_key(tenant));
    if let Some(tenant) = &args.tenant {
        let entry = file.tenants.entry(tenant.clone()).or_default();
        for anchor in &args.allow_simulated {
            entry.simulated_anchors.push(self::anchor(anchor)?.to_string());
        }
    }
    let mut config = file.resolve(path.parent().unwrap_or(Path::new("."))).or_fail()?;
    if let Some(tenant) = args.tenant.as_ref().filter(|_| !listed) {
        config.only_names(tenant, "--tenant");
    }
    Ok(config)
}

/// The same while others wait for nothing of it. A file system that gives no answer keeps a thread that nobody waits for, not even
/// at the end.
async fn configured_beside(args: &Args, path: &Path) -> Result<Config, Failure> {
    let (done, read) = tokio::sync::oneshot::channel();
    let (args, path) = (args.clone(), path.to_owned());
    let reading = move || drop(done.send(configured(&args, &path)));
    std::thread::Builder::new().spawn(reading).class_while(Class::Internal, "reading the configuration")?;
    match tokio::time::timeout(READING, read).await {
        Ok(Ok(config)) => config,
        Ok(Err(_)) => Err(Failure::new(Class::Internal, "reading the configuration came to no end")),
        Err(_) => {
            let hint = "a file it names lies where nothing answers: mend that, and ask again";
            Err(Failure::new(Class::Config, format!("reading the configuration took over {READING:?}")).hint(hint))
        }
    }
}

/// How long reading the configuration again may take.
const READING: Duration = Duration::from_secs(20);

/// What whoever reads the log should know of a configuration that counts.
fn said(cautions: &[String]) {
    for caution in cautions {
        tracing::warn!("{caution}");
    }
}

/// Reads the configuration again whenever the system says SIGHUP: all of it counts, or none.
async fn reload(args: &Args, path: &Path, mut hangup: Signal, reload: Reload) -> std::convert::Infallible {
    loop {
        if hangup.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        let applied = match configured_beside(args, path).await {
            Ok(config) => {
                let cautions = config.cautions(Clock::system().now());
                let applied = reload.apply(config).await.map_err(|error| error.said());
                if applied.is_ok() {
                    said(&cautions);
                }
                applied
            }
            Err(failure) => Err(failure),
        };
        match applied {
            Ok(waiting) => {
                tracing::info!(
                    "configuration read again: certificates, revocation lists, floors, policies and simulated roots count from now on"
                );
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

/// What a new root key asks of the operator.
pub const NEW_ROOT_KEY: &str = "backups without a recovery key need the key of their time: make a new one now";

/// Changes the root key whenever the system says SIGUSR1.
async fn rotate(mut told: Signal, rotation: Rotation) -> std::convert::Infallible {
    loop {
        if told.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        match rotation.apply().await {
            Ok(ends) => tracing::info!(%ends, "root key changed: {NEW_ROOT_KEY}"),
            Err(error @ StateError::Store(StoreError::Traces(_))) => {
                let hint = "it is tried again; end what reads the database (a backup, `state verify`)";
                tracing::error!(error = %coffer_rim::chain(&error), hint, "root key changed; the old one opens what still lies there");
            }
            Err(error) => {
                tracing::error!(error = %coffer_rim::chain(&error), hint = error.hint(), "root key was not changed");
            }
        }
    }
}

fn announce(args: &Args, addresses: Addresses, as_json: bool) -> Result<Announced, Failure> {
    let Addresses { listen, admin_listen, metrics_listen, pin } = addresses;
    let mut ready = json!({ "listen": listen, "admin_listen": admin_listen, "pin": pin });
    if let Some(metrics) = metrics_listen {
        ready["metrics_listen"] = json!(metrics);
    }
    let text = format!("coffer-kbs listening on {listen}, admin on {admin_listen}, pin {pin}");
    let (announced, document) = ready::announce(args.ready_file.as_deref(), ready)?;
    coffer_rim::println!("{}", if as_json { document } else { text });
    Ok(announced)
}

fn anchor(text: &str) -> Result<SpkiDigest, Failure> {
    if let Ok(digest) = text.parse() {
        return Ok(digest);
    }
    let hint =
        "give 64 hex digits, or the simulator's root certificate, ark-PRODUCT.der; `coffer sim init` prints both";
    let bad = |message: String| Failure::new(Class::Config, message).hint(hint);
    let bytes = regular::read(text.as_ref(), input::DOCUMENT)
        .map_err(|error| bad(format!("simulated anchor {text}: {error}")))?;
    root_digest(&bytes).map_err(|error| bad(format!("simulated anchor {text}: {}", coffer_rim::chain(&error))))
}
