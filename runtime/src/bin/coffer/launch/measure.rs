//! `coffer measure`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coffer_platform::files::Platform;
use coffer_platform::igvm_file;
use coffer_platform::plan::{LaunchPlan, VCPU_TYPE};
use coffer_rim::file::write_private;
use coffer_runtime::id_block::SignedLaunch;
use coffer_runtime::launch::load_platform;
use coffer_spec::{Document, Tee};
use coffer_verifier::abi::Measurement;

use crate::cli::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::flags::{BoxFlags, read_spec, same_tee};
use crate::id_block::print_names;
use crate::id_flags::IdFlags;
use crate::measure_firmware::{FirmwareArgs, measure_firmware};
use crate::measure_manifest::{ManifestArgs, Written};

/// Predict what `coffer run` with the same flags measures, from files alone.
#[derive(Debug, clap::Args)]
#[command(mut_arg("image", |image| image.required_unless_present_any(["spec", "firmware", "platform_files"])))]
#[command(after_help = "Examples:
  coffer measure --tee-simulate busybox sha256sum /run/secrets/key
  coffer measure --spec web.toml --vcpus 2 --vcpu-type EPYC-Genoa --json
  coffer measure --tee-simulate --igvm web.igvm busybox httpd -f
  coffer measure --spec web.toml --manifest web.json --sign manifest.pem --name web --sequence 7 --expires 90d
  coffer measure --platform-files --json        # what sev-snp-measure needs to compute the same
  coffer measure --firmware OVMF.amdsev.fd --kernel bzImage --append console=ttyS0 --vcpus 2 --vcpu-type EPYC-Genoa")]
pub struct Args {
    #[command(flatten)]
    flags: BoxFlags,
    #[command(flatten)]
    id: IdFlags,
    #[command(flatten)]
    manifest: ManifestArgs,
    #[command(flatten)]
    firmware: FirmwareArgs,
    /// Write the launch as an IGVM file too, which has a digest of its own.
    #[arg(long, value_name = "FILE", conflicts_with = "firmware")]
    igvm: Option<PathBuf>,
    /// Print the paths of the measured files, for an independent tool. Without an image, the platform with no workload.
    #[arg(long, conflicts_with = "firmware")]
    platform_files: bool,
}

/// vCPU types a manifest holds measurements for, by QEMU's names.
pub const VCPU_TYPES: &[&str] = &[VCPU_TYPE, "EPYC-Genoa", "EPYC-Turin"];

/// What is measured.
struct Subject {
    /// With a workload, its spec.
    document: Option<Document>,
    /// Platform folder.
    platform: PathBuf,
    /// Virtual CPUs.
    vcpus: u32,
}

/// Prints measurement, workload digest and HOST_DATA.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let flags = &args.flags;
    if let Some(firmware) = &args.firmware.firmware {
        // Not our machine model, so its limit on processors is not asked either.
        let vcpus = flags.cpus.parse().class_while(Class::Usage, format!("--vcpus {}", flags.cpus))?;
        return measure_firmware(&args.firmware, firmware, vcpus, context.json);
    }
    let subject = subject(args, context)?;
    let vcpu_type = args.firmware.vcpu_type.as_deref().unwrap_or(VCPU_TYPE);
    let platform = load_platform(&subject.platform)?;
    let command_line = match &subject.document {
        Some(document) => coffer_platform::command_line(&document.digest(), document.spec().tee),
        None => coffer_platform::FIXED_COMMAND_LINE.to_owned(),
    };
    let plan = plan(&platform, &command_line, subject.vcpus, vcpu_type)?;
    let mut facts = facts(&subject, &plan, vcpu_type);
    if args.platform_files {
        let path = |path: PathBuf| path.display().to_string();
        facts.extend([
            ("firmware", path(platform.stage0_path())),
            ("kernel", path(platform.kernel_path())),
            ("initrd", path(platform.initrd_path())),
            ("append", command_line),
        ]);
    }
    if let Some(out) = &args.igvm {
        facts.extend(write_igvm(&plan, out)?);
    }
    let tee = subject.document.as_ref().map_or(Tee::None, |document| document.spec().tee);
    args.id.check_tee(tee)?;
    let signed = args.id.signed(|| Ok(plan.measurement()))?;
    let manifest = match &subject.document {
        Some(document) => args.manifest.write(&platform, document, subject.vcpus)?,
        None if args.manifest.manifest.is_some() => {
            return Err(CliError::new(Class::Usage, "--manifest is about a workload: name an image or a --spec"));
        }
        None => None,
    };
    print(&facts, subject.vcpus, signed.as_ref(), manifest.as_ref(), context.json);
    Ok(ExitCode::SUCCESS)
}

