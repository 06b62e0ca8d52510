//! Flags shared by the commands that describe a box: `run`, `create`, `measure`, `spec`.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use coffer_image::{Image, Progress, PullOptions, Rootfs, Snapshot};
use coffer_rim::Foreign;
use coffer_runtime::images::{defaults, of_image, verity};
use coffer_runtime::owner_list;
use coffer_runtime::request::{self, Wishes};
use coffer_runtime::tools::Search;
use coffer_runtime::{Home, images, launch, monitor, owner_access};
use coffer_spec::{Document, Floors, HostMay, KbsPin, Name, Owner, OwnerMay, Scratch, Tee, Tenant};

use crate::cli::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::volumes;

/// What isolates a box from its host and the host from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Isolation {
    /// QEMU. With --tee, on SEV-SNP.
    Qemu,
    /// QEMU on SEV-SNP: the same as --tee.
    Snp,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pull {
    /// If it is not here.
    Missing,
    /// Each time.
    Always,
    /// Not at all.
    Never,
}

/// What runs, where, and who may talk to it.
#[derive(Debug, Args)]
pub struct BoxFlags {
    /// Demand AMD SEV-SNP. There is no fallback.
    #[arg(long, conflicts_with = "tee_simulate", help_heading = "TEE")]
    pub tee: bool,
    /// Use the software secure processor of this installation: for development and CI, proves nothing to others.
    #[arg(long, help_heading = "TEE")]
    pub tee_simulate: bool,
    /// List an owner: PUBLIC-KEY.pem[=exec,inject,unseal,logs].
    #[arg(long, value_name = "PEM[=MAY,..]", conflicts_with = "spec", help_heading = "TEE")]
    pub owner: Vec<String>,
    /// Run exactly this workload spec.
    #[arg(long, value_name = "FILE", help_heading = "TEE")]
    pub spec: Option<PathBuf>,
    /// Key broker that secrets come from.
    #[arg(long, value_name = "HOST:PORT", requires = "kbs_pin", conflicts_with = "spec", help_heading = "TEE")]
    pub kbs: Option<String>,
    /// SHA-256 of the key broker's public key; once more for its next key.
    #[arg(long, value_name = "HEX", requires = "kbs", conflicts_with = "spec", help_heading = "TEE")]
    pub kbs_pin: Vec<String>,
    /// Fetch a secret to /run/secrets/NAME, or into the environment: kbs:///repository/type/tag=NAME or =env:NAME.
    #[arg(long, value_name = "URI=NAME", requires = "kbs", conflicts_with = "spec", help_heading = "TEE")]
    pub secret: Vec<String>,
    /// Name that an owner may inject at /run/secrets/NAME.
    #[arg(long, value_name = "NAME", conflicts_with = "spec", help_heading = "TEE")]
    pub inject: Vec<Name>,
    /// What the host may do: some of stop,stats,logs,exec, or none [default: stop,stats with a TEE, else everything].
    #[arg(long, value_name = "LIST", value_parser = HostMay::parse, conflicts_with = "spec", help_heading = "TEE")]
    pub host_may: Option<HostMay>,
    /// Tenant at the key broker.
    #[arg(long, value_name = "NAME", default_value = "default", conflicts_with = "spec", help_heading = "TEE")]
    pub tenant: Tenant,

