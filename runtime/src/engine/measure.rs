//! Predicts what a launch measures, from files alone, and signs the prediction for brokers elsewhere.

use std::path::PathBuf;

use coffer_platform::files::Platform;
use coffer_platform::igvm_file;
use coffer_platform::plan::LaunchPlan;
use coffer_spec::{Document, Tee};
use coffer_verifier::UnixTime;
use coffer_verifier::abi::{Measurement, SpkiDigest};
use coffer_verifier::manifest::{Component, Contents, MeasuredLaunch, ReferenceManifest, SignedManifest};
use coffer_verifier::measure::LaunchForm;

use super::describe::same_tee;
use super::identity::{LaunchIdentity, UncheckedIdBlock};
use super::{BoxRequest, DescribeError, Engine, Fault, Hint, ProgressFn};
use crate::id_block::SignedLaunch;
use crate::monitor::Isolation;
use crate::platform_folder::load_platform;
use crate::request::Vcpus;
use crate::signing_key::SigningKey;
use crate::{Class, Failure};

pub use coffer_platform::plan::VCPU_TYPE;

/// vCPU types a manifest holds measurements for, by QEMU's names.
pub const VCPU_TYPES: &[&str] = &[VCPU_TYPE, "EPYC-Genoa", "EPYC-Turin"];

/// What is measured.
#[derive(Clone, Debug)]
pub enum MeasureRequest {
    /// What `create` with the same request would launch.
    Box(Box<BoxRequest>),
    /// A spec, which says everything: no image, no registry, any machine.
    Spec {
        /// The spec.
        document: Box<Document>,
        /// Processor asked for beside it; [`Tee::None`] leaves it to the spec.
        tee: Tee,
        /// Folder of the platform files.
        platform: Option<PathBuf>,
        /// Virtual processors.
        vcpus: Vcpus,
    },
    /// The platform with no workload.
    Platform {
        /// Its folder.
        folder: Option<PathBuf>,
        /// Virtual processors.
        vcpus: Vcpus,
    },
}

impl MeasureRequest {
    /// The form that stands for a box of this request where nobody names a monitor: on hardware that of the monitor asked
    /// first.
    pub fn usual_form(&self) -> LaunchForm {
        let isolation = if self.tee() == Tee::Snp { Isolation::WITH_SNP[0] } else { Isolation::default() };
        isolation.launch_form()
    }

    /// Every form that a box of this request can be launched in where nobody names a monitor: which one it is depends on the
    /// machine it runs on. The usual one first.
    pub fn unasked_forms(&self) -> Vec<LaunchForm> {
        let monitors = if self.tee() == Tee::Snp { &Isolation::WITH_SNP[..] } else { &Isolation::UNASKED };
        let mut forms = vec![self.usual_form()];
        for form in monitors.iter().map(|monitor| monitor.launch_form()) {
            if !forms.contains(&form) {
                forms.push(form);
            }
        }
        forms
    }

    fn tee(&self) -> Tee {
        match self {
            Self::Box(request) => request.tee_demanded(),
            Self::Spec { document, .. } => document.spec().tee,
            Self::Platform { .. } => Tee::None,
        }
    }
}

/// A launch measured.
pub struct Measured {
    /// With a workload, its spec.
    pub document: Option<Document>,
    /// The platform it boots from.
    pub platform: Platform,
    /// The measured kernel command line.
    pub command_line: String,
    /// The pages, in the form asked for.
    pub plan: LaunchPlan,
    /// Type of the virtual processors, QEMU's name.
    pub vcpu_type: String,
    /// Virtual processors.
    pub vcpus: Vcpus,
}

/// A manifest to sign.
#[derive(Clone, Debug)]
pub struct ManifestRequest {
    /// Its name; a later one of a name replaces the earlier [default: the image's reference].
    pub name: Option<String>,
    /// Grows within a name [default: seconds since 1970].
    pub sequence: Option<u64>,
    /// From when on it admits nothing.
    pub expires: UnixTime,
}

