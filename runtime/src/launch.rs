//! Everything a guest boots from, made anew for each start: measured files, spec disk and, in simulation, the secrets page.
//!
//! What is measured is exactly what is written here and loaded by the monitor, whatever happens to the platform folder later.

use std::path::{Path, PathBuf};

use coffer_machine::disks;
use coffer_machine::spec_disk::SpecDisk;
use coffer_platform::files::{Installed, Platform};
use coffer_platform::plan::{LaunchFile, LaunchInputs, LaunchPlan, VCPU_TYPE};
use coffer_rim::file::Writer;
use coffer_rim::{Class, Classify as _, Failure};
use coffer_spec::{Document, Scratch, Sysctl, Tee};
use coffer_verifier::abi::ProductLine;
use coffer_verifier::measure::{CpuSignature, LaunchForm};

use crate::boxes::{BoxOptions, files, unix_us};
use crate::home::Home;
use crate::id_block::{GUEST_POLICY, SignedLaunch};
use crate::monitor::{
    Access, Disk, Isolation, Launch, Limits, Measured, Monitor, SnpId, SnpLaunch, Writes, namespaces, network,
};
use crate::platform_folder::of_boxs_platform;
use crate::simulator::{self, Answerer};
use crate::volumes::{BoxVolume, Kind, Volumes};

/// A guest ready to boot.
pub struct Prepared {
    /// For the monitor.
    pub launch: Launch,
    /// The simulated processor's side of this guest.
    pub processor: Option<Answerer>,
}

/// Writes the files of one start into a box folder.
///
/// # Errors
/// Class `config` if a file cannot be read or written, `platform` if the processor demanded is not here.
pub fn prepare(folder: &Path, options: &BoxOptions, document: &Document, home: &Home) -> Result<Prepared, Failure> {
    let platform = Installed::open(&options.platform).map_err(|error| of_boxs_platform(&error))?;
    let command_line = coffer_platform::command_line(&document.digest(), options.tee);
    let (measured, plan) = if options.launch.is_machine() {
        with_machine(folder, options, platform, &command_line)?
    } else {
        without_machine(folder, options, &platform, &command_line)?
    };
    let unix_seconds = u64::try_from(unix_us() / 1_000_000).unwrap_or(0);
    let put = |name: &str, bytes: &[u8]| write(folder, name, bytes);
    let spec = put(files::SPEC_DISK, &spec_disk(document, unix_seconds)?)?;
    let disk = |serial: &str, file, access| Disk { serial: serial.into(), file, access };
    let mut all =
        vec![disk(disks::ROOT, options.root.clone(), Access::ReadOnly), disk(disks::SPEC, spec, Access::ReadOnly)];
    for index in 0..options.volumes {
        all.push(disk(&disks::volume(index).to_string(), files::volume(index).into(), Access::ReadOnly));
    }
    let volumes = Volumes::at(home.volumes());
    for (index, BoxVolume { name, read_only, .. }) in options.data.iter().enumerate() {
        let writes = if *read_only { Writes::Refused } else { Writes::Allowed };
        let kind = options.volume_kind();
        let file = volumes.path(name, kind);
        if kind == Kind::Sealed {
            // Its guest writes to it even where the workload may not.
            all.push(disk(&disks::sealed(index).to_string(), file, Access::Kept(Writes::Allowed)));
        } else {
            all.push(disk(&disks::data(index).to_string(), file, Access::Kept(writes)));
        }
    }
    if options.scratch_bytes > 0 {
        all.push(disk(disks::SCRATCH, make_scratch(folder, options.scratch_bytes)?, Access::Ephemeral));
    }
    let (mut secrets, mut processor, mut snp) = (None, None, None);
    match options.tee {
        Tee::None => {}
        Tee::Snp => snp = Some(snp_launch(folder, options, document)?),
        Tee::Simulated => {
            let plan = plan.as_ref().ok_or_else(|| Failure::new(Class::Internal, "a launch without a plan"))?;
            let (page, answerer) = simulate(folder, plan, options, document, &home.simulator())?;
            (secrets, processor) = (Some(page), Some(answerer));
        }
    }
    let launch = Launch {
        folder: folder.into(),
        measured,
        secrets,
        snp,
        disks: all,
        vcpus: options.vcpus,
        memory_bytes: options.memory_bytes,
        limits: options.limits,
        card: document.spec().network.as_ref().map(network::card),
    };
    Ok(Prepared { launch, processor })
}

