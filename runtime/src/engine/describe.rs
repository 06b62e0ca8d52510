//! From what is asked for to a box described completely: image, root file system, snapshots, workload spec.
//!
//! What was asked for is checked before the network is asked for anything.

use std::path::PathBuf;
use std::sync::Arc;

use coffer_image::{Image, ImageError, Platform, PullOptions, Pulled, Rootfs, Snapshot, Store};
use coffer_spec::{DataVolume, Document, Owner, OwnerMay, SealedVolume, Tee};

use super::held_inside::{self, HeldInsideError};
use super::kept::{self, KeptError};
use super::networks::{NetworksError, Placed};
use super::places::{self, PlaceError};
use super::volumes::{self, VolumeError};
use super::{Engine, Fault, Hint, OpenError, Progress, ProgressFn};
use crate::binds::{Bind, DataMount, SealWords};
use crate::image_settings::ImageSettings;
use crate::images::{defaults, verity, why_odd};
use crate::launch::can_run;
use crate::monitor::{self, Isolation, Limits};
use crate::publish::{How, Publish};
use crate::request::{self, GuestMemory, NetworkWords, RequestError, Vcpus, WorkloadRequest};
use crate::tools::Search;
use crate::volumes::VolumeStoreError;
use crate::{Class, Failure, HomeError, owner_access};

/// A box asked for: everything that decides what is measured, and where its bytes come from.
#[derive(Clone, Debug)]
pub struct BoxRequest {
    /// Secure processor demanded.
    pub tee: Tee,
    /// What isolates it; without a word the strongest that works here.
    pub isolation: Option<Isolation>,
    /// What runs.
    pub workload: Workload,
    /// Host files and folders to take snapshots of.
    pub binds: Vec<Bind>,
    /// What it keeps beyond its life.
    pub data: Vec<DataMount>,
    /// Folder of the platform files [default: where the search finds them].
    pub platform: Option<PathBuf>,
    /// Virtual processors.
    pub vcpus: Vcpus,
    /// Guest memory.
    pub memory: GuestMemory,
    /// What of the two was asked for.
    pub limits: Limits,
    /// Ports of the host that lead to ports of the spec's ingress or to its network card.
    pub publish: Vec<Publish>,
    /// What was said of its network.
    pub network: NetworkWords,
    /// When the image is pulled.
    pub pull: Pull,
    /// Registries spoken to in plain http.
    pub insecure_registries: Vec<String>,
    /// Platform wanted of an image that is there for several.
    pub image_platform: Platform,
}

