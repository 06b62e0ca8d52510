//! Creates a box: describes it, signs its launch where that is asked for, writes its folder and records it.

use std::collections::BTreeMap;
use std::path::Path;

use coffer_image::{ImageError, Snapshot};
use coffer_platform::plan::VCPU_TYPE;
use coffer_rim::Classify as _;
use coffer_rim::file::write_private;
use coffer_spec::{Act, Document, Scratch};

use super::identity::{LaunchIdentity, UncheckedIdBlock};
use super::leftovers::Making;
use super::measure::measurement;
use super::volumes::VolumeError;
use super::{
    BoxRequest, DescribeError, Described, Engine, Fault, Hint, KeptError, OpenError, Progress, ProgressFn, Workload,
};
use crate::boxes::{BoxOptions, LogLimits, Timings, files, unix_ms};
use crate::health::{HealthCheck, HealthWords};
use crate::home::{HomeError, private_folder};
use crate::id::{BoxId, NameError, check_name, random_name};
use crate::id_block::SignedLaunch;
use crate::launch::{bounds_programs, check_hardware, fits, takes_settings};
use crate::monitor::{Isolation, network};
use crate::platform_folder::{of_platform, open_platform};
use crate::restart_policy::RestartPolicy;
use crate::state::{BoxRecord, BoxState, StateError};
use crate::{Class, Failure};

/// A box to create.
pub struct CreateRequest {
    /// What it is.
    pub what: BoxRequest,
    /// Its name; without one it gets one nobody chose.
    pub name: Option<String>,
    /// It goes when it ends.
    pub remove: bool,
    /// What it is found by.
    pub labels: BTreeMap<String, String>,
    /// Seconds between its stop signal and its end, for a stop that says nothing else.
    pub stop_timeout: Option<u32>,
    /// What becomes of it when it ends.
    pub restart: RestartPolicy,
    /// How much of its output is kept, if that was said.
    pub log: Option<LogLimits>,
    /// How its health is looked at.
    pub health: HealthWords,
    /// Whose launch it is.
    pub identity: Option<LaunchIdentity>,
    /// What its phases are counted from.
    pub timings: Timings,
}