/// Copies of what a machine is launched from.
fn with_machine(
    folder: &Path,
    options: &BoxOptions,
    platform: Installed,
    command_line: &str,
) -> Result<(Measured, Option<LaunchPlan>), Failure> {
    let platform = platform.load().map_err(|error| of_boxs_platform(&error))?;
    let plan = plan(&platform, options.launch, command_line, options.vcpus)?;
    let put = |name: &str, bytes: &[u8]| write(folder, name, bytes);
    let measured = Measured {
        stage0: put(files::STAGE0, plan.rom())?,
        hashes: put(files::HASHES, plan.hash_page())?,
        kernel: put(files::KERNEL, &platform.kernel)?,
        initrd: put(files::INITRD, &platform.initrd)?,
        initrd_sha256: platform.manifest.initrd.clone(),
        command_line: put(files::COMMAND_LINE, &with_nul(command_line))?,
    };
    Ok((measured, Some(plan)))
}

/// What a box without a machine is launched from. Of the platform that is init alone, in an initrd which is checked by whoever
/// starts init: a launch that is measured is planned with what the manifest says of it.
fn without_machine(
    folder: &Path,
    options: &BoxOptions,
    platform: &Installed,
    command_line: &str,
) -> Result<(Measured, Option<LaunchPlan>), Failure> {
    let plan = match options.tee {
        Tee::None => None,
        Tee::Simulated | Tee::Snp => {
            let firmware = platform.stage0().map_err(|error| of_boxs_platform(&error))?;
            Some(planned(&LaunchInputs {
                form: options.launch,
                firmware: &firmware,
                kernel: LaunchFile::Bytes(&[]),
                initrd: platform.initrd_unread().map_err(|error| of_boxs_platform(&error))?,
                command_line,
                vcpus: options.vcpus,
                signature: signature()?,
            })?)
        }
    };
    let measured = Measured {
        stage0: files::STAGE0.into(),
        hashes: files::HASHES.into(),
        kernel: files::KERNEL.into(),
        initrd: std::path::absolute(platform.initrd_path())?,
        initrd_sha256: platform.manifest.initrd.clone(),
        command_line: write(folder, files::COMMAND_LINE, &with_nul(command_line))?,
    };
    Ok((measured, plan))
}

fn with_nul(command_line: &str) -> Vec<u8> {
    format!("{command_line}\0").into_bytes()
}

/// Whether a box is measured under an isolation as it was made for. Without a TEE nothing measures it, and all machines are
/// alike.
///
/// # Errors
/// Class `config`: it would be another MEASUREMENT, or have a machine where it was made without one, or none where it was.
pub fn same_form(options: &BoxOptions, isolation: Isolation) -> Result<(), Failure> {
    let (made_for, launched) = (options.launch, isolation.launch_form());
    if made_for.is_machine() != launched.is_machine() {
        let message = format!(
            "the box was made for a launch of form {made_for}, and isolation {isolation} launches {launched}: with a machine and without are not the same box"
        );
        return Err(Failure::new(Class::Config, message).hint("create a box of the other isolation"));
    }
    if options.tee == Tee::None || made_for == launched {
        return Ok(());
    }
    let message = format!(
        "the box was made for a launch of form {made_for}, and isolation {isolation} launches {launched}: that is another MEASUREMENT, to which nothing opens that the box sealed"
    );
    Err(Failure::new(Class::Config, message)
        .hint(format!("isolate it as it was made ({} if that was before forms were recorded); what a new box under the other isolation may have, it gets from a key broker that admits both forms", Isolation::default())))
}

/// Whether a monitor runs guests with this processor on this machine.
///
/// # Errors
/// Class `platform`: what it lacks.
pub fn can_run(monitor: &dyn Monitor, tee: Tee) -> Result<(), Failure> {
    monitor.check()?;
    if tee == Tee::Snp { monitor.check_snp() } else { Ok(()) }
}