    /// Set an environment variable; without a value, ours.
    #[arg(short, long, value_name = "NAME[=VALUE]", conflicts_with = "spec")]
    pub env: Vec<String>,
    /// Read environment variables from a file.
    #[arg(long, value_name = "FILE", conflicts_with = "spec")]
    pub env_file: Vec<PathBuf>,
    /// Working directory.
    #[arg(short, long, value_name = "DIR", conflicts_with = "spec")]
    pub workdir: Option<String>,
    /// User: name or id, and optionally :group.
    #[arg(short, long, value_name = "USER", conflicts_with = "spec")]
    pub user: Option<String>,
    /// Program in place of the image's ENTRYPOINT.
    #[arg(long, value_name = "PROGRAM", conflicts_with = "spec")]
    pub entrypoint: Option<String>,
    /// Host name inside. The same for every box unless given, because it is measured.
    #[arg(long, value_name = "NAME", default_value = "coffer", conflicts_with = "spec")]
    pub hostname: Name,
    /// Signal for an orderly stop.
    #[arg(long, value_name = "SIGNAL", conflicts_with = "spec")]
    pub stop_signal: Option<String>,
    /// Mount a tmpfs: /path[:size=64m].
    #[arg(long, value_name = "PATH", conflicts_with = "spec")]
    pub tmpfs: Vec<String>,
    /// Show a host file or folder inside, as it is now: a verified, read-only snapshot.
    #[arg(short, long, value_name = "HOST:PATH:ro")]
    pub volume: Vec<String>,
    /// The same in Docker's long form, or a tmpfs: type=bind,source=HOST,target=PATH,readonly.
    #[arg(long, value_name = "FIELDS")]
    pub mount: Vec<String>,
    /// Limit of the writable layer where it is in guest memory.
    #[arg(long, value_name = "BYTES", default_value = "128m", conflicts_with_all = ["spec", "scratch"])]
    pub writable: String,
    /// Limit of the writable layer where it may go beyond guest memory: to an encrypted, authenticated disk that is gone
    /// when the box ends.
    #[arg(long, value_name = "BYTES", conflicts_with = "spec")]
    pub scratch: Option<String>,

    /// Guest memory.
    #[arg(short, long, value_name = "BYTES", default_value = "512m")]
    pub memory: String,
    /// Virtual processors.
    #[arg(long, visible_alias = "vcpus", value_name = "N", default_value = "1")]
    pub cpus: String,
    /// What isolates the box.
    #[arg(
        long,
        value_enum,
        value_name = "KIND",
        help = "What isolates the box [default: the strongest that works here]"
    )]
    pub isolation: Option<Isolation>,
    /// Folder with the guest's kernel and initrd.
    #[arg(long, value_name = "DIR")]
    pub platform: Option<PathBuf>,

    /// When to pull the image.
    #[arg(long, value_enum, default_value = "missing", value_name = "WHEN")]
    pub pull: Pull,
    /// Speak plain http to this registry.
    #[arg(long, value_name = "HOST:PORT")]
    pub insecure_registry: Vec<String>,

    /// Image; with --spec, the spec's own unless given.
    #[arg(index = 1, required_unless_present = "spec")]
    pub image: Option<String>,
    /// Program and arguments.
    #[arg(index = 2, trailing_var_arg = true, allow_hyphen_values = true, conflicts_with = "spec")]
    pub command: Vec<String>,
}

/// A box described completely.
pub struct Described {
    /// Image as the user wrote it.
    pub image_name: String,
    /// The image.
    pub image: Image,
    /// Its root file system.
    pub rootfs: Rootfs,
    /// Snapshots, in the order of the spec's volumes.
    pub snapshots: Vec<Snapshot>,
    /// The workload spec.
    pub document: Document,
    /// Folder of platform files.
    pub platform: PathBuf,
    /// Virtual processors.
    pub vcpus: u32,
    /// Guest memory in bytes.
    pub memory_bytes: u64,
}

const MEMORY_MINIMUM: u64 = 192 << 20;
const MEMORY_MAXIMUM: u64 = 3 << 30;

impl BoxFlags {
    /// The secure processor asked for. Hardware that is not here is an error before anything is pulled.
    pub fn tee_wanted(&self) -> Tee {
        match (self.tee || self.isolation == Some(Isolation::Snp), self.tee_simulate) {
            (true, _) => Tee::Snp,
            (false, true) => Tee::Simulated,
            (false, false) => Tee::None,
        }
    }

    /// Hardware is not simulated.
    ///
    /// # Errors
    /// Class `usage`.
    pub fn check_isolation(&self) -> Result<(), CliError> {
        if self.tee_simulate && self.isolation == Some(Isolation::Snp) {
            let message = "--isolation snp demands the hardware that --tee-simulate does without";
            return Err(CliError::new(Class::Usage, message).hint("leave one of them out"));
        }
        Ok(())
    }

