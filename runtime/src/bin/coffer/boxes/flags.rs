//! Flags shared by the commands that describe a box: `run`, `create`, `measure`, `spec`; and the request they make.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use coffer_image::Platform;
use coffer_runtime::binds::{self, MountRequest};
use coffer_runtime::engine::{self, BoxRequest, Engine, Workload, read_spec};
use coffer_runtime::monitor;
use coffer_runtime::publish::{self, How, PUBLISH, Publish};
use coffer_runtime::request::{self, GuestMemory, RequestError, TMPFS_RULE, Vcpus, WorkloadRequest};
use coffer_spec::{Document, Domain, Floors, HostMay, Mount, Name, Scratch, Sysctl, Tee, Tenant};
use coffer_verifier::ear::Word;

use crate::boxes::card::NetworkFlags;
use crate::boxes::environment::environment;
use crate::boxes::peers;
use crate::boxes::rights::RightsFlags;
use crate::error::{self, Class, Classify as _, CliError};

/// Snapshots, volumes, memory.
type Mounts = (Vec<binds::Bind>, Vec<binds::DataMount>, Vec<Mount>);

/// What isolates a box from its host and the host from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Isolation {
    /// Our own monitor, on KVM.
    Kvm,
    /// QEMU. With --tee, on SEV-SNP.
    Qemu,
    /// SEV-SNP: the same as --tee.
    Snp,
    /// Namespaces of this host's kernel, no machine: for speed (CI), and no isolation from the host. Needs root.
    Process,
}

impl Isolation {
    /// The monitor it names, if it names one: hardware is another word for --tee, and what drives it is the strongest there is.
    pub fn monitor(self) -> Option<monitor::Isolation> {
        match self {
            Self::Kvm => Some(monitor::Isolation::Kvm),
            Self::Qemu => Some(monitor::Isolation::Qemu),
            Self::Process => Some(monitor::Isolation::Process),
            Self::Snp => None,
        }
    }
}

/// What a box that is there can be started under: hardware is demanded when a box is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Monitor {
    /// Our own monitor, on KVM.
    Kvm,
    /// QEMU.
    Qemu,
}

impl From<Monitor> for monitor::Isolation {
    fn from(monitor: Monitor) -> Self {
        match monitor {
            Monitor::Kvm => Self::Kvm,
            Monitor::Qemu => Self::Qemu,
        }
    }
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
    /// List an owner: PUBLIC-KEY.pem[=exec,inject,unseal,logs,cp,top,attach]; cp, top and attach come with exec [default: everything].
    #[arg(long, value_name = "PEM[=MAY,..]", conflicts_with = "spec", help_heading = "TEE")]
    pub owner: Vec<String>,
    /// Take lists of owners that this key signs (`coffer owner sign`): PUBLIC-KEY.pem,name=NAME, and behind commas sequence=N, the least
    /// that counts, and kept=kbs:///repository/type/tag, where the newest is; that one stands in place of --owner, and one that an owner
    /// brings (`coffer owner push`) adds to it.
    #[arg(long, value_name = "PEM,name=NAME[,..]", conflicts_with = "spec", help_heading = "TEE")]
    pub owner_authority: Option<String>,
    /// Run exactly this workload spec.
    #[arg(long, value_name = "FILE", help_heading = "TEE")]
    pub spec: Option<PathBuf>,
    /// Key broker that secrets come from.
    #[arg(long, value_name = "HOST:PORT", requires = "kbs_pin", conflicts_with = "spec", help_heading = "TEE")]
    pub kbs: Option<String>,
    /// SHA-256 of the key broker's public key; once more for its next key.
    #[arg(long, value_name = "HEX", requires = "kbs", conflicts_with = "spec", help_heading = "TEE")]
    pub kbs_pin: Vec<String>,
    /// Fetch a secret to /run/secrets/NAME before the workload starts: NAME=kbs:///repository/type/tag, and behind commas mode=0440,
    /// uid=N, gid=N, and what follows a new version of it: signal=HUP, or run=PROGRAM ARGUMENTS to the end, with quotes
    /// as in a shell.
    #[arg(long, value_name = "NAME=URI[,..]", conflicts_with = "spec", help_heading = "TEE")]
    pub secret: Vec<String>,
    /// Fetch a secret into the workload's environment: NAME=kbs:///repository/type/tag.
    #[arg(long, value_name = "NAME=URI", conflicts_with = "spec", help_heading = "TEE")]
    pub secret_env: Vec<String>,
    /// Name that an owner may inject at /run/secrets/NAME.
    #[arg(long, value_name = "NAME", conflicts_with = "spec", help_heading = "TEE")]
    pub inject: Vec<Name>,
    /// Audience that the workload may have tokens of the key broker's for; may be repeated.
    #[arg(long, value_name = "NAME", value_parser = Word::parse, conflicts_with = "spec", help_heading = "TEE")]
    pub audience: Vec<Word>,
    /// Answer the workload on loopback routes of Confidential Containers too, at 127.0.0.1:8006 inside (docs/workload-api.md).
    #[arg(long, conflicts_with = "spec", help_heading = "TEE")]
    pub coco_routes: bool,
    /// What the host may do: some of stop,stats,logs,exec,cp,top,attach, or none; cp, top and attach come with exec [default: stop,stats with a TEE, else everything].
    #[arg(long, value_name = "LIST", value_parser = HostMay::parse, conflicts_with = "spec", help_heading = "TEE")]
    pub host_may: Option<HostMay>,
    /// Tenant at the key broker.
    #[arg(long, value_name = "NAME", default_value = "default", conflicts_with = "spec", help_heading = "TEE")]
    pub tenant: Tenant,

