//! What every command gets besides its own arguments.
//!
//! Never: created anywhere but in `cli`, changed, read from the environment a second time.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use coffer_runtime::boxes::unix_ms;
use coffer_runtime::engine::{Engine, Settings};
use coffer_runtime::monitor::VARIABLES;
use coffer_runtime::supervisor::of_state;
use coffer_runtime::tools::Search;
use coffer_runtime::trail::{Act, Trail};
use coffer_runtime::{Home, State};

use crate::error::{Class, Classify as _, CliError};
use crate::exits::Exits;

/// What every command gets besides its own arguments. The environment is read here and nowhere below.
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
    /// `$COFFER_KBS_PROFILE`.
    pub kbs_profile: Option<PathBuf>,
    /// `$COFFER_KBS_ADDRESS`.
    pub kbs_address: Option<String>,
    exits: Exits,
    /// The class of what the command has said itself.
    failed: Arc<Mutex<Option<Class>>>,
    /// The words of every command that is recorded.
    pub acts: fn() -> Vec<String>,
    /// The boxes among the names of a line of this act, whether there are such boxes or not.
    pub boxes_named: fn(&str, &[String]) -> Vec<String>,
    /// What is recorded once a guest has taken what it was asked.
    taken: Arc<OnceLock<(Trail, Act)>>,
    /// What the command turned out to be about, beside what its words name.
    found: Arc<Mutex<Vec<String>>>,
}

impl Context {
    /// From the global arguments, the environment, and whose exit codes the command has.
    pub fn new(json: bool, home: Option<PathBuf>, exits: Exits) -> Self {
        let path_of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let user_home = path_of("HOME");
        let docker = path_of("DOCKER_CONFIG").or_else(|| user_home.as_ref().map(|home| home.join(".docker")));
        let search = Search {
            named: VARIABLES.into_iter().filter_map(|name| Some((name, path_of(name)?))).collect(),
            platform: path_of("COFFER_PLATFORM"),
            path: std::env::var_os("PATH"),
            exe_folder: std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf)),
            user_home,
        };
        let docker_config = docker.map(|folder| folder.join("config.json"));
        Self {
            json,
            home: home.or_else(|| path_of("COFFER_HOME")).unwrap_or_else(default_home),
            search,
            docker_config,
            kbs_profile: path_of("COFFER_KBS_PROFILE"),
            kbs_address: std::env::var("COFFER_KBS_ADDRESS").ok().filter(|address| !address.is_empty()),
            exits,
            failed: Arc::default(),
            acts: Vec::new,
            boxes_named: |_, _| Vec::new(),
            taken: Arc::default(),
            found: Arc::default(),
        }
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

    /// The engine of this installation; it opens what an operation needs.
    ///
    /// # Errors
    /// Class `internal`.
    pub fn engine(&self) -> Result<Engine, CliError> {
        Ok(Engine::new(Settings {
            home: self.home.clone(),
            search: self.search.clone(),
            docker_config: self.docker_config.clone(),
            supervisor: self.exe()?,
        }))
    }

    /// Our own executable, for supervisors.
    ///
    /// # Errors
    /// Class `internal`.
    #[allow(clippy::unused_self, reason = "every command asks its context, whatever it will hold")]
    pub fn exe(&self) -> Result<PathBuf, CliError> {
        std::env::current_exe().class_while(Class::Internal, "finding our own executable")
    }

    /// Exit code of a failure that the command has said itself.
    pub fn exit(&self, failure: &CliError) -> ExitCode {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure.class);
        ExitCode::from(self.exits.code(failure))
    }

    /// The class of the last failure that the command has said itself.
    pub fn failed(&self) -> Option<Class> {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The command is about these things too, which none of its words names.
    pub fn is_about(&self, names: impl IntoIterator<Item = String>) {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).extend(names);
    }

    /// What it said so of.
    pub fn found(&self) -> Vec<String> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What [`Self::taken`] records.
    pub fn record_when_taken(&self, trail: Trail, act: Act) {
        let _ = self.taken.set((trail, act));
    }

    /// A guest has taken what this command asked for, which goes on from now. That is so whether it can be recorded or not.
    pub fn taken(&self) {
        let Some((trail, act)) = self.taken.get() else { return };
        if let Err(error) = trail.add(act) {
            tracing::warn!(error = &error as &dyn std::error::Error, "that this began is not in the trail");
        }
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