/// A signed manifest.
pub struct Signed {
    /// What it says.
    pub manifest: ReferenceManifest,
    /// The envelope with its signature.
    pub envelope: SignedManifest,
    /// SHA-256 of the SubjectPublicKeyInfo that signed it.
    pub key: SpkiDigest,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// The box cannot be described.
    #[error(transparent)]
    Describe(#[from] DescribeError),
    /// An ID block that nobody would check.
    #[error(transparent)]
    IdBlock(#[from] UncheckedIdBlock),
    /// A name of no vCPU type.
    #[error(transparent)]
    VcpuType(#[from] coffer_verifier::measure::CpuError),
    /// The pages make no launch.
    #[error(transparent)]
    Plan(#[from] coffer_platform::plan::PlanError),
    /// The launch makes no IGVM file.
    #[error(transparent)]
    Igvm(#[from] igvm_file::IgvmError),
    /// A manifest is about a workload.
    #[error("a manifest is about a workload: name an image or a spec")]
    NoWorkload,
    /// The manifest breaks a rule of its own.
    #[error(transparent)]
    Manifest(#[from] coffer_verifier::manifest::ManifestError),
    /// `platform.json` does not name a file by digest.
    #[error("platform.json has no SHA-256 for {0}")]
    Component(String),
    /// Platform files or keys.
    #[error(transparent)]
    Other(#[from] Failure),
}

impl Fault for MeasureError {
    fn class(&self) -> Class {
        match self {
            Self::Describe(error) => error.class(),
            Self::IdBlock(error) => error.class(),
            Self::VcpuType(_) | Self::NoWorkload | Self::Manifest(_) => Class::Usage,
            Self::Plan(_) | Self::Component(_) => Class::Config,
            Self::Igvm(_) => Class::Internal,
            Self::Other(failure) => failure.class(),
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Describe(error) => error.hint(),
            Self::IdBlock(error) => error.hint(),
            Self::Other(failure) => Fault::hint(failure),
            _ => None,
        }
    }
}

impl Engine {
    /// Measures a launch of one form. `vcpu_type`: QEMU's name.
    ///
    /// # Errors
    /// [`MeasureError`].
    pub async fn measure(
        &self,
        request: MeasureRequest,
        form: LaunchForm,
        vcpu_type: &str,
        progress: Option<&ProgressFn>,
    ) -> Result<Measured, MeasureError> {
        let search = &self.settings().search;
        let (document, folder, vcpus) = match request {
            MeasureRequest::Box(request) => {
                let described = self.describe(&request, progress).await?;
                (Some(described.document), described.platform, described.vcpus)
            }
            MeasureRequest::Spec { document, tee, platform, vcpus } => {
                same_tee(document.spec().tee, tee)?;
                (Some(*document), search.platform_folder(platform.as_deref())?, vcpus)
            }
            MeasureRequest::Platform { folder, vcpus } => (None, search.platform_folder(folder.as_deref())?, vcpus),
        };
        let platform = load_platform(&folder)?;
        let command_line = match &document {
            Some(document) => coffer_platform::command_line(&document.digest(), document.spec().tee),
            None => coffer_platform::FIXED_COMMAND_LINE.to_owned(),
        };
        let plan = plan(&platform, form, &command_line, vcpus.count(), vcpu_type)?;
        Ok(Measured { document, platform, command_line, plan, vcpu_type: vcpu_type.into(), vcpus })
    }
}

impl Measured {
    /// The measurement of the same launch in a form.
    ///
    /// # Errors
    /// As [`Engine::measure`].
    pub fn in_form(&self, form: LaunchForm) -> Result<Measurement, MeasureError> {
        if form == self.plan.form() {
            return Ok(self.plan.measurement());
        }
        Ok(plan(&self.platform, form, &self.command_line, self.vcpus.count(), &self.vcpu_type)?.measurement())
    }

    /// The ID block of this launch, which is of one form: an ID block holds one launch digest.
    ///
    /// # Errors
    /// [`MeasureError::IdBlock`] where nobody would check it.
    pub fn identity(&self, identity: Option<&LaunchIdentity>) -> Result<Option<SignedLaunch>, MeasureError> {
        let tee = self.document.as_ref().map_or(Tee::None, |document| document.spec().tee);
        LaunchIdentity::check_tee(identity, tee)?;
        if identity.is_some() && !self.plan.form().is_machine() {
            let message =
                format!("a launch of form {} gets no ID block: an author signs for machines", self.plan.form());
            return Err(Failure::new(Class::Usage, message).into());
        }
        Ok(identity.map(|identity| identity.of(self.plan.measurement())).transpose()?)
    }

    /// The launch as an IGVM file, which has a digest of its own.
    ///
    /// # Errors
    /// [`MeasureError::Igvm`].
    pub fn igvm(&self) -> Result<(Vec<u8>, Measurement), MeasureError> {
        Ok(igvm_file::write(&self.plan)?)
    }

    /// Signs a manifest of this workload on this platform, for the usual counts and types of virtual processors in both
    /// launch forms: it admits a guest of either monitor.
    ///
    /// # Errors
    /// [`MeasureError`].
    pub fn manifest(&self, request: &ManifestRequest, key: &SigningKey, now: UnixTime) -> Result<Signed, MeasureError> {
        let document = self.document.as_ref().ok_or(MeasureError::NoWorkload)?;
        let mut counts: Vec<u32> = VCPU_COUNTS.into_iter().chain([self.vcpus.count()]).collect();
        counts.sort_unstable();
        counts.dedup();
        let mut measurements = Vec::new();
        for launch in LaunchForm::MACHINES {
            for vcpu_type in VCPU_TYPES {
                for vcpus in &counts {
                    measurements.push(MeasuredLaunch {
                        launch,
                        vcpus: *vcpus,
                        vcpu_type: (*vcpu_type).into(),
                        measurement: measurement_of(&self.platform, launch, document, *vcpus, vcpu_type)?,
                    });
                }
            }
        }
        let manifest = ReferenceManifest::new(Contents {
            name: request.name.clone().unwrap_or_else(|| document.spec().image.reference.clone()),
            sequence: request.sequence.unwrap_or_else(|| u64::try_from(now.0).unwrap_or(0)),
            release: None,
            created: now,
            expires: request.expires,
            components: components(&self.platform)?,
            workload: document.digest(),
            measurements,
        })?;
        let envelope = SignedManifest::of(&manifest);
        let signature = key.sign(&envelope.signing_input())?;
        let envelope = envelope.with_signature(key.public(), signature);
        Ok(Signed { manifest, envelope, key: key.public().spki_digest() })
    }
}

/// Counts of virtual processors every manifest holds, beside the one asked for.
const VCPU_COUNTS: [u32; 4] = [1, 2, 4, 8];

/// Every file of the platform, as its own manifest names it.
fn components(platform: &Platform) -> Result<Vec<Component>, MeasureError> {
    let files = &platform.manifest;
    let named =
        [("stage0", &files.stage0), ("kernel", &files.kernel), ("initrd", &files.initrd), ("init", &files.init)];
    let named = named.into_iter().map(|(name, digest)| (name.to_owned(), digest));
    let modules = files.modules.iter().map(|(name, digest)| (format!("module {name}"), digest));
    named
        .chain(modules)
        .map(|(name, digest)| {
            let sha256 = hex::decode(digest).ok().and_then(|bytes| bytes.try_into().ok());
            match sha256 {
                Some(sha256) => Ok(Component { sha256, name }),
                None => Err(MeasureError::Component(name)),
            }
        })
        .collect()
}

fn plan(
    platform: &Platform,
    form: LaunchForm,
    command_line: &str,
    vcpus: u32,
    vcpu_type: &str,
) -> Result<LaunchPlan, MeasureError> {
    Ok(LaunchPlan::new(&platform.launch_inputs(form, command_line, vcpus, vcpu_type.parse()?))?)
}

fn measurement_of(
    platform: &Platform,
    form: LaunchForm,
    document: &Document,
    vcpus: u32,
    vcpu_type: &str,
) -> Result<Measurement, MeasureError> {
    let command_line = coffer_platform::command_line(&document.digest(), document.spec().tee);
    Ok(plan(platform, form, &command_line, vcpus, vcpu_type)?.measurement())
}

/// The launch digest of a workload on a platform, in one form.
///
/// # Errors
/// As [`Engine::measure`].
pub fn measurement(
    platform: &Platform,
    form: LaunchForm,
    document: &Document,
    vcpus: u32,
    vcpu_type: &str,
) -> Result<Measurement, Failure> {
    measurement_of(platform, form, document, vcpus, vcpu_type).map_err(|error| Failure::caused(error.class(), &error))
}