    /// Lead a port of the host to a port of the workload: [ADDRESS:][HOST-PORT:]PORT, or two ranges of as many ports. Without a word
    /// behind it, or with /tcp, through the box's network card, where the workload listens at 0.0.0.0. With /ra-tls, behind RA-TLS
    /// that ends inside; with /tls, behind TLS for clients that know nothing of evidence, such as browsers; see --tls-profile. Clients
    /// of RA-TLS come with `coffer connect`. With `owners` for PORT, to the box's agent, for owners on other machines, who name the box as
    /// coffer://HOST:HOST-PORT. Without a host port, `coffer port` says which one it became. A port of the box has one of
    /// the two. A box with /ra-tls or /tls has 204 MiB of memory or more, with SEV-SNP 268.
    #[arg(short, long, value_name = "[HOST:]PORT[/tcp|udp|ra-tls|tls]")]
    pub publish: Vec<String>,
    #[command(flatten)]
    pub network: NetworkFlags,
    /// For ports published with /tls: the key broker's profile by which the guest gets its certificate.
    #[arg(long, value_name = "PROFILE", conflicts_with = "spec", help_heading = "TEE")]
    pub tls_profile: Option<Name>,
    /// Leave a port published with /ra-tls to guests that prove who they are: PORT,reference=FILE (of `coffer measure --json`), or
    /// PORT,author=KEY,family=ID,image=ID,min-svn=N; simulator=ROOT, a digest or a certificate, for a simulator that is believed.
    #[arg(long, value_name = "PORT,WHO", conflicts_with = "spec", help_heading = "TEE")]
    pub guests: Vec<String>,
    /// Lead the workload from a loopback port to another guest, once both have proved who they are: NAME=LISTEN:HOST:PORT and behind
    /// commas who that is, as for --guests; port=N where its workload's port is not that of the address.
    #[arg(long, value_name = "NAME=LISTEN:HOST:PORT,WHO", conflicts_with = "spec", help_heading = "TEE")]
    pub peer: Vec<String>,
    /// Open the program's standard input, for `run` and for whoever attaches; else it is at its end.
    #[arg(short, long, conflicts_with = "spec")]
    pub interactive: bool,
    /// Give the program a terminal.
    #[arg(short, long, conflicts_with = "spec")]
    pub tty: bool,
    /// Run an init as the first program: it waits for programs whose parents went, and passes signals on.
    #[arg(long, conflicts_with = "spec")]
    pub init: bool,
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
    /// Domain of that name, 64 bytes at most: setdomainname(2), and the whole name in /etc/hosts.
    #[arg(long, value_name = "DOMAIN", conflicts_with = "spec")]
    pub domainname: Option<Domain>,
    #[command(flatten)]
    pub rights: RightsFlags,
    /// Signal for an orderly stop.
    #[arg(long, value_name = "SIGNAL", conflicts_with = "spec")]
    pub stop_signal: Option<String>,
    /// Mount a tmpfs: /path[:rw|ro][,size=64m][,mode=1777][,uid=N][,gid=N][,noexec].
    #[arg(long, value_name = "PATH", conflicts_with = "spec")]
    pub tmpfs: Vec<String>,
    /// Let nothing be written to the root: to /dev/shm and to what is mounted alone.
    #[arg(long, conflicts_with_all = ["spec", "scratch"])]
    pub read_only: bool,
    /// Limit of /dev/shm.
    #[arg(long, value_name = "BYTES", default_value = "64m", conflicts_with = "spec")]
    pub shm_size: String,
    /// Set a setting of the guest's kernel: net.*, kernel.msg*, kernel.sem, kernel.shm* or fs.mqueue.*; the last of a name counts.
    #[arg(long, value_name = "NAME=VALUE", conflicts_with = "spec")]
    pub sysctl: Vec<Sysctl>,
    /// Mount a volume, which outlives the box: NAME:PATH[:ro][,nocopy], or PATH for one that nobody named. Or show a host file or folder
    /// inside, as it is now, HOST:PATH:ro: a verified, read-only snapshot. A box with a TEE takes no volume.
    #[arg(short, long, value_name = "[NAME:]PATH[:ro]")]
    pub volume: Vec<String>,
    /// The same in Docker's long form, or a tmpfs: type=volume,source=NAME,target=PATH, or type=bind,source=HOST,target=PATH,readonly.
    #[arg(long, value_name = "FIELDS")]
    pub mount: Vec<String>,
    /// Limit of the writable layer where it is in guest memory.
    #[arg(long, value_name = "BYTES", default_value = "128m", conflicts_with_all = ["spec", "scratch"])]
    pub writable: String,
    /// Limit of the writable layer where it may go beyond guest memory: to an encrypted, authenticated disk that is gone
    /// when the box ends.
    #[arg(long, value_name = "BYTES", conflicts_with = "spec")]
    pub scratch: Option<String>,