/// Why a box is not created. Nothing of it is left then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The installation does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The name is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The name is taken, or the database does not answer.
    #[error(transparent)]
    State(#[from] StateError),
    /// It cannot be described.
    #[error(transparent)]
    Describe(#[from] DescribeError),
    /// An ID block that nobody would check.
    #[error(transparent)]
    IdBlock(#[from] UncheckedIdBlock),
    /// Its volumes.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// A snapshot cannot be moved into the box's folder.
    #[error(transparent)]
    Snapshot(#[from] ImageError),
    /// Hardware, platform files, programs, or the box's folder.
    #[error(transparent)]
    Other(#[from] Failure),
}

impl From<HomeError> for CreateError {
    fn from(error: HomeError) -> Self {
        Self::Open(error.into())
    }
}

impl Fault for CreateError {
    fn class(&self) -> Class {
        match self {
            Self::Open(error) => error.class(),
            Self::Name(_) => Class::Usage,
            Self::State(error) => error.class(),
            Self::Describe(error) => error.class(),
            Self::IdBlock(error) => error.class(),
            Self::Kept(error) => error.class(),
            Self::Snapshot(error) => Fault::class(error),
            Self::Other(failure) => failure.class(),
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Open(error) => error.hint(),
            Self::Name(_) => None,
            Self::State(error) => Fault::hint(error),
            Self::Describe(error) => error.hint(),
            Self::IdBlock(error) => error.hint(),
            Self::Kept(error) => error.hint(),
            Self::Snapshot(error) => Fault::hint(error),
            Self::Other(failure) => Fault::hint(failure),
        }
    }
}

impl Engine {
    /// Creates a box. It is not started.
    ///
    /// # Errors
    /// [`CreateError`].
    pub async fn create(
        &self,
        request: CreateRequest,
        progress: Option<&ProgressFn>,
    ) -> Result<BoxRecord, CreateError> {
        check_hardware(request.what.tee)?;
        if request.remove && request.restart != RestartPolicy::No {
            let message = "a box that goes when it ends is not started again";
            return Err(Failure::new(Class::Usage, message).hint("ask for one of the two").into());
        }
        if matches!(request.what.workload, Workload::Image { .. }) {
            LaunchIdentity::check_tee(request.identity.as_ref(), request.what.tee)?;
        }
        if let Some(name) = &request.name {
            check_name(name)?;
            // Before a long pull; the database refuses a race once more.
            if let Some(holder) = self.state()?.all()?.into_iter().find(|found| found.name == *name) {
                return Err(StateError::NameInUse { name: name.clone(), holder: holder.id }.into());
            }
        }
        for publish in request.what.publish.iter().filter(|publish| publish.how.is_of_card()) {
            network::can_publish(publish)?;
        }
        let described = self.describe(&request.what, progress).await?;
        if request.log.is_some() && !described.document.spec().host_may.contains(Act::Logs) {
            let message = "the spec of this box does not let its host read the output, so that none is kept here";
            return Err(Failure::new(Class::Usage, message).hint("bound nothing, or let the host read it").into());
        }
        let health = health(&request.health, &described, progress)?;
        let tee = described.document.spec().tee;
        check_hardware(tee)?;
        LaunchIdentity::check_tee(request.identity.as_ref(), tee)?;
        let platform = open_platform(&described.platform)?;
        let isolation = request.what.isolated_by(tee, &self.settings().search)?;
        if described.document.spec().network.is_some() {
            self.settings().search.program(&network::PASST)?;
        }
        fits(isolation, described.document.spec().root.scratch, request.identity.is_some(), &described.limits)?;
        if let (Some(volume), false) =
            (described.document.spec().sealed_volumes.first(), isolation.launch_form().is_machine())
        {
            return Err(DescribeError::from(VolumeError::NeedsMachine { path: volume.path.clone() }).into());
        }
        bounds_programs(isolation, described.document.spec().process.rights.programs)?;
        takes_settings(isolation, &described.document.spec().sysctls)?;
        let form = isolation.launch_form();
        // Signed now, so that a start needs no private key.
        let signed = match &request.identity {
            Some(identity) => {
                let vcpus = described.vcpus.count();
                let platform = platform.load().map_err(|error| of_platform(&error))?;
                Some(identity.of(measurement(&platform, form, &described.document, vcpus, VCPU_TYPE)?)?)
            }
            None => None,
        };
        let mut timings = request.timings;
        timings.reached("image-ready", None);

        let id = BoxId::random();
        let folder = self.home()?.box_folder(&id);
        let making = Making::of(self.home()?).class_while(Class::Config, "cannot lock the folder of boxes")?;
        private_folder(&folder)?;
        let mut record = described.record(id, isolation, request.remove, signed.is_some(), timings);
        record.options.labels = request.labels;
        record.options.restart = request.restart;
        record.options.log = request.log.unwrap_or_default();
        record.options.stop_timeout = request.stop_timeout;
        record.options.health = health;
        let provided = self.provide(&described.data, record.options.volume_kind());
        let Described { snapshots, document, rootfs, placed, .. } = described;
        let recorded = provided.map_err(CreateError::from).and_then(|provided| {
            record.options.data = provided.as_ref().map(|provided| provided.data.clone()).unwrap_or_default();
            let recorded = write_folder(&folder, snapshots, &document, signed.as_ref())
                .and_then(|()| self.record(record, request.name.as_deref()));
            match provided {
                Some(provided) if recorded.is_err() => provided.undo(),
                _ => {}
            }
            recorded
        });
        // Held up to here: no collection takes it before a record names it.
        drop((rootfs, placed));
        if recorded.is_err() {
            let _ = std::fs::remove_dir_all(&folder);
            return recorded;
        }
        drop(making);
        // The box is there, whatever comes of this.
        match (self.make_room(&[]), progress) {
            (Ok(names), Some(progress)) if !names.is_empty() => progress(Progress::ImagesRemoved { names: &names }),
            (Ok(_), _) => {}
            (Err(error), _) => tracing::warn!(%error, "images are not kept to their limit"),
        }
        recorded
    }

    /// Records it under the name asked for, or under one that is free.
    fn record(&self, mut record: BoxRecord, name: Option<&str>) -> Result<BoxRecord, CreateError> {
        let mut attempts = 0;
        loop {
            record.name = name.map_or_else(random_name, str::to_owned);
            match self.state()?.add(&record) {
                Ok(()) => return Ok(record),
                Err(StateError::NameInUse { .. }) if name.is_none() && attempts < 20 => attempts += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// How its health is looked at, where its host may look.
fn health(words: &HealthWords, of: &Described, progress: Option<&ProgressFn>) -> Result<Option<HealthCheck>, Failure> {
    let health = words.over(of.image.config.healthcheck.as_ref())?;
    if health.is_none() || of.document.spec().host_may.allows(Act::Exec) {
        return Ok(health);
    }
    if words.ask_for_looks() {
        let message = "the spec of this box does not let its host exec, so that nobody looks at its health";
        return Err(Failure::new(Class::Usage, message).hint("ask for no looks at its health, or let the host exec"));
    }
    if let Some(progress) = progress {
        progress(Progress::HealthLeftOut);
    }
    Ok(None)
}

impl Described {
    fn record(&self, id: BoxId, isolation: Isolation, remove: bool, id_block: bool, timings: Timings) -> BoxRecord {
        let spec = self.document.spec();
        BoxRecord {
            id,
            name: String::new(),
            image: self.image_name.clone(),
            state: BoxState::Created,
            supervisor_pid: None,
            vmm_pid: None,
            created: unix_ms(),
            started: None,
            finished: None,
            exit_code: None,
            error: None,
            restarts: 0,
            stopped_by_hand: false,
            reason: None,
            options: BoxOptions {
                tee: spec.tee,
                isolation,
                launch: isolation.launch_form(),
                vcpus: self.vcpus.count(),
                memory_bytes: self.memory.bytes(),
                limits: self.limits,
                remove,
                command: spec.process.argv.clone(),
                platform: self.platform.clone(),
                root: self.rootfs.path.clone(),
                volumes: self.snapshots.len(),
                data: Vec::new(),
                scratch_bytes: match spec.root.scratch {
                    Scratch::Disk { bytes } => bytes,
                    Scratch::Tmpfs { .. } => 0,
                },
                image_digest: self.image.config_digest.to_string(),
                workload_digest: self.document.digest().to_string(),
                card: spec.network.is_some(),
                card_network: self.placed.as_ref().map(|placed| placed.place.clone()),
                networks: self.placed.iter().map(|placed| placed.place.clone()).collect(),
                id_block,
                publish: self.publish.clone(),
                labels: BTreeMap::new(),
                stop_timeout: None,
                restart: RestartPolicy::No,
                log: LogLimits::default(),
                health: None,
            },
            timings,
        }
    }
}

fn write_folder(
    folder: &Path,
    snapshots: Vec<Snapshot>,
    document: &Document,
    signed: Option<&SignedLaunch>,
) -> Result<(), CreateError> {
    for (index, snapshot) in snapshots.into_iter().enumerate() {
        snapshot.persist(&folder.join(files::volume(index)))?;
    }
    write_private(&folder.join(files::SPEC), document.bytes())
        .class_while(Class::Config, "cannot write the box's spec")?;
    if let Some(signed) = signed {
        signed.write(folder, 0o600)?;
    }
    Ok(())
}
