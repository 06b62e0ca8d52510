//! A running guest as its owner sees it: what it must prove, and the connection on which it proved it.

use std::path::PathBuf;
use std::sync::Arc;

use coffer_runtime::boxes::files;
use coffer_runtime::launch::load_platform;
use coffer_runtime::owner_access::{self, Findings, GuestAppraiser, OwnerConnection, OwnerError};
use coffer_runtime::{BoxRecord, BoxState, Home, simulator};
use coffer_spec::{Act, Document, Tee};
use coffer_verifier::{EvidencePolicy, ExpectedGuest, Pair, TrustAnchors, Verdict};

use crate::cli::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::flags::read_spec;
use crate::measure::measurement;
use coffer_platform::plan::VCPU_TYPE;

/// What a guest must prove.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Trust {
    /// Also believe the simulator of this installation. It proves nothing to others.
    #[arg(long)]
    pub allow_simulated: bool,
    /// Platform the guest must have booted from [default: this installation's].
    #[arg(long, value_name = "DIR")]
    pub platform: Option<PathBuf>,
    /// Workload spec the guest must run [default: the one the box was created with].
    #[arg(long = "expect-spec", value_name = "FILE")]
    pub expect_spec: Option<PathBuf>,
    /// Policy on top of measurement and workload, TOML [default: the built-in floor].
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
}

impl Trust {
    /// For the output of a simulated box this command has just started itself, from the platform it was started on.
    pub fn of_own_simulator(record: &BoxRecord) -> Self {
        Self { allow_simulated: true, platform: Some(record.options.platform.clone()), ..Self::default() }
    }
}

/// The spec a box was created with.
pub fn document(home: &Home, record: &BoxRecord) -> Result<Document, CliError> {
    let path = home.box_folder(&record.id).join(files::SPEC);
    read_spec(&path)
}

/// Refuses early, and in words, what the guest would refuse: the local key must be listed for the act.
pub fn owner_listed(home: &Home, document: &Document, name: &str, act: Act) -> Result<(), CliError> {
    let by_owner = format!("create the box with --owner listing your key for {act}");
    let hint = match act {
        Act::Exec | Act::Logs => format!("{by_owner}, or with --host-may {act}"),
        Act::Stop | Act::Stats | Act::Inject | Act::Unseal => by_owner,
    };
    let refused = |message: String| Err(CliError::new(Class::Refused, message).hint(hint.clone()));
    if document.spec().tee == Tee::None {
        return refused(format!(
            "the spec of {name} does not let the host {act}, and without a TEE there is no owner to ask as"
        ));
    }
    let Ok(identity) = owner_access::load(&home.owner()) else {
        return refused(format!("the spec of {name} does not let the host {act}, and there is no owner's key here"));
    };
    let mut mine = document.spec().owners.iter().filter(|owner| owner.key == identity.spki());
    let allowed = mine.any(|owner| owner.may.contains(act));
    if allowed {
        Ok(())
    } else {
        refused(format!("the spec of {name} lets neither the host nor the local owner {act}"))
    }
}

/// What the guest of a box is appraised against.
pub fn appraiser(
    context: &Context,
    home: &Home,
    record: &BoxRecord,
    trust: &Trust,
) -> Result<GuestAppraiser, CliError> {
    let document = match &trust.expect_spec {
        Some(path) => read_spec(path)?,
        None => document(home, record)?,
    };
    let platform = load_platform(&context.search.platform_folder(trust.platform.as_deref())?)?;
    let measurement = measurement(&platform, &document, document.spec().tee, record.options.vcpus, VCPU_TYPE)?;
    let host_data = document.digest().host_data();
    let policy = match &trust.policy {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).class_while(Class::Config, format!("cannot read {}", path.display()))?;
            EvidencePolicy::from_toml(&text).class_while(Class::Config, path.display())?
        }
        None => EvidencePolicy::default_floor(),
    };
    let anchors = if trust.allow_simulated { simulator::anchors(&home.simulator())? } else { TrustAnchors::amd() };
    // What this box must be is expected beside the policy: no file widens it.
    Ok(GuestAppraiser::new(anchors, policy, ExpectedGuest::Exactly(Pair { measurement, host_data })))
}

/// Connects to the agent of a running box, once its guest has proved itself.
pub async fn connect(
    context: &Context,
    home: &Home,
    record: &BoxRecord,
    trust: &Trust,
) -> Result<OwnerConnection, CliError> {
    must_run(record)?;
    let identity = owner_access::load(&home.owner())?;
    let appraiser = Arc::new(appraiser(context, home, record, trust)?);
    owner_access::connect(&home.box_folder(&record.id), &identity, Arc::clone(&appraiser))
        .await
        .map_err(|error| explain(&error, appraiser.findings().as_ref(), record, trust))
}

/// Only a running guest can prove anything.
pub fn must_run(record: &BoxRecord) -> Result<(), CliError> {
    if record.options.tee == Tee::None {
        return Err(CliError::new(Class::Config, format!("box {} has no TEE: it can prove nothing", record.name))
            .hint("create it with --tee, or with --tee-simulate for development"));
    }
    if record.state != BoxState::Running {
        return Err(CliError::new(Class::Config, format!("box {} is not running", record.name))
            .hint(format!("start it with `coffer start {}`", record.name)));
    }
    Ok(())
}

/// A failed connection in words: the findings of the appraisal where there are any.
pub fn explain(error: &OwnerError, findings: Option<&Findings>, record: &BoxRecord, trust: &Trust) -> CliError {
    let appraisal = findings.map(|findings| &findings.appraisal);
    let Some(appraisal) = appraisal.filter(|appraisal| appraisal.verdict() != Verdict::Accepted) else {
        return CliError::caused(Class::Unreachable, error).while_doing(format!("box {}", record.name));
    };
    let class = if appraisal.verdict() == Verdict::Refused { Class::Refused } else { Class::NotAuthentic };
    let failure =
        CliError::new(class, format!("the guest of box {} is not admitted: {}", record.name, appraisal.why()));
    if record.options.tee == Tee::Simulated && !trust.allow_simulated {
        return failure
            .hint("this box is simulated: with --allow-simulated the simulator of this installation is believed");
    }
    match appraisal.reasons().first() {
        Some(reason) => failure.hint(reason.hint.to_string()),
        None => failure,
    }
}

/// What to do about a simulated box whose root nobody listed.
pub fn simulated_hint(record: &BoxRecord, trust: &Trust) -> Option<&'static str> {
    let unlisted = record.options.tee == Tee::Simulated && !trust.allow_simulated;
    unlisted.then_some("this box is simulated: with --allow-simulated the simulator of this installation is believed")
}
