//! The command line: one variant per subcommand, each with its own file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use coffer_runtime::boxes::unix_ms;
use coffer_runtime::supervisor::of_state;
use coffer_runtime::tools::Search;
use coffer_runtime::{Home, State};

use crate::error::{Class, Classify as _, CliError};
use crate::{
    attest, bench, completion, create, doctor, exec, id_block, id_key, images, inject_secret, inspect, kbs, logs,
    manifest, measure, owner, platform, ps, pull, report, restart, rm, rmi, run, seal, sim, spec, start, stop,
    supervise, verify, version,
};

/// Runs OCI images in attested microVMs.
#[derive(Debug, Parser)]
#[command(name = "coffer", version, propagate_version = false, disable_help_subcommand = true)]
pub struct Cli {
    /// Print JSON instead of tables and text.
    #[arg(long, global = true)]
    pub json: bool,

    /// Where boxes, images and keys are kept [default: /var/lib/coffer as root, else ~/.local/share/coffer].
    #[arg(long, global = true, env = "COFFER_HOME", value_name = "DIR", hide_env_values = true)]
    pub home: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Every subcommand.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a box from an image and run it.
    Run(Box<run::Args>),
    /// Create a box from an image, to be started later.
    Create(Box<create::Args>),
    /// Start boxes that are not running.
    Start(start::Args),
    /// Stop running boxes: their stop signal, then the power.
    Stop(stop::Args),
    /// Stop boxes and start them again.
    Restart(restart::Args),
    /// List boxes.
    #[command(visible_alias = "ls")]
    Ps(ps::Args),
    /// Show the output of a box.
    Logs(logs::Args),
    /// Run a program in a running box.
    Exec(exec::Args),
    /// Remove boxes.
    Rm(rm::Args),
    /// Print everything known of boxes.
    Inspect(inspect::Args),
    /// Pull an image and make its root file system.
    Pull(pull::Args),
    /// List images.
    Images(images::Args),
    /// Remove images.
    Rmi(rmi::Args),
    /// Have the guest of a box prove what it is.
    Attest(attest::Args),
    /// Write a secret into a guest that proves itself first.
    InjectSecret(inject_secret::Args),
    /// Seal a file to the guest of a box.
    Seal(seal::SealArgs),
    /// Open what `seal` sealed.
    Unseal(seal::UnsealArgs),
    /// Predict what `run` with the same flags measures, from files alone.
    Measure(Box<measure::Args>),
    /// Make or check signed reference manifests.
    Manifest(manifest::Args),
    /// Make or show keys that sign launches.
    IdKey(id_key::Args),
    /// Sign a launch for somebody else's machine.
    IdBlock(id_block::Args),
    /// Write the workload spec that `run` with the same flags launches.
    Spec(Box<spec::Args>),
    /// Show what guests boot from.
    Platform(platform::Args),
    /// Make or show the local owner's key.
    Owner(owner::Args),
    /// Decide about evidence in a file, offline.
    Verify(Box<verify::Args>),
    /// Show what a report says.
    Report(report::Args),
    /// Manage a key broker.
    Kbs(Box<kbs::Args>),
    /// Make simulated evidence and attacks, and check verifiers with them.
    Sim(sim::Args),
    /// Measure how fast this machine decides about evidence.
    Bench(bench::Args),
    /// Check what this machine can run, and say why not.
    Doctor(doctor::Args),
    /// Print a completion script.
    Completion(completion::Args),
    /// Print the version.
    Version(version::Args),
    /// The process behind a running box.
    #[command(hide = true)]
    Supervise(supervise::Args),
}

impl Command {
    /// Runs it.
    pub fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        match self {
            Self::Run(args) => run::run(&args, context),
            Self::Create(args) => create::run(&args, context),
            Self::Start(args) => start::run(&args, context),
            Self::Stop(args) => stop::run(&args, context),
            Self::Restart(args) => restart::run(&args, context),
            Self::Ps(args) => ps::run(&args, context),
            Self::Logs(args) => logs::run(&args, context),
            Self::Exec(args) => exec::run(&args, context),
            Self::Rm(args) => rm::run(&args, context),
            Self::Inspect(args) => inspect::run(&args, context),
            Self::Pull(args) => pull::run(&args, context),
            Self::Images(args) => images::run(&args, context),
            Self::Rmi(args) => rmi::run(&args, context),
            Self::Attest(args) => attest::run(&args, context),
            Self::InjectSecret(args) => inject_secret::run(&args, context),
            Self::Seal(args) => seal::seal(&args, context),
            Self::Unseal(args) => seal::unseal(&args, context),
            Self::Measure(args) => measure::run(&args, context),
            Self::Manifest(args) => manifest::run(&args, context),
            Self::IdKey(args) => id_key::run(&args, context),
            Self::IdBlock(args) => id_block::run(&args, context),
            Self::Spec(args) => spec::run(&args, context),
            Self::Platform(args) => platform::run(&args, context),
            Self::Owner(args) => owner::run(&args, context),
            Self::Verify(args) => verify::run(&args, context),
            Self::Report(args) => report::run(&args, context),
            Self::Kbs(args) => kbs::run(args, context),
            Self::Sim(args) => sim::run(args, context),
            Self::Bench(args) => bench::run(&args, context),
            Self::Doctor(args) => doctor::run(&args, context),
            Self::Completion(args) => completion::run(&args, context),
            Self::Version(args) => version::run(&args, context),
            Self::Supervise(args) => supervise::run(&args, context),
        }
    }
}