/// What runs in a box.
#[derive(Clone, Debug)]
pub enum Workload {
    /// An image, with what the user wants different.
    Image {
        /// Its name as the user wrote it.
        name: String,
        /// What is different.
        request: Box<WorkloadRequest>,
    },
    /// Exactly this spec.
    Spec {
        /// The spec.
        document: Box<Document>,
        /// The image its root is made from, unless the spec's own name finds it.
        image: Option<String>,
    },
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pull {
    /// If it is not here.
    Missing,
    /// Each time.
    Always,
    /// Not at all.
    Never,
}

/// A box described completely.
#[derive(Debug)]
pub struct Described {
    /// Image as the user wrote it.
    pub image_name: String,
    /// The image.
    pub image: Image,
    /// Its root file system.
    pub rootfs: Rootfs,
    /// Snapshots, in the order of the spec's volumes.
    pub snapshots: Vec<Snapshot>,
    /// What it keeps, in the order of the spec's data volumes.
    pub data: Vec<DataMount>,
    /// The workload spec.
    pub document: Document,
    /// Folder of platform files.
    pub platform: PathBuf,
    /// Virtual processors.
    pub vcpus: Vcpus,
    /// Guest memory.
    pub memory: GuestMemory,
    /// What of the two was asked for.
    pub limits: Limits,
    /// Ports of the host that lead to ports of the spec's ingress or to its network card.
    pub publish: Vec<Publish>,
    /// Its place in a network, kept for it as long as this is.
    pub placed: Option<Placed>,
}

/// Why a box cannot be described.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DescribeError {
    /// The installation does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The image is not here and may not be pulled.
    #[error("No such image: {0}")]
    ImageNotHere(String),
    /// The image store or a registry.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// What was asked for makes no spec.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The spec was written for another root file system.
    #[error("image {image} has root hash {found}, the spec expects {expected}")]
    OtherRoot {
        /// Image looked at.
        image: String,
        /// Its root hash.
        found: String,
        /// Root hash in the spec.
        expected: String,
    },
    /// The spec was written for another processor.
    #[error("the spec was written for {spec}, asked for is {asked}", spec = tee_words(*spec), asked = tee_words(*asked))]
    OtherTee {
        /// In the spec.
        spec: Tee,
        /// In the request.
        asked: Tee,
    },
    /// Nobody said that the simulator is good enough.
    #[error("the spec demands the simulator, which was not allowed")]
    SimulatorNotAllowed,
    /// The guest could not keep the tags of its scratch disk and sealed volumes.
    #[error("a scratch disk, or sealed volumes, of that size need {mib} MiB of guest memory for tags alone")]
    ScratchTags {
        /// What they need.
        mib: u64,
    },
    /// The agent would not start the workload in it.
    #[error("a guest of this spec ({what}) needs at least {least} MiB of memory, and was to have {asked}")]
    LittleMemory {
        /// What of it needs more than others do.
        what: String,
        /// What its spec needs, in MiB.
        least: u64,
        /// What was asked for, in MiB.
        asked: u64,
    },
    /// A port is published that the guest would not open.
    #[error("the spec's ingress has no port {port} for /{}, so that nothing inside would answer there", .how.word())]
    NoIngress {
        /// Port of the workload.
        port: u16,
        /// What clients were to speak.
        how: How,
    },
    /// Owners are to come to a guest that has none.
    #[error("the spec has no TEE, so that nothing inside would answer owners")]
    NoAgent,
    /// A port is published that would lead to a card the guest has not.
    #[error("the spec has no network card, so that nothing inside would answer at port {0}")]
    NoCard(u16),
    /// Its guest would not let its ports be reached, or not start.
    #[error(transparent)]
    HeldInside(#[from] HeldInsideError),
    /// Snapshots.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The image has no place for what the spec asks for.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The network that it is to be in.
    #[error(transparent)]
    Network(#[from] NetworksError),
    /// Platform files or keys.
    #[error(transparent)]
    File(#[from] Failure),
}

impl From<HomeError> for DescribeError {
    fn from(error: HomeError) -> Self {
        Self::Open(error.into())
    }
}

impl Fault for DescribeError {
    fn class(&self) -> Class {
        match self {
            Self::Open(error) => error.class(),
            Self::ImageNotHere(_) => Class::NotFound,
            Self::Image(error) => Fault::class(error),
            Self::Request(error) => Fault::class(error),
            Self::OtherRoot { .. } => Class::Config,
            Self::HeldInside(error) => error.class(),
            Self::OtherTee { .. }
            | Self::SimulatorNotAllowed
            | Self::ScratchTags { .. }
            | Self::LittleMemory { .. }
            | Self::NoIngress { .. }
            | Self::NoAgent
            | Self::NoCard(_) => Class::Usage,
            Self::Volume(error) => error.class(),
            Self::Place(error) => error.class(),
            Self::Network(error) => error.class(),
            Self::File(failure) => failure.class(),
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Open(error) => error.hint(),
            Self::ImageNotHere(name) => Some(Hint::PullImage { name: name.clone() }),
            Self::Image(error) => Fault::hint(error),
            Self::Request(error) => Fault::hint(error),
            Self::OtherRoot { .. } => Some("pull the image the spec was written for, by digest".into()),
            Self::OtherTee { .. } | Self::NoIngress { .. } | Self::NoAgent | Self::NoCard(_) => None,
            Self::HeldInside(error) => Some(error.hint().into()),
            Self::SimulatorNotAllowed => Some(Hint::AllowSimulator),
            Self::ScratchTags { .. } => Some(Hint::MoreMemory),
            Self::LittleMemory { .. } => Some("give the box that much".into()),
            Self::Volume(error) => error.hint(),
            Self::Place(error) => error.hint(),
            Self::Network(error) => error.hint(),
            Self::File(failure) => Fault::hint(failure),
        }
    }
}

fn tee_words(tee: Tee) -> &'static str {
    match tee {
        Tee::Snp => "SEV-SNP",
        Tee::Simulated => "the simulator",
        Tee::None => "no secure processor",
    }
}

/// A processor asked for beside a spec must be the spec's.
pub(super) fn same_tee(spec: Tee, asked: Tee) -> Result<(), DescribeError> {
    if asked == Tee::None || asked == spec { Ok(()) } else { Err(DescribeError::OtherTee { spec, asked }) }
}

impl BoxRequest {
    /// The processor demanded, by a flag or by the spec.
    pub fn tee_demanded(&self) -> Tee {
        match &self.workload {
            Workload::Spec { document, .. } => document.spec().tee,
            Workload::Image { .. } => self.tee,
        }
    }

    /// Whether the program has an input, and whether it has a terminal.
    pub fn streams(&self) -> (bool, bool) {
        match &self.workload {
            Workload::Spec { document, .. } => {
                let process = &document.spec().process;
                (process.stdin_open, process.tty)
            }
            Workload::Image { request, .. } => (request.stdin_open, request.tty),
        }
    }

    /// What runs the box: what was asked for, or the strongest that works here and launches on its processor.
    pub(super) fn isolated_by(&self, tee: Tee, search: &Search) -> Result<Isolation, Failure> {
        let Some(isolation) = self.isolation else {
            return if tee == Tee::Snp { monitor::strongest_with_snp(search) } else { monitor::strongest(search) };
        };
        can_run(monitor::of(isolation, search)?.as_ref(), tee)?;
        Ok(isolation)
    }
}

impl Engine {
    /// The owners of a box for which nobody listed any. In simulation, and only there, the local key is one, made on
    /// first use.
    ///
    /// # Errors
    /// The home or the key.
    pub fn default_owners(&self, tee: Tee) -> Result<Vec<Owner>, DescribeError> {
        if tee != Tee::Simulated {
            return Ok(Vec::new());
        }
        let local = owner_access::load_or_init(&self.home()?.owner()).map_err(Failure::from)?;
        Ok(vec![Owner { key: local.spki(), may: OwnerMay::all() }])
    }

    /// Pulls what is missing, takes the snapshots and writes the spec. Needs no hardware and records nothing.
    ///
    /// # Errors
    /// [`DescribeError`].
    pub async fn describe(
        &self,
        request: &BoxRequest,
        progress: Option<&ProgressFn>,
    ) -> Result<Described, DescribeError> {
        let platform = self.settings().search.platform_folder(request.platform.as_deref())?;
        let image_name = match &request.workload {
            Workload::Image { name, .. } | Workload::Spec { image: Some(name), .. } => name.clone(),
            Workload::Spec { document, image: None } => document.spec().image.reference.clone(),
        };
        volumes::check_count(&request.binds, &request.data)?;
        let tee = request.tee_demanded();
        let sealed = |mount: &&DataMount| mount.seal != SealWords::default();
        if let Some(DataMount { path, .. }) = request.data.iter().find(sealed).filter(|_| tee == Tee::None) {
            return Err(VolumeError::SealsNothing { path: path.clone() }.into());
        }
        let (network, wish) = (request.network.network(), &request.network.wish);
        if let Some(network) = network {
            self.inspect_network(network)?;
        }
        let store = Store::open(self.home()?.images())?;
        // Between finding the image and using it, a removal beside this must not take it.
        let _held = store.hold()?;
        let Pulled { image, rootfs } = self.image(&store, request, &image_name, progress).await?;
        let taken = volumes::take(&store, &request.binds)?;
        let publish = request.network.publish_exposed(&image.config.exposed_ports, &request.publish)?;
        if let Some(network) = network.filter(|_| publish.iter().any(|publish| publish.how.is_of_card())) {
            self.lets_in(network)?;
        }
        let placed = match &request.workload {
            Workload::Spec { document, .. } => {
                network.map(|name| self.place_of(name, document.spec().network.as_ref(), wish)).transpose()?
            }
            Workload::Image { .. } => network.map(|name| self.place(name, wish)).transpose()?,
        };
        let document = match &request.workload {
            Workload::Spec { document, .. } => same_root(document, &rootfs, &image_name, request.tee)?,
            Workload::Image { request: workload, .. } => {
                if let Some(progress) = progress {
                    for entry in &image.config.env {
                        if let Some(why) = why_odd(entry) {
                            progress(Progress::OddVariable { entry, why });
                        }
                    }
                }
                let mut workload = WorkloadRequest::clone(workload);
                workload.volumes = taken.iter().map(|taken| taken.volume.clone()).collect();
                if tee == Tee::None {
                    workload.data_volumes = request.data.iter().map(DataVolume::from).collect();
                } else {
                    workload.sealed_volumes = self.sealed_volumes(&request.data, workload.kbs.is_some())?;
                }
                let shared = placed.as_ref().map(|placed| placed.card.clone());
                workload.network = request.network.card(&publish, workload.tee, shared)?;
                request::document(&defaults(&image), verity(&rootfs.verity), &workload)?
            }
        };
        let opens = |publish: &&Publish| document.spec().ingress.iter().any(|ingress| publish.leads_to(ingress));
        let of_ingress = |publish: &&Publish| matches!(publish.how, How::RaTls | How::Tls);
        if let Some(closed) = publish.iter().filter(of_ingress).find(|publish| !opens(publish)) {
            return Err(DescribeError::NoIngress { port: closed.guest, how: closed.how });
        }
        if document.spec().tee == Tee::None && publish.iter().any(|publish| publish.how == How::Owners) {
            return Err(DescribeError::NoAgent);
        }
        let of_card = publish.iter().find(|publish| publish.how.is_of_card());
        if let (Some(closed), None) = (of_card, &document.spec().network) {
            return Err(DescribeError::NoCard(closed.guest));
        }
        held_inside::check(document.spec().tee, document.spec().network.as_ref(), &publish)?;
        let tags = document.spec().tag_bytes();
        if tags > request.memory.bytes() / 4 {
            return Err(DescribeError::ScratchTags { mib: tags >> 20 });
        }
        // A guest in namespaces has the host's memory.
        let (least, asked) = (document.spec().least_memory(), request.memory.bytes());
        if request.isolation != Some(Isolation::Process) && asked < least {
            let what = document.spec().needs_memory_for();
            return Err(DescribeError::LittleMemory { what, least: least >> 20, asked: asked >> 20 });
        }
        let snapshots = volumes::in_order(document.spec(), taken)?;
        let data = kept::in_order(document.spec(), &request.data)?;
        let looks = snapshots.iter().map(Snapshot::look).collect::<Result<Vec<_>, _>>()?;
        places::check(document.spec(), &rootfs.look()?, &looks)?;
        let (vcpus, memory, limits) = (request.vcpus, request.memory, request.limits);
        Ok(Described {
            image_name,
            image,
            rootfs,
            snapshots,
            data,
            document,
            platform,
            vcpus,
            memory,
            limits,
            publish,
            placed,
        })
    }

    /// The volumes that a box with a TEE seals, each as large as it is, or would be made. The broker: whether its spec names one.
    fn sealed_volumes(&self, wanted: &[DataMount], broker: bool) -> Result<Vec<SealedVolume>, DescribeError> {
        let one = |mount: &DataMount| {
            let found = mount.name.as_ref().map(|name| Ok(self.kept()?.find(name)?)).transpose();
            let bytes = match found {
                Ok(found) => found.map_or(SealedVolume::USUAL, |volume| volume.sealed_bytes()),
                Err(KeptError::Volumes(VolumeStoreError::Unknown(_))) => SealedVolume::USUAL,
                Err(error) => return Err(Failure::caused(error.class(), &error).into()),
            };
            let volume = kept::sealed(mount, bytes)?;
            if volume.policy.needs_broker() && !broker {
                return Err(VolumeError::NoBroker { path: volume.path, policy: volume.policy.name() }.into());
            }
            if volume.policy.needs_broker() != volume.rollback_protected {
                return Err(VolumeError::Rollback { path: volume.path, policy: volume.policy.name() }.into());
            }
            Ok(volume)
        };
        wanted.iter().map(one).collect()
    }

    async fn image(
        &self,
        store: &Store,
        request: &BoxRequest,
        name: &str,
        progress: Option<&ProgressFn>,
    ) -> Result<Pulled, DescribeError> {
        if request.pull != Pull::Always {
            match store.resolve(name) {
                Ok(image) => {
                    let rootfs = store.rootfs(&image)?;
                    return Ok(Pulled { image, rootfs });
                }
                Err(error) if error.class() != "not-found" => return Err(error.into()),
                Err(_) if request.pull == Pull::Never => return Err(DescribeError::ImageNotHere(name.into())),
                Err(_) => {}
            }
            if let Some(progress) = progress {
                progress(Progress::ImageMissing { name });
            }
        }
        let options = PullOptions {
            platform: request.image_platform.clone(),
            ..self.pull_options(&request.insecure_registries, progress)?
        };
        Ok(store.pull(name, &options).await?)
    }

    /// How images are pulled and pushed here.
    ///
    /// # Errors
    /// Class `config` for an `images.toml` with a mistake.
    pub fn pull_options(
        &self,
        insecure_registries: &[String],
        progress: Option<&ProgressFn>,
    ) -> Result<PullOptions, Failure> {
        let ImageSettings { mirrors, plain_http, .. } = ImageSettings::of_home(&self.settings().home)?;
        Ok(PullOptions {
            insecure_registries: [insecure_registries, &plain_http].concat(),
            mirrors,
            docker_config: self.settings().docker_config.clone(),
            progress: progress.cloned().map(|tell| -> coffer_image::ProgressFn {
                Arc::new(move |step: &coffer_image::Progress| tell(Progress::Pull(step)))
            }),
            ..PullOptions::default()
        })
    }
}

/// A given spec must be about the image at hand, and about the processor asked for.
fn same_root(document: &Document, rootfs: &Rootfs, image: &str, tee: Tee) -> Result<Document, DescribeError> {
    let spec = document.spec();
    if spec.root.verity != verity(&rootfs.verity) {
        return Err(DescribeError::OtherRoot {
            image: image.into(),
            found: rootfs.verity.root_hash.clone(),
            expected: spec.root.verity.root_hash.clone(),
        });
    }
    same_tee(spec.tee, tee)?;
    if spec.tee == Tee::Simulated && tee == Tee::None {
        return Err(DescribeError::SimulatorNotAllowed);
    }
    Ok(document.clone())
}