/// Whether a box has what it takes to be isolated so: without a machine some of it cannot be.
///
/// # Errors
/// Class `config`: what it may not have. Class `platform`: what this host cannot bound.
pub fn fits(isolation: Isolation, scratch: Scratch, identity: bool, limits: &Limits) -> Result<(), Failure> {
    let refuse = |what: &str, hint: &str| {
        Err(Failure::new(Class::Config, format!("a box of isolation {isolation} has {what}")).hint(hint))
    };
    if isolation.launch_form().is_machine() {
        return Ok(());
    }
    if let Scratch::Disk { .. } = scratch {
        return refuse("no scratch disk: hosts have no device-mapper for it", "let its writable layer be in memory");
    }
    if identity {
        // An author's word for a machine must never be one for what is none.
        return refuse(
            "no ID block: an author signs for launches of machines",
            "let a key broker admit it by its measurement",
        );
    }
    namespaces::check_limits(limits)
}

/// Whether such an isolation bounds the number of programs, where the spec does.
///
/// # Errors
/// Class `config`.
pub fn bounds_programs(isolation: Isolation, most: Option<u64>) -> Result<(), Failure> {
    if most.is_none() || isolation.launch_form().is_machine() {
        return Ok(());
    }
    let message = format!("a box of isolation {isolation} has no bound on the number of its programs");
    Err(Failure::new(Class::Config, message).hint("leave --pids-limit out, or run it in a machine"))
}

/// Whether a box may have these settings of the kernel. Without a machine its network is made by the host.
///
/// # Errors
/// Class `config`.
pub fn takes_settings(isolation: Isolation, settings: &[Sysctl]) -> Result<(), Failure> {
    let Some(of_net) = settings.iter().find(|setting| setting.name.starts_with("net.")) else { return Ok(()) };
    if isolation.launch_form().is_machine() {
        return Ok(());
    }
    let message = format!("a box of isolation {isolation} takes no settings of the network: {of_net}");
    Err(Failure::new(Class::Config, message).hint("leave it out, or run it in a machine"))
}

/// The disk that hands over the spec, and what we take for the time.
fn spec_disk(document: &Document, unix_seconds: u64) -> Result<Vec<u8>, Failure> {
    let mut disk = Vec::new();
    SpecDisk { document: document.bytes(), claimed_unix_seconds: Some(unix_seconds) }
        .write(&mut disk)
        .map_err(|error| Failure::caused(Class::Config, &error))?;
    Ok(disk)
}

/// The plan of a guest of this machine, launched in one form: what its processor measures, the simulated one as well.
///
/// # Errors
/// Class `config`.
pub fn plan(platform: &Platform, form: LaunchForm, command_line: &str, vcpus: u32) -> Result<LaunchPlan, Failure> {
    planned(&platform.launch_inputs(form, command_line, vcpus, signature()?))
}

fn planned(inputs: &LaunchInputs<'_>) -> Result<LaunchPlan, Failure> {
    LaunchPlan::new(inputs).map_err(|error| Failure::caused(Class::Config, &error).hint("run `make platform`"))
}

/// Of the processors that our guests have.
fn signature() -> Result<CpuSignature, Failure> {
    VCPU_TYPE.parse().map_err(|error: coffer_verifier::measure::CpuError| Failure::caused(Class::Internal, &error))
}

