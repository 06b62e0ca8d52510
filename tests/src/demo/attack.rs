//! What a hostile host tries. Each attack has everything right but one thing.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use coffer_kbs_client::{BrokerClient, ClientError};
use coffer_platform::{
    files::Platform,
    plan::{LaunchPlan, VCPU_TYPE},
};
use coffer_ratls::{Attester, AttesterError, Identity};
use coffer_simulator::{Installation, LaunchOptions, LocalProcessor, SecureProcessor};
use coffer_spec::Document;
use coffer_verifier::measure::LaunchForm;
use coffer_verifier::{
    abi::{ProductLine, ReportData, ReportRequest, SecureProcessor as _, WorkloadDigest},
    evidence::Evidence,
};
use tokio::net::TcpStream;

use super::story::SECRET_PATH;
use crate::{World, services::Kbs};

/// A platform folder whose initrd is longer by so many blocks, with a manifest that agrees. It boots like the other.
///
/// # Errors
/// If files cannot be read or written.
pub fn changed_platform(from: &Path, to: &Path, blocks: usize) -> Result<PathBuf> {
    let mut platform = Platform::load(from)?;
    platform.initrd.resize(platform.initrd.len() + 512 * blocks, 0);
    to.clone_into(&mut platform.folder);
    platform.save()?;
    Ok(to.to_owned())
}

/// A guest of the attacker's on the changed platform: launched on this very chip with the HOST_DATA of the victim's spec, it speaks the
/// protocol perfectly. Only its measurement is not the listed one.
///
/// # Errors
/// If the key broker does not refuse it.
pub fn forged_host_data(world: &World, kbs: &Kbs, platform: &Path, evidence: &Path) -> Result<()> {
    let evidence = Evidence::from_cmw(&fs::read(evidence)?)?;
    let document = Document::parse(evidence.workload_spec)?;
    let platform = Platform::load(platform)?;
    let command_line = coffer_platform::command_line(&document.digest(), document.spec().tee);
    let plan = LaunchPlan::new(&platform.launch_inputs(LaunchForm::ResetVector, &command_line, 1, VCPU_TYPE.parse()?))?;
    must_be_refused(kbs, guest_on(world, &plan, &document)?)
}

/// A guest launched from these pages on this world's chip, with the HOST_DATA of this spec. Its program is ours: nothing in
/// it checks anything.
///
/// # Errors
/// If the simulated processor refuses the launch.
pub fn guest_on(world: &World, plan: &LaunchPlan, document: &Document) -> Result<Arc<dyn Attester>> {
    let installation = Installation::from_bytes(&fs::read(world.home().join("sim/installation.json"))?)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut launch = SecureProcessor::launch_start(&installation, LaunchOptions::new(ProductLine::Milan, now))?;
    for page in plan.pages() {
        launch.update(page.page_type, page.gpa, &page.page)?;
    }
    let guest = launch.finish(document.digest().host_data(), None)?;
    Ok(Arc::new(Forged {
        processor: Mutex::new(guest.into_processor()),
        document: document.bytes().to_vec(),
        workload: document.digest(),
    }))
}

/// Genuine evidence of the demo's own guest, made for the connection on which it was attested, shown on another one.
///
/// # Errors
/// If the key broker does not refuse it.
pub fn replayed_evidence(kbs: &Kbs, evidence: &Path) -> Result<()> {
    let evidence = Evidence::from_cmw(&fs::read(evidence)?)?;
    let workload = WorkloadDigest::of(&evidence.workload_spec);
    must_be_refused(kbs, Arc::new(Replayed { evidence, workload }))
}

/// Asks the key broker for the demo's secret as this guest.
///
/// # Errors
/// If it is released, or something else fails than the release.
pub fn must_be_refused(kbs: &Kbs, attester: Arc<dyn Attester>) -> Result<()> {
    ensure!(!released(kbs, attester)?, "THE SECRET WAS RELEASED");
    Ok(())
}

/// Asks the key broker for the demo's secret as this guest: true if it is released, false if it is refused.
///
/// # Errors
/// Anything but those two.
pub fn released(kbs: &Kbs, attester: Arc<dyn Attester>) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let identity = Identity::generate("attacker")?;
        let stream = TcpStream::connect(&kbs.address).await?;
        let pins = vec![kbs.pin.parse()?];
        let client = match BrokerClient::connect(stream, &identity, "default", pins, attester).await {
            Ok(client) => client,
            Err(ClientError::Refused { .. }) => return Ok(false),
            Err(other) => return Err(other).context("the attack failed before it was refused"),
        };
        match client.secret(&SECRET_PATH.parse()?).await {
            Err(ClientError::Refused { .. }) => Ok(false),
            Err(other) => Err(other).context("the attack failed before it was refused"),
            Ok(_) => Ok(true),
        }
    })
}

struct Forged {
    processor: Mutex<LocalProcessor>,
    document: Vec<u8>,
    workload: WorkloadDigest,
}

impl Attester for Forged {
    fn evidence(&self, report_data: &ReportData) -> Result<Evidence, AttesterError> {
        let mut processor = self.processor.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = processor.report(&ReportRequest::new(*report_data))?;
        Ok(Evidence {
            report: answer.report,
            cert_table: answer.cert_table,
            crls: Vec::new(),
            workload_spec: self.document.clone(),
        })
    }

    fn workload(&self) -> WorkloadDigest {
        self.workload
    }
}

struct Replayed {
    evidence: Evidence,
    workload: WorkloadDigest,
}

impl Attester for Replayed {
    fn evidence(&self, _: &ReportData) -> Result<Evidence, AttesterError> {
        Ok(self.evidence.clone())
    }

    fn workload(&self) -> WorkloadDigest {
        self.workload
    }
}