    /// Guest memory, 128m to 3g; with --isolation process, the most the box may take of the host's.
    #[arg(
        short,
        long,
        value_name = "BYTES",
        help = "Guest memory, 128m to 3g [default: 512m; with --isolation process no bound]"
    )]
    pub memory: Option<String>,
    /// Virtual processors; with --isolation process, the most time it may take of the host's.
    #[arg(
        long,
        visible_alias = "vcpus",
        value_name = "N",
        help = "Virtual processors [default: 1; with --isolation process no bound]"
    )]
    pub cpus: Option<String>,
    /// What isolates the box.
    #[arg(
        long,
        value_enum,
        value_name = "KIND",
        help = "What isolates the box [default: the strongest that works here]"
    )]
    pub isolation: Option<Isolation>,
    /// Folder with the guest's kernel and initrd. Also Docker's word for the image's platform: linux/amd64, with a level or without.
    #[arg(long, value_name = "DIR")]
    pub platform: Option<PathBuf>,

    /// When to pull the image.
    #[arg(long, value_enum, default_value = "missing", value_name = "WHEN")]
    pub pull: Pull,
    /// Speak plain http to this registry.
    #[arg(long, value_name = "HOST:PORT")]
    pub insecure_registry: Vec<String>,

    /// Image, and what it runs in place of its own command. With --spec, at most an image in place of the spec's own.
    /// Options end here: what follows belongs to the program.
    #[arg(
        index = 1,
        num_args = 1..,
        trailing_var_arg = true,
        required_unless_present = "spec",
        value_name = "IMAGE [COMMAND]"
    )]
    pub words: Vec<String>,
}