/// What the secure processor is told of a box.
fn snp_launch(folder: &Path, options: &BoxOptions, document: &Document) -> Result<SnpLaunch, Failure> {
    let id = SignedLaunch::of_box(folder, options)?.map(|signed| SnpId {
        block: signed.block.to_bytes().to_vec(),
        auth: signed.auth.as_bytes().to_vec(),
        author: signed.auth.has_author(),
    });
    let host_data = document.digest().host_data();
    Ok(SnpLaunch { policy: GUEST_POLICY, host_data, id, vcpu_type: VCPU_TYPE.into() })
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

/// Refuses hardware that is not here, before anything else happens. Nothing ever falls back to the simulator.
///
/// # Errors
/// Class `platform`.
pub fn check_hardware(tee: Tee) -> Result<(), Failure> {
    if tee != Tee::Snp || Path::new("/dev/sev").exists() {
        return Ok(());
    }
    Err(Failure::new(Class::Platform, "this machine has no AMD SEV-SNP: there is no /dev/sev")
        .hint("run it on an SNP host, or use --tee-simulate for development: a simulated guest proves nothing to whoever does not list your simulator's anchor"))
}

/// Writes a file of this start and gives its name in the folder. It is whole under its name, and made anew by the next
/// start: nothing waits for the disk.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf, Failure> {
    let path = folder.join(name);
    let written = Writer::private().unsynced().write(&path, bytes);
    written.class_while(Class::Config, format!("cannot write {}", path.display()))?;
    Ok(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boxes::tests::options;

    #[test]
    fn a_box_with_a_tee_keeps_its_form_and_one_without_has_none() {
        let with = |tee, launch| BoxOptions { tee, launch, ..options() };
        for tee in [Tee::Simulated, Tee::Snp] {
            assert!(same_form(&with(tee, LaunchForm::ResetVector), Isolation::Qemu).is_ok());
            assert!(same_form(&with(tee, LaunchForm::LongMode), Isolation::Kvm).is_ok());
            let failure = same_form(&with(tee, LaunchForm::ResetVector), Isolation::Kvm).unwrap_err();
            assert_eq!(failure.class, Class::Config);
            for word in ["reset-vector", "isolation kvm", "long-mode", "another MEASUREMENT"] {
                assert!(failure.message.contains(word), "{failure}");
            }
            assert!(same_form(&with(tee, LaunchForm::LongMode), Isolation::Qemu).is_err());
        }
        assert!(same_form(&with(Tee::None, LaunchForm::ResetVector), Isolation::Kvm).is_ok());
    }

    #[test]
    fn a_box_without_a_machine_is_another_measurement_and_has_nothing_that_needs_one() {
        let simulated = BoxOptions { tee: Tee::Simulated, launch: LaunchForm::ResetVector, ..options() };
        assert!(same_form(&simulated, Isolation::Process).is_err());
        for (form, isolation) in [
            (LaunchForm::Namespaces, Isolation::Qemu),
            (LaunchForm::Namespaces, Isolation::Kvm),
            (LaunchForm::LongMode, Isolation::Process),
        ] {
            let plain = BoxOptions { tee: Tee::None, launch: form, ..options() };
            assert!(same_form(&plain, isolation).unwrap_err().message.contains("without"), "{form} {isolation}");
        }
        assert!(bounds_programs(Isolation::Process, None).is_ok() && bounds_programs(Isolation::Kvm, Some(9)).is_ok());
        assert_eq!(bounds_programs(Isolation::Process, Some(9)).unwrap_err().class, Class::Config);
        let settings = ["kernel.sem=1 2 3 4", "net.ipv4.ip_forward=1"].map(|text| text.parse::<Sysctl>().unwrap());
        assert!(takes_settings(Isolation::Process, &settings[..1]).is_ok());
        assert!(takes_settings(Isolation::Qemu, &settings).is_ok());
        assert_eq!(takes_settings(Isolation::Process, &settings).unwrap_err().class, Class::Config);
        let (memory, disk) = (Scratch::Tmpfs { bytes: 1 << 20 }, Scratch::Disk { bytes: 1 << 20 });
        assert!(fits(Isolation::Process, memory, false, &Limits::default()).is_ok());
        for (scratch, identity, word) in [(disk, false, "scratch disk"), (memory, true, "ID block")] {
            let failure = fits(Isolation::Process, scratch, identity, &Limits::default()).unwrap_err();
            assert!(failure.class == Class::Config && failure.message.contains(word), "{failure}");
            for machine in [Isolation::Kvm, Isolation::Qemu] {
                assert!(fits(machine, scratch, identity, &Limits { memory_bytes: Some(1), cpus: Some(1) }).is_ok());
            }
        }
    }
}
