//! What `create` and `run` are told about the box they make.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use coffer_rim::input;
use coffer_runtime::boxes::{LogLimits, Timings};
use coffer_runtime::engine::{CreateRequest, Engine, ProgressFn};
use coffer_runtime::request::bytes;
use coffer_runtime::{BoxId, RestartPolicy};

use crate::boxes::flags::{BoxFlags, secrets_in_the_open};
use crate::boxes::health::HealthFlags;
use crate::boxes::unproven;
use crate::context::Context;
use crate::error::{Class, Classify as _, CliError, NamedFile as _};
use crate::image::progress;
use crate::launch::id_flags::IdFlags;

/// Its name and end, its launch, and what runs in it.
#[derive(Debug, clap::Args)]
pub struct NewBox {
    /// Name of the box [default: adjective_noun].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What becomes of the box when it ends: no, on-failure[:COUNT], always or unless-stopped.
    #[arg(long, value_name = "POLICY", default_value_t)]
    restart: RestartPolicy,
    /// Remove the box when it ends.
    #[arg(long)]
    rm: bool,
    /// Write the box's id to this file, which must not be there yet.
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// What the box is found by: `coffer ps --filter label=KEY`.
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// How much output is kept: max-size=SIZE of a file [default: 32m], max-file=COUNT of files [default: 2].
    #[arg(long, value_name = "KEY=VALUE")]
    log_opt: Vec<String>,
    /// Read labels from a file, one a line.
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Seconds between the stop signal and the end, where `coffer stop` says nothing else [default: 10].
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<u32>,
    /// No progress of pulls.
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    health: HealthFlags,
    #[command(flatten)]
    id: IdFlags,
    #[command(flatten)]
    flags: BoxFlags,
}

impl NewBox {
    /// As the engine takes it.
    pub fn request(&self, engine: &Engine, timings: Timings) -> Result<CreateRequest, CliError> {
        let what = self.flags.request(engine)?;
        unproven::say_of(what.tee_demanded());
        secrets_in_the_open(&what);
        Ok(CreateRequest {
            what,
            name: self.name.clone(),
            remove: self.rm,
            labels: self.labels()?,
            stop_timeout: self.stop_timeout,
            restart: self.restart,
            log: self.log()?,
            health: self.health.words(),
            identity: self.id.identity()?,
            timings,
        })
    }

    fn log(&self) -> Result<Option<LogLimits>, CliError> {
        let mut limits = LogLimits::default();
        for text in &self.log_opt {
            let refused = |why: &str| {
                CliError::new(Class::Usage, format!("invalid value {text:?} for --log-opt: {why}"))
                    .hint("write max-size=10m or max-file=3")
            };
            match text.split_once('=').ok_or_else(|| refused("it has no value"))? {
                ("max-size", size) => {
                    let bytes = bytes(size).filter(|bytes| *bytes >= LogLimits::LEAST_BYTES);
                    limits.max_bytes = bytes.ok_or_else(|| refused("expected a size of at least 32k"))?;
                }
                ("max-file", count) => {
                    let files = count.parse().ok().filter(|files| (1..=LogLimits::MOST_FILES).contains(files));
                    limits.files = files.ok_or_else(|| refused("expected a number of 1 to 100"))?;
                }
                _ => return Err(refused("there are max-size and max-file")),
            }
        }
        Ok((!self.log_opt.is_empty()).then_some(limits))
    }

    fn labels(&self) -> Result<BTreeMap<String, String>, CliError> {
        let mut texts = Vec::new();
        for path in &self.label_file {
            let what = || format!("cannot read {}", path.display());
            let text = input::read_text(path, input::DOCUMENT).named(what())?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            texts.extend(lines.map(str::to_owned));
        }
        texts.extend(self.label.iter().cloned());
        labels(&texts)
    }

    /// The file that the id goes to, made before the box is: no box is made whose id nobody learns. It goes again if no box
    /// comes of it.
    pub fn id_file(&self) -> Result<Option<IdFile>, CliError> {
        let Some(path) = self.cidfile.clone() else { return Ok(None) };
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => Ok(Some(IdFile { file, path, written: false })),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let message = format!("the file for the box's id is there already: {}", path.display());
                Err(CliError::new(Class::Config, message).hint("make sure no other box goes by it, and remove it"))
            }
            Err(error) => Err(error).class_while(Class::Config, format!("cannot write {}", path.display())),
        }
    }

    /// Image and program, as typed.
    pub fn words(&self) -> &[String] {
        &self.flags.words
    }

    /// How a pull is shown.
    pub fn progress(&self, context: &Context) -> Option<ProgressFn> {
        progress::shown(self.quiet || context.json)
    }
}

/// What something is found by; the last of a key wins.
///
/// # Errors
/// Class `usage` for a label without a key.
pub fn labels(texts: &[String]) -> Result<BTreeMap<String, String>, CliError> {
    let one = |text: &String| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if key.trim().is_empty() {
            return Err(CliError::new(Class::Usage, format!("invalid label {text:?}: it has no key")));
        }
        Ok((key.to_owned(), value.to_owned()))
    };
    texts.iter().map(one).collect()
}

/// A file for an id.
#[derive(Debug)]
pub struct IdFile {
    file: File,
    path: PathBuf,
    written: bool,
}

impl IdFile {
    /// Writes the id.
    pub fn write(mut self, id: &BoxId) -> Result<(), CliError> {
        let what = format!("cannot write {}", self.path.display());
        self.file.write_all(id.as_str().as_bytes()).class_while(Class::Config, what)?;
        self.written = true;
        Ok(())
    }
}

impl Drop for IdFile {
    fn drop(&mut self) {
        if !self.written {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