impl BoxFlags {
    /// The secure processor asked for.
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
        if self.tee && self.isolation == Some(Isolation::Process) {
            let message = "--isolation process has no machine, and so none of the hardware that --tee demands";
            return Err(CliError::new(Class::Usage, message).hint("use --tee-simulate in place of --tee"));
        }
        Ok(())
    }

    /// The image's name, if one is given.
    pub fn image(&self) -> Option<&str> {
        self.words.first().map(String::as_str)
    }

    /// The request these flags make. What the user typed is checked here, before the network is asked for anything.
    ///
    /// # Errors
    /// Class `usage` for what is wrong with a flag, `config` for a file it names.
    pub fn request(&self, engine: &Engine) -> Result<BoxRequest, CliError> {
        let vcpus = self.vcpus()?;
        let memory = self.guest_memory()?;
        self.check_isolation()?;
        if self.words.first().is_some_and(String::is_empty) {
            return Err(CliError::new(Class::Usage, "the image's name is empty"));
        }
        let given = self.spec.as_deref().map(read_spec).transpose()?;
        let (binds, data, tmpfs) = self.mounts()?;
        let publish = self.published()?;
        let network = self.network.words(&publish, given.is_some())?;
        // `values` has refused what is neither a folder nor a platform that guests have.
        let named = self.platform.as_deref().filter(|folder| !folder.exists()).and_then(Path::to_str);
        let image_platform = named.and_then(|name| name.parse::<Platform>().ok());
        let workload = if let Some(document) = given {
            self.exactly(document, &tmpfs)?
        } else {
            let name = self.image().ok_or_else(|| CliError::new(Class::Usage, "no image was named"))?.to_owned();
            Workload::Image { name, request: Box::new(self.workload(engine, tmpfs, &publish)?) }
        };
        Ok(BoxRequest {
            tee: self.tee_wanted(),
            isolation: self.isolation.and_then(Isolation::monitor),
            workload,
            binds,
            data,
            platform: self.platform.clone().filter(|_| image_platform.is_none()),
            vcpus,
            memory,
            limits: monitor::Limits {
                memory_bytes: self.memory.is_some().then(|| memory.bytes()),
                cpus: self.cpus.is_some().then(|| vcpus.count()),
            },
            publish,
            network,
            pull: match self.pull {
                Pull::Missing => engine::Pull::Missing,
                Pull::Always => engine::Pull::Always,
                Pull::Never => engine::Pull::Never,
            },
            insecure_registries: self.insecure_registry.clone(),
            image_platform: image_platform.unwrap_or_default(),
        })
    }

    /// A spec says everything; what would change it is refused.
    fn exactly(&self, document: Document, tmpfs: &[Mount]) -> Result<Workload, CliError> {
        if !tmpfs.is_empty() {
            return Err(CliError::new(Class::Usage, "--mount type=tmpfs changes the workload, which --spec fixes"));
        }
        if let Some(word) = self.words.get(1) {
            let message = format!("{word:?} behind the image changes the workload, which --spec fixes");
            return Err(CliError::new(Class::Usage, message).hint("options stand before the image"));
        }
        Ok(Workload::Spec { document: Box::new(document), image: self.image().map(str::to_owned) })
    }

    /// Snapshots, volumes and memory that `-v` and `--mount` ask for. The order within a flag is the order of the disks, those of
    /// `-v` first.
    fn mounts(&self) -> Result<Mounts, CliError> {
        let here = std::env::current_dir().class_while(Class::Config, "cannot tell the current folder")?;
        let short = self.volume.iter().map(|text| binds::volume(text, &here));
        let (mut all, mut data, mut tmpfs) = Mounts::default();
        for mount in short.chain(self.mount.iter().map(|text| binds::mount(text, &here))) {
            match mount? {
                MountRequest::Bind(bind) => all.push(bind),
                MountRequest::Data(volume) => data.push(volume),
                MountRequest::Tmpfs(mount) => tmpfs.push(mount),
            }
        }
        Ok((all, data, tmpfs))
    }

    /// Ports of the host that lead into the box.
    fn published(&self) -> Result<Vec<Publish>, CliError> {
        let some = |text: &String| {
            let refused = |why| CliError::new(Class::Usage, format!("invalid value {text:?} for --publish: {why}"));
            Publish::read(text).map_err(|why| refused(why).hint(format!("write {PUBLISH}")))
        };
        let all = self.publish.iter().map(some).collect::<Result<Vec<_>, _>>()?.concat();
        if all.len() > publish::MOST_OF_BOX {
            let message = format!("--publish names {} ports, at most {} fit", all.len(), publish::MOST_OF_BOX);
            return Err(CliError::new(Class::Usage, message));
        }
        let plain = all.iter().any(|publish| publish.how == How::Tls);
        if plain && self.tls_profile.is_none() && self.spec.is_none() {
            return Err(CliError::new(Class::Usage, "--publish …/tls needs --tls-profile")
                .hint("`coffer kbs certificate put PROFILE --dns NAME --server` makes one"));
        }
        if !plain && self.tls_profile.is_some() {
            let message = "--tls-profile is for a port that --publish …/tls leads to, and there is none";
            return Err(CliError::new(Class::Usage, message));
        }
        let both = all.iter().find(|one| {
            one.how == How::Tls && all.iter().any(|other| other.guest == one.guest && other.how == How::RaTls)
        });
        if let Some(one) = both {
            let message = format!(
                "--publish leads to port {} behind /tls and behind /ra-tls, and a port has one of them",
                one.guest
            );
            return Err(CliError::new(Class::Usage, message)
                .hint("leave one of them out, or have the workload listen at another port too, and publish that one"));
        }
        let proves = all.iter().any(|publish| !publish.how.is_of_card());
        if self.tee_wanted() == Tee::None && self.spec.is_none() && proves {
            let message =
                "--publish …/ra-tls, …/tls and …:owners lead to a guest that proves itself, and this one does not";
            return Err(CliError::new(Class::Usage, message)
                .hint("they need --tee or --tee-simulate; without a slash a port is published as it is"));
        }
        Ok(all)
    }

    fn workload(&self, engine: &Engine, tmpfs: Vec<Mount>, publish: &[Publish]) -> Result<WorkloadRequest, CliError> {
        let tee = self.tee_wanted();
        self.check_broker(tee)?;
        let mounts = self.tmpfs.iter().map(|text| {
            let refused = |why| CliError::new(Class::Usage, format!("invalid value {text:?} for --tmpfs: {why}"));
            request::tmpfs(text).map_err(|why| refused(why).hint(format!("write {TMPFS_RULE}")))
        });
        let mut mounts = mounts.collect::<Result<Vec<_>, _>>()?;
        mounts.extend(tmpfs);
        let mut ingress = request::ingress(publish, self.tls_profile.as_ref()).map_err(error::of)?;
        peers::leave_to_guests(&mut ingress, &self.guests)?;
        Ok(WorkloadRequest {
            tee,
            tenant: self.tenant.clone(),
            args: self.words.get(1..).unwrap_or_default().to_vec(),
            entrypoint: self.entrypoint.clone(),
            env: environment(&self.env_file, &self.env)?,
            cwd: self.workdir.clone(),
            user: self.user.clone(),
            stop_signal: self.stop_signal.clone(),
            tty: self.tty,
            stdin_open: self.interactive,
            init: self.init,
            rights: self.rights.rights()?,
            hostname: self.hostname.clone(),
            domainname: self.domainname.clone(),
            mounts,
            shm_bytes: size("--shm-size", &self.shm_size)?,
            sysctls: self.sysctls(),
            read_only: self.read_only,
            volumes: Vec::new(),
            data_volumes: Vec::new(),
            sealed_volumes: Vec::new(),
            scratch: self.scratch_wanted()?,
            floors: Floors::default(),
            host_may: self.host_may,
            inject: self.inject.clone(),
            ingress,
            peers: self.peers(tee)?,
            network: None,
            audiences: self.audience.iter().map(ToString::to_string).collect(),
            coco_routes: self.coco_routes(tee)?,
            kbs: self.broker()?,
            secrets: self.secrets()?,
            owners: self.owners(engine, tee)?,
            owner_authority: self.owner_authority(tee)?,
        })
    }

    /// In the order in which they came, each with its last value.
    fn sysctls(&self) -> Vec<Sysctl> {
        let mut all: Vec<Sysctl> = Vec::new();
        for setting in &self.sysctl {
            match all.iter_mut().find(|known| known.name == setting.name) {
                Some(known) => known.value.clone_from(&setting.value),
                None => all.push(setting.clone()),
            }
        }
        all
    }

    /// The writable layer asked for; a disk in whole blocks.
    fn scratch_wanted(&self) -> Result<Scratch, CliError> {
        match &self.scratch {
            Some(disk) => Ok(Scratch::Disk { bytes: size("--scratch", disk)? / Scratch::BLOCK * Scratch::BLOCK }),
            None => Ok(Scratch::Tmpfs { bytes: size("--writable", &self.writable)? }),
        }
    }

    /// Virtual processors as they were typed.
    pub fn given_cpus(&self) -> &str {
        self.cpus.as_deref().unwrap_or(CPUS)
    }

    /// Virtual processors, whole and within the machine model.
    pub fn vcpus(&self) -> Result<Vcpus, CliError> {
        let given = self.given_cpus();
        given.parse().ok().and_then(|count| Vcpus::new(count).ok()).ok_or_else(|| {
            let message = format!("invalid value {given:?} for --cpus or --vcpus: expected 1 to {}", Vcpus::MOST);
            CliError::new(Class::Usage, message).hint("a microVM has whole processors, and their number is measured")
        })
    }

    fn guest_memory(&self) -> Result<GuestMemory, CliError> {
        let given = self.memory.as_deref().unwrap_or(MEMORY);
        let no_guest = self.isolation == Some(Isolation::Process);
        match request::bytes(given).map(GuestMemory::new) {
            // Of a bound that no guest's kernel is within.
            Some(Err(RequestError::LittleMemory)) if no_guest => {
                let least = GuestMemory::LEAST >> 20;
                let message =
                    format!("invalid value {given:?} for --memory: Minimum memory limit allowed is {least} MiB");
                Err(CliError::new(Class::Usage, message).hint("a number alone counts bytes: write 512m or 1g"))
            }
            Some(Ok(memory)) => Ok(memory),
            Some(Err(error @ RequestError::LittleMemory)) => {
                let failure = error::of(error).while_doing(format!("invalid value {given:?} for --memory"));
                Err(failure.hint("a number alone counts bytes: write 512m or 1g"))
            }
            _ => Err(CliError::new(
                Class::Usage,
                format!("invalid value {given:?} for --memory: expected a size such as 512m, at most 3g"),
            )),
        }
    }
}

