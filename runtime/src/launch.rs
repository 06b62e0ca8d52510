//! Everything a guest boots from, made anew for each start: measured files, spec disk and, in simulation, the secrets page.
//!
//! What is measured is exactly what is written here and loaded by the monitor, whatever happens to the platform folder later.

use std::path::{Path, PathBuf};

use coffer_machine::disks;
use coffer_machine::spec_disk::SpecDisk;
use coffer_platform::files::Platform;
use coffer_platform::plan::{LaunchPlan, VCPU_TYPE};
use coffer_rim::file::Writer;
use coffer_rim::{Class, Classify as _, Failure};
use coffer_spec::{Document, Tee};
use coffer_verifier::abi::ProductLine;
use coffer_verifier::measure::{CpuSignature, LaunchForm};

use crate::boxes::{BoxOptions, files, unix_us};
use crate::id_block::SignedLaunch;
use crate::monitor::{Access, Disk, Launch, Measured};
use crate::simulator::{self, Answerer};

/// A guest ready to boot.
pub struct Prepared {
    /// For the monitor.
    pub launch: Launch,
    /// The simulated processor's side of this guest.
    pub processor: Option<Answerer>,
}

/// A box boots from the folder it was made for, whatever is named today.
const OTHER_PLATFORM: &str =
    "the box was made for the guest platform in that folder: put it back there, or remove the box and create it again";

/// Loads a platform folder.
///
/// # Errors
/// Class `config` with the remedy.
pub fn load_platform(folder: &Path) -> Result<Platform, Failure> {
    Platform::load(folder).map_err(|error| Failure::caused(Class::Config, &error).hint(error.hint()))
}

/// Writes the files of one start into a box folder.
///
/// # Errors
/// Class `config` if a file cannot be read or written, `platform` if the processor demanded is not here.
pub fn prepare(
    folder: &Path,
    options: &BoxOptions,
    document: &Document,
    simulator: &Path,
) -> Result<Prepared, Failure> {
    let platform = load_platform(&options.platform).map_err(|failure| failure.hint(OTHER_PLATFORM))?;
    let command_line = coffer_platform::command_line(&document.digest(), options.tee);
    let plan = plan(&platform, &command_line, options.vcpus)?;
    let unix_seconds = u64::try_from(unix_us() / 1_000_000).unwrap_or(0);
    let put = |name: &str, bytes: &[u8]| write(folder, name, bytes);
    let measured = Measured {
        stage0: put(files::STAGE0, &platform.stage0)?,
        hashes: put(files::HASHES, plan.hash_page())?,
        kernel: put(files::KERNEL, &platform.kernel)?,
        initrd: put(files::INITRD, &platform.initrd)?,
        command_line: put(files::COMMAND_LINE, format!("{command_line}\0").as_bytes())?,
    };
    let spec = put(files::SPEC_DISK, &spec_disk(document, unix_seconds)?)?;
    let disk = |serial: &str, file, access| Disk { serial: serial.into(), file, access };
    let mut all =
        vec![disk(disks::ROOT, options.root.clone(), Access::ReadOnly), disk(disks::SPEC, spec, Access::ReadOnly)];
    for index in 0..options.volumes {
        all.push(disk(&disks::volume(index).to_string(), files::volume(index).into(), Access::ReadOnly));
    }
    if options.scratch_bytes > 0 {
        all.push(disk(disks::SCRATCH, make_scratch(folder, options.scratch_bytes)?, Access::Ephemeral));
    }
    let (secrets, processor) = match options.tee {
        Tee::None => (None, None),
        Tee::Snp => return Err(no_hardware()),
        Tee::Simulated => {
            let (page, answerer) = simulate(folder, &plan, options, document, simulator)?;
            (Some(page), Some(answerer))
        }
    };
    let launch = Launch {
        folder: folder.into(),
        measured,
        secrets,
        disks: all,
        vcpus: options.vcpus,
        memory_bytes: options.memory_bytes,
    };
    Ok(Prepared { launch, processor })
}

/// The disk that hands over the spec, and what we take for the time.
fn spec_disk(document: &Document, unix_seconds: u64) -> Result<Vec<u8>, Failure> {
    let mut disk = Vec::new();
    SpecDisk { document: document.bytes(), claimed_unix_seconds: Some(unix_seconds) }
        .write(&mut disk)
        .map_err(|error| Failure::caused(Class::Config, &error))?;
    Ok(disk)
}

/// The plan of a guest of this machine: what the simulator measures, whichever monitor loads it.
///
/// # Errors
/// Class `config`.
pub fn plan(platform: &Platform, command_line: &str, vcpus: u32) -> Result<LaunchPlan, Failure> {
    let signature: CpuSignature = VCPU_TYPE
        .parse()
        .map_err(|error: coffer_verifier::measure::CpuError| Failure::caused(Class::Internal, &error))?;
    LaunchPlan::new(&platform.launch_inputs(LaunchForm::ResetVector, command_line, vcpus, signature))
        .map_err(|error| Failure::caused(Class::Config, &error).hint("run `make platform`"))
}

/// Launches the same pages on the simulated processor; its secrets page is loaded into the guest.
fn simulate(
    folder: &Path,
    plan: &LaunchPlan,
    options: &BoxOptions,
    document: &Document,
    simulator: &Path,
) -> Result<(PathBuf, Answerer), Failure> {
    let installation = simulator::open(simulator, ProductLine::Milan)?;
    let id = SignedLaunch::of_box(folder, options)?;
    let mut guest = simulator::launch(&installation, plan, document.digest().host_data(), id.as_ref())?;
    let page = write(folder, files::SECRETS, &guest.secrets_page()[..])?;
    Ok((page, Box::new(move |kind, page| guest.guest_request(kind, page))))
}

/// An empty disk that takes room only where the guest writes.
fn make_scratch(folder: &Path, bytes: u64) -> Result<PathBuf, Failure> {
    let path = folder.join(files::SCRATCH);
    let made = Writer::private().unsynced().write_with(&path, |file| file.set_len(bytes));
    made.class_while(Class::Config, "cannot make the scratch disk")?;
    Ok(files::SCRATCH.into())
}

/// Real SNP was asked for where there is none. Nothing ever falls back to the simulator.
pub fn no_hardware() -> Failure {
    let why = if Path::new("/dev/sev").exists() {
        "SEV-SNP guests need a monitor that launches them, which this build has not yet"
    } else {
        "this machine has no AMD SEV-SNP: there is no /dev/sev"
    };
    Failure::new(Class::Platform, why)
        .hint("run it on an SNP host, or use --tee-simulate for development: a simulated guest proves nothing to whoever does not list your simulator's anchor")
}

/// Writes a file of this start and gives its name in the folder. It is whole under its name, and made anew by the next
/// start: nothing waits for the disk.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf, Failure> {
    let path = folder.join(name);
    let written = Writer::private().unsynced().write(&path, bytes);
    written.class_while(Class::Config, format!("cannot write {}", path.display()))?;
    Ok(name.into())
}