/// What every subcommand gets besides its own arguments. The environment is read here and nowhere below.
#[derive(Clone, Debug)]
pub struct Context {
    /// `--json` was given.
    pub json: bool,
    /// `$COFFER_HOME`, resolved; not yet created.
    pub home: PathBuf,
    /// Where programs and platform files are looked for.
    pub search: Search,
    /// Docker's configuration file, for credentials of registries.
    pub docker_config: Option<PathBuf>,
}

impl Context {
    /// From the global arguments and the environment.
    pub fn new(json: bool, home: Option<PathBuf>) -> Self {
        let path_of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let user_home = path_of("HOME");
        let docker = path_of("DOCKER_CONFIG").or_else(|| user_home.as_ref().map(|home| home.join(".docker")));
        let search = Search {
            qemu: path_of("COFFER_QEMU"),
            vhost_vsock: path_of("COFFER_VHOST_VSOCK"),
            platform: path_of("COFFER_PLATFORM"),
            path: std::env::var_os("PATH"),
            exe_folder: std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf)),
            user_home,
        };
        let docker_config = docker.map(|folder| folder.join("config.json"));
        Self { json, home: home.unwrap_or_else(default_home), search, docker_config }
    }

    /// The home, made if it is not there.
    ///
    /// # Errors
    /// Class `config`.
    pub fn open_home(&self) -> Result<Home, CliError> {
        Home::open(&self.home).map_err(|error| {
            let failure = CliError::caused(Class::Config, &error);
            match error.hint() {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        })
    }

    /// Home and box database, with the records of dead supervisors mended.
    ///
    /// # Errors
    /// Class `config`.
    pub fn open_state(&self) -> Result<(Home, State), CliError> {
        let home = self.open_home()?;
        let state = State::open(&home).map_err(of_state)?;
        state.reconcile(&home, unix_ms()).map_err(of_state)?;
        Ok((home, state))
    }

    /// Our own executable, for supervisors.
    ///
    /// # Errors
    /// Class `internal`.
    #[allow(clippy::unused_self, reason = "every command asks its context, whatever it will hold")]
    pub fn exe(&self) -> Result<PathBuf, CliError> {
        std::env::current_exe().class_while(Class::Internal, "finding our own executable")
    }

    /// An event loop for this one command.
    ///
    /// # Errors
    /// Class `internal` if the system gives us no threads.
    #[allow(clippy::unused_self, reason = "every command asks its context, whatever it will hold")]
    pub fn runtime(&self) -> Result<tokio::runtime::Runtime, CliError> {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .class_while(Class::Internal, "starting the event loop")
    }
}

fn default_home() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/coffer");
    }
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let data = data.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share")));
    data.unwrap_or_else(|| PathBuf::from("/var/lib")).join("coffer")
}

/// Exit code of a failed command line. `run`, `create`, `start` and `exec` give the workload's own codes to the caller,
/// so each failure of ours is 125 there, except that a program is not found (127) or cannot be executed (126).
pub fn failure_code(failure: &CliError, words: &[String]) -> u8 {
    if is_docker_verb(words) { failure.docker_code.unwrap_or(125) } else { failure.class.code() }
}

/// Finds the subcommand among words that clap may have refused. Global flags may stand before it.
fn is_docker_verb(words: &[String]) -> bool {
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        if word == "--home" {
            words.next();
        } else if !word.starts_with('-') {
            return matches!(word.as_str(), "run" | "create" | "start" | "exec");
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(String::from).collect()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn only_dockers_verbs_fail_with_125() {
        let code = |class, line| failure_code(&CliError::new(class, ""), &words(line));
        assert_eq!(code(Class::Usage, "coffer --json --home /x run --nosuch"), 125);
        assert_eq!(code(Class::Platform, "coffer start b"), 125);
        assert_eq!(code(Class::Usage, "coffer ps run"), 2);
        assert_eq!(code(Class::NotFound, "coffer rm run"), 1);
    }
}