/// Warns of variables that look like secrets, where a box has a TEE: its host reads the spec, and they stand in it.
pub fn secrets_in_the_open(request: &BoxRequest) {
    let Workload::Image { request, .. } = &request.workload else { return };
    if request.tee == Tee::None {
        return;
    }
    for entry in request.env.iter().filter(|entry| request::looks_like_a_secret(entry)) {
        let name = coffer_rim::foreign(entry.split_once('=').map_or("", |(name, _)| name)).to_string();
        eprintln!("coffer: warning: {name} looks like a secret, and the host of a box reads its environment");
        eprintln!(
            "hint: put the value into the key broker, and name it with --secret-env {name}=kbs:///repository/type/tag"
        );
    }
}

/// Memory and processors of a machine for which nobody named any.
const MEMORY: &str = "512m";
const CPUS: &str = "1";

/// Warns of an option that stands behind the image, where it belongs to the program: of one that `A` knows, and of anything like
/// an option where a program's name should be. `words`: image and what is behind it; `argv`: what the box is to run.
pub fn behind_the_image<A: Args>(words: &[String], argv: &[String]) {
    if let Some(word) = misplaced(&A::augment_args(clap::Command::new("")), words, argv) {
        eprintln!(
            "coffer: warning: {} stands behind the image, so the box's program gets it",
            coffer_rim::foreign(word)
        );
        eprintln!("hint: options of coffer stand before IMAGE");
    }
}

/// The first word behind the image, if it is an option of this command or stands where the program's name should.
fn misplaced<'a>(command: &clap::Command, words: &'a [String], argv: &[String]) -> Option<&'a str> {
    let word = words.get(1).filter(|word| word.starts_with('-') && word.len() > 1)?;
    let name = word.split('=').next().unwrap_or(word);
    let known = |arg: &clap::Arg| match name.strip_prefix("--") {
        Some(long) => arg.get_long_and_visible_aliases().unwrap_or_default().contains(&long),
        None => arg.get_short().is_some_and(|short| name.chars().nth(1) == Some(short)),
    };
    (argv.first() == Some(word) || command.get_arguments().any(known)).then_some(word.as_str())
}

/// A size as it is typed behind a flag.
fn size(flag: &str, value: &str) -> Result<u64, CliError> {
    request::bytes(value).ok_or_else(|| {
        CliError::new(Class::Usage, format!("invalid value {value:?} for {flag}: expected a size such as 128m"))
    })
}

mod of_a_tee;
#[cfg(test)]
mod tests;