    /// What runs the box: what was asked for, or the strongest that works here.
    ///
    /// # Errors
    /// Class `platform` if it does not work on this machine.
    pub fn isolated_by(&self, search: &Search) -> Result<monitor::Isolation, CliError> {
        match self.isolation {
            Some(Isolation::Qemu) => {
                monitor::of(monitor::Isolation::Qemu, search)?.check()?;
                Ok(monitor::Isolation::Qemu)
            }
            Some(Isolation::Snp) | None => monitor::strongest(search),
        }
    }

    /// Pulls what is missing and writes the spec.
    pub async fn describe(&self, context: &Context, home: &Home, quiet: bool) -> Result<Described, CliError> {
        let vcpus = self.vcpus()?;
        let memory_bytes = self.memory_bytes()?;
        self.check_isolation()?;
        let given = self.spec.as_deref().map(read_spec).transpose()?;
        let platform = context.search.platform_folder(self.platform.as_deref())?;
        let image_name = match (&self.image, &given) {
            (Some(name), _) => name.clone(),
            (None, Some(spec)) => spec.spec().image.reference.clone(),
            (None, None) => return Err(CliError::new(Class::Usage, "no image was named")),
        };
        // What the user typed is checked before the network is asked for anything.
        let mut wishes = if given.is_none() { Some(self.wishes(home)?) } else { None };
        let here = std::env::current_dir().class_while(Class::Config, "cannot tell the current folder")?;
        let asked = volumes::asked(&self.volume, &self.mount, &here)?;
        if given.is_some() && !asked.tmpfs.is_empty() {
            return Err(CliError::new(Class::Usage, "--mount type=tmpfs changes the workload, which --spec fixes"));
        }
        let image = self.image(context, home, &image_name, quiet).await?;
        let store = images::open(home)?;
        let rootfs = store.rootfs(&image).map_err(|error| of_image(&error))?;
        let taken = volumes::take(&store, &asked.binds)?;
        if let Some(wishes) = &mut wishes {
            wishes.mounts.extend(asked.tmpfs);
            wishes.volumes = taken.iter().map(|taken| taken.volume.clone()).collect();
        }
        let document = match (given, wishes) {
            (Some(document), _) => same_root(document, &rootfs, &image_name, self.tee_wanted())?,
            (None, Some(wishes)) => {
                request::document(&defaults(&image), verity(&rootfs.verity), &wishes).class(Class::Usage)?
            }
            (None, None) => return Err(CliError::new(Class::Internal, "neither a spec nor wishes")),
        };
        let tags = document.spec().root.scratch.tag_bytes();
        if tags > memory_bytes / 4 {
            let message =
                format!("a scratch disk of that size needs {} MiB of guest memory for tags alone", tags >> 20);
            return Err(CliError::new(Class::Usage, message).hint("give the box four times that with --memory"));
        }
        let snapshots = volumes::in_order(document.spec(), taken)?;
        Ok(Described { image_name, image, rootfs, snapshots, document, platform, vcpus, memory_bytes })
    }

    async fn image(&self, context: &Context, home: &Home, name: &str, quiet: bool) -> Result<Image, CliError> {
        let store = images::open(home)?;
        if self.pull != Pull::Always {
            match store.resolve(name) {
                Ok(image) => return Ok(image),
                Err(error) if error.class() != "not-found" => return Err(of_image(&error)),
                Err(_) if self.pull == Pull::Never => {
                    return Err(CliError::new(Class::NotFound, format!("No such image: {name}"))
                        .hint(format!("pull it with `coffer pull {name}`, or drop --pull never")));
                }
                Err(_) => {}
            }
            if !quiet {
                eprintln!("Unable to find image '{name}' locally");
            }
        }
        let options = pull_options(context, &self.insecure_registry, quiet);
        store.pull(name, &options).await.map_err(|error| of_image(&error))
    }