fn subject(args: &Args, context: &Context) -> Result<Subject, CliError> {
    let flags = &args.flags;
    let folder = || context.search.platform_folder(flags.platform.as_deref());
    match (&flags.spec, &flags.image) {
        // A spec says everything: no image, no registry, any machine.
        (Some(path), None) => {
            let document = read_spec(path)?;
            flags.check_isolation()?;
            same_tee(document.spec().tee, flags.tee_wanted())?;
            Ok(Subject { document: Some(document), platform: folder()?, vcpus: flags.vcpus()? })
        }
        (None, None) => Ok(Subject { document: None, platform: folder()?, vcpus: flags.vcpus()? }),
        _ => {
            let home = context.open_home()?;
            let described = context.runtime()?.block_on(flags.describe(context, &home, context.json))?;
            Ok(Subject { document: Some(described.document), platform: described.platform, vcpus: described.vcpus })
        }
    }
}

/// Names and values, in the order people read them.
type Facts = Vec<(&'static str, String)>;

fn facts(subject: &Subject, plan: &LaunchPlan, vcpu_type: &str) -> Facts {
    let mut facts = vec![("measurement", plan.measurement().to_string())];
    if let Some(document) = &subject.document {
        let digest = document.digest();
        facts.extend([("workload_digest", digest.to_string()), ("host_data", digest.host_data().to_string())]);
    }
    facts.push(("vcpu_type", vcpu_type.to_owned()));
    facts
}

fn print(facts: &Facts, vcpus: u32, signed: Option<&SignedLaunch>, manifest: Option<&Written>, json: bool) {
    if json {
        let mut object: serde_json::Map<_, _> =
            facts.iter().map(|(name, value)| ((*name).to_owned(), serde_json::json!(value))).collect();
        object.insert("vcpus".into(), vcpus.into());
        if let Some(signed) = signed {
            object.insert("id_block".into(), serde_json::json!(signed.facts()));
        }
        if let Some(written) = manifest {
            let contents = written.manifest.contents();
            let value = serde_json::json!({
                "file": written.file, "name": contents.name, "sequence": contents.sequence,
                "expires": contents.expires, "measurements": contents.measurements.len(), "key": written.key,
            });
            object.insert("manifest".into(), value);
        }
        println!("{}", serde_json::Value::Object(object));
    } else {
        for (name, value) in facts {
            println!("{name:<16} {value}");
        }
        println!("{:<16} {vcpus}", "vcpus");
        if let Some(signed) = signed {
            print_names(&signed.facts());
        }
        if let Some(written) = manifest {
            let contents = written.manifest.contents();
            let (name, sequence, expires) = (&contents.name, contents.sequence, contents.expires);
            println!("manifest         {}: {name} sequence {sequence}, until {expires}", written.file.display());
        }
    }
}

fn write_igvm(plan: &LaunchPlan, out: &Path) -> Result<Facts, CliError> {
    let (bytes, measurement) = igvm_file::write(plan).class(Class::Internal)?;
    write_private(out, &bytes).class_while(Class::Config, format!("cannot write {}", out.display()))?;
    Ok(vec![("igvm", out.display().to_string()), ("igvm_measurement", measurement.to_string())])
}

fn plan(platform: &Platform, command_line: &str, vcpus: u32, vcpu_type: &str) -> Result<LaunchPlan, CliError> {
    let signature = vcpu_type.parse().class(Class::Usage)?;
    LaunchPlan::new(&platform.launch_inputs(command_line, vcpus, signature)).class(Class::Config)
}

/// The launch digest of a workload on a platform.
pub fn measurement(
    platform: &Platform,
    document: &Document,
    tee: Tee,
    vcpus: u32,
    vcpu_type: &str,
) -> Result<Measurement, CliError> {
    let command_line = coffer_platform::command_line(&document.digest(), tee);
    Ok(plan(platform, &command_line, vcpus, vcpu_type)?.measurement())
}