    fn wishes(&self, home: &Home) -> Result<Wishes, CliError> {
        let usage = |flag: &str, value: &str, expected: &str| {
            CliError::new(Class::Usage, format!("invalid value {value:?} for {flag}: expected {expected}"))
        };
        let tee = self.tee_wanted();
        let secrets = self.secret.iter().map(|text| {
            request::secret_wanted(text).ok_or_else(|| usage("--secret", text, "kbs:///repository/type/tag=NAME"))
        });
        let mounts = self
            .tmpfs
            .iter()
            .map(|text| request::tmpfs(text).ok_or_else(|| usage("--tmpfs", text, "/path[:size=64m]")));
        let pins = self
            .kbs_pin
            .iter()
            .map(|text| request::pin(text).ok_or_else(|| usage("--kbs-pin", text, "64 hex digits")))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Wishes {
            tee,
            tenant: self.tenant.clone(),
            args: self.command.clone(),
            entrypoint: self.entrypoint.clone(),
            env: self.environment()?,
            cwd: self.workdir.clone(),
            user: self.user.clone(),
            stop_signal: self.stop_signal.clone(),
            hostname: self.hostname.clone(),
            mounts: mounts.collect::<Result<_, _>>()?,
            volumes: Vec::new(),
            scratch: self.scratch_wanted()?,
            floors: Floors::default(),
            host_may: self.host_may,
            inject: self.inject.clone(),
            kbs: self.kbs.clone().map(|address| KbsPin { address, spki: pins }),
            secrets: secrets.collect::<Result<_, _>>()?,
            owners: self.owners(home, tee)?,
        })
    }

    /// The writable layer asked for; a disk in whole blocks.
    fn scratch_wanted(&self) -> Result<Scratch, CliError> {
        let size = |flag: &str, value: &str| {
            request::bytes(value).ok_or_else(|| {
                CliError::new(Class::Usage, format!("invalid value {value:?} for {flag}: expected a size such as 128m"))
            })
        };
        match &self.scratch {
            Some(disk) => Ok(Scratch::Disk { bytes: size("--scratch", disk)? / Scratch::BLOCK * Scratch::BLOCK }),
            None => Ok(Scratch::Tmpfs { bytes: size("--writable", &self.writable)? }),
        }
    }

    /// The owners asked for. In simulation, and only there, the local key is the default.
    fn owners(&self, home: &Home, tee: Tee) -> Result<Vec<Owner>, CliError> {
        if self.owner.is_empty() && tee == Tee::Simulated {
            let local = owner_access::load_or_init(&home.owner())?;
            return Ok(vec![Owner { key: local.spki(), may: OwnerMay::all() }]);
        }
        self.owner.iter().map(|text| owner_list::parse(text)).collect()
    }

    fn environment(&self) -> Result<Vec<String>, CliError> {
        let mut all = Vec::new();
        for path in &self.env_file {
            let text =
                std::fs::read_to_string(path).class_while(Class::Config, format!("cannot read {}", path.display()))?;
            let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
            all.extend(lines.filter_map(from_ours));
        }
        all.extend(self.env.iter().filter_map(|entry| from_ours(entry)));
        match all.iter().find(|entry| entry.starts_with('=')) {
            Some(bad) => Err(CliError::new(Class::Usage, format!("invalid environment variable: {bad}"))),
            None => Ok(all),
        }
    }

    /// Virtual processors, whole and within the machine model.
    pub fn vcpus(&self) -> Result<u32, CliError> {
        let most = coffer_machine::map::MAX_VCPUS;
        match self.cpus.parse() {
            Ok(count) if (1..=most).contains(&count) => Ok(count),
            _ => Err(CliError::new(
                Class::Usage,
                format!("invalid value {:?} for --cpus: expected 1 to {most}", self.cpus),
            )
            .hint("a microVM has whole processors, and their number is measured")),
        }
    }

    fn memory_bytes(&self) -> Result<u64, CliError> {
        let page = 1 << 20;
        match request::bytes(&self.memory).map(|bytes| bytes / page * page) {
            Some(bytes) if (MEMORY_MINIMUM..=MEMORY_MAXIMUM).contains(&bytes) => Ok(bytes),
            Some(bytes) if bytes < MEMORY_MINIMUM => Err(CliError::new(
                Class::Usage,
                format!("Minimum memory limit allowed is {} MiB: a guest kernel runs in it too", MEMORY_MINIMUM >> 20),
            )),
            _ => Err(CliError::new(
                Class::Usage,
                format!("invalid value {:?} for --memory: expected a size such as 512m, at most 3g", self.memory),
            )),
        }
    }
}

fn from_ours(entry: &str) -> Option<String> {
    if entry.contains('=') {
        return Some(entry.to_string());
    }
    std::env::var(entry).ok().map(|value| format!("{entry}={value}"))
}

/// Reads a spec document.
pub fn read_spec(path: &Path) -> Result<Document, CliError> {
    let bytes = std::fs::read(path).class_while(Class::Config, format!("cannot read {}", path.display()))?;
    Document::parse(bytes).class_while(Class::Config, path.display())
}

/// A given spec must be about the image at hand, and about the processor asked for.
fn same_root(document: Document, rootfs: &Rootfs, image: &str, tee: Tee) -> Result<Document, CliError> {
    let spec = document.spec();
    if spec.root.verity != verity(&rootfs.verity) {
        let (found, expected) = (&rootfs.verity.root_hash, &spec.root.verity.root_hash);
        return Err(CliError::new(
            Class::Config,
            format!("image {image} has root hash {found}, the spec expects {expected}"),
        )
        .hint("pull the image the spec was written for, by digest"));
    }
    same_tee(spec.tee, tee)?;
    if spec.tee == Tee::Simulated && tee == Tee::None {
        return Err(CliError::new(Class::Usage, "the spec demands the simulator, which --tee-simulate must allow"));
    }
    Ok(document)
}

/// Refuses hardware that is not here, before anything else happens.
pub fn check_hardware(tee: Tee) -> Result<(), CliError> {
    if tee == Tee::Snp { Err(launch::no_hardware()) } else { Ok(()) }
}

/// Pull options with progress for people: bars on a terminal, else one line per step.
pub fn pull_options(context: &Context, insecure: &[String], quiet: bool) -> PullOptions {
    let mut options = PullOptions {
        insecure_registries: insecure.to_vec(),
        docker_config: context.docker_config.clone(),
        ..PullOptions::default()
    };
    if !quiet {
        options.progress =
            Some(if std::io::stderr().is_terminal() { crate::progress::bars() } else { Arc::new(progress_line) });
    }
    options
}

fn progress_line(progress: &Progress) {
    let short = |digest: &coffer_image::Digest| digest.hex().chars().take(12).collect::<String>();
    match progress {
        Progress::Resolved { layers, .. } => {
            for (layer, _) in layers {
                eprintln!("{}: Pulling fs layer", short(layer));
            }
        }
        Progress::Present { layer } => eprintln!("{}: Already exists", short(layer)),
        Progress::Stored { layer } => eprintln!("{}: Pull complete", short(layer)),
        Progress::Retrying { what, attempt, reason } => {
            eprintln!("{}: retry {attempt}: {}", Foreign(what), Foreign(reason));
        }
        _ => {}
    }
}

/// A processor asked for beside a spec must be the spec's.
///
/// # Errors
/// Class `usage`.
pub fn same_tee(spec: Tee, asked: Tee) -> Result<(), CliError> {
    let words = |tee| match tee {
        Tee::Snp => "--tee",
        Tee::Simulated => "--tee-simulate",
        Tee::None => "neither --tee nor --tee-simulate",
    };
    if asked == Tee::None || asked == spec {
        return Ok(());
    }
    let message = format!("the spec was written for {}, the command says {}", words(spec), words(asked));
    Err(CliError::new(Class::Usage, message))
}

#[cfg(test)]
mod tests;
