//! `coffer measure`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coffer_rim::file::Writer;
use coffer_runtime::engine::measure::VCPU_TYPE;
use coffer_runtime::engine::{MeasureRequest, Measured, read_spec};
use coffer_runtime::id_block::SignedLaunch;
use coffer_verifier::abi::Measurement;
use coffer_verifier::measure::LaunchForm;

use crate::boxes::flags::{BoxFlags, Isolation, behind_the_image};
use crate::context::Context;
use crate::error::{self, Class, Classify as _, CliError};
use crate::image::progress;
use crate::launch::id_block::print_names;
use crate::launch::id_flags::IdFlags;
use crate::launch::measure_firmware::{FirmwareArgs, OF_FIRMWARE, measure_firmware};
use crate::launch::measure_manifest::{ManifestArgs, Written};

/// Predict what `coffer run` with the same flags measures, from files alone.
#[derive(Debug, clap::Args)]
#[command(override_usage = "coffer measure [OPTIONS] IMAGE [COMMAND]...")]
#[command(mut_arg("words", |words| words.required_unless_present_any(["spec", "firmware", "platform_files"])))]
#[command(after_help = "Examples:
  coffer measure --tee-simulate busybox sha256sum /run/secrets/key
  coffer measure --spec web.toml --vcpus 2 --vcpu-type EPYC-Genoa --json
  coffer measure --tee-simulate --igvm web.igvm busybox httpd -f
  coffer measure --spec web.toml --launch long-mode
  coffer measure --spec web.toml --manifest web.json --sign manifest.pem \\
      --name web --sequence 7 --expires 90d
  coffer measure --platform-files --json        # for sev-snp-measure
  coffer measure --firmware OVMF.amdsev.fd --kernel bzImage \\
      --append console=ttyS0 --vcpus 2 --vcpu-type EPYC-Genoa")]
pub struct Args {
    #[command(flatten)]
    flags: BoxFlags,
    #[command(flatten)]
    id: IdFlags,
    #[command(flatten)]
    manifest: ManifestArgs,
    #[command(flatten)]
    firmware: FirmwareArgs,
    /// Measure this launch form alone: reset-vector, as QEMU launches, or long-mode, as a monitor that enters in 64-bit mode.
    /// Without it `measurement` is that of the --isolation named, or else of what a run takes by itself, and both are shown.
    #[arg(long, value_name = "FORM", conflicts_with_all = ["manifest"], conflicts_with_all = OF_FIRMWARE)]
    launch: Option<LaunchForm>,
    /// Write the launch as an IGVM file too, which has a digest of its own.
    #[arg(long, value_name = "FILE", conflicts_with_all = OF_FIRMWARE)]
    igvm: Option<PathBuf>,
    /// Print the paths of the measured files, for an independent tool. Without an image, the platform with no workload.
    #[arg(long, conflicts_with_all = OF_FIRMWARE)]
    platform_files: bool,
}

/// Prints measurement, workload digest and HOST_DATA.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let flags = &args.flags;
    if let Some(firmware) = &args.firmware.firmware {
        // Not our machine model, so its limit on processors is not asked either.
        let given = flags.given_cpus();
        let vcpus = given.parse().class_while(Class::Usage, format!("--vcpus {given}"))?;
        return measure_firmware(&args.firmware, firmware, vcpus, context.json);
    }
    if args.manifest.manifest.is_some() && matches!(flags.isolation, Some(Isolation::Process)) {
        let message = "a manifest lists guests of machines, and none of `--isolation process`";
        return Err(CliError::new(Class::Usage, message).hint(
            "leave --manifest out, and list this one by itself: `coffer --json measure … | coffer kbs reference add --from -`",
        ));
    }
    let engine = context.engine()?;
    let vcpu_type = args.firmware.vcpu_type.as_deref().unwrap_or(VCPU_TYPE);
    let request = match (&flags.spec, flags.image()) {
        // A spec says everything: no image, no registry, any machine.
        (Some(path), None) => {
            flags.check_isolation()?;
            MeasureRequest::Spec {
                document: Box::new(read_spec(path)?),
                tee: flags.tee_wanted(),
                platform: flags.platform.clone(),
                vcpus: flags.vcpus()?,
            }
        }
        (None, None) => MeasureRequest::Platform { folder: flags.platform.clone(), vcpus: flags.vcpus()? },
        _ => MeasureRequest::Box(Box::new(flags.request(&engine)?)),
    };
    let progress = progress::shown(context.json);
    let monitor = flags.isolation.and_then(Isolation::monitor);
    let form = args.launch.or_else(|| monitor.map(coffer_runtime::monitor::Isolation::launch_form));
    // What a run with these words may be launched as, where another machine chooses its monitor.
    let unasked = if form.is_none() { request.unasked_forms() } else { Vec::new() };
    let form = form.unwrap_or_else(|| request.usual_form());
    let measured = context.runtime()?.block_on(engine.measure(request, form, vcpu_type, progress.as_ref()));
    let measured = measured.map_err(error::of)?;
    if let Some(document) = &measured.document {
        behind_the_image::<Args>(&flags.words, &document.spec().process.argv);
    }
    let mut facts = facts(&measured, vcpu_type);
    let forms = match args.launch {
        Some(_) => Vec::new(),
        None => by_form(&measured)?,
    };
    if args.platform_files {
        let path = |path: PathBuf| path.display().to_string();
        let platform = &measured.platform;
        facts.extend([
            ("firmware", path(platform.stage0_path())),
            ("kernel", path(platform.kernel_path())),
            ("initrd", path(platform.initrd_path())),
            ("append", measured.command_line.clone()),
        ]);
    }
    if let Some(out) = &args.igvm {
        facts.extend(write_igvm(&measured, out)?);
    }
    let signed = measured.identity(args.id.identity()?.as_ref()).map_err(error::of)?;
    let manifest = args.manifest.write(&measured)?;
    let runs = if unasked.is_empty() { vec![form] } else { unasked };
    let runs = runs.into_iter().map(|form| measured.in_form(form)).collect::<Result<Vec<_>, _>>().map_err(error::of)?;
    print(&facts, &forms, &runs, measured.vcpus.count(), signed.as_ref(), manifest.as_ref(), context.json);
    Ok(ExitCode::SUCCESS)
}

/// Names and values, in the order people read them.
type Facts = Vec<(&'static str, String)>;

fn facts(measured: &Measured, vcpu_type: &str) -> Facts {
    let mut facts =
        vec![("measurement", measured.plan.measurement().to_string()), ("launch", measured.plan.form().to_string())];
    if let Some(document) = &measured.document {
        let digest = document.digest();
        facts.extend([("workload_digest", digest.to_string()), ("host_data", digest.host_data().to_string())]);
        facts.push(("tenant", document.spec().tenant.to_string()));
    }
    facts.push(("vcpu_type", vcpu_type.to_owned()));
    facts
}

/// The measurement of each form in which there is a machine.
fn by_form(measured: &Measured) -> Result<Facts, CliError> {
    let one = |form: LaunchForm| Ok((form.word(), measured.in_form(form).map_err(error::of)?.to_string()));
    LaunchForm::MACHINES.into_iter().map(one).collect()
}

fn print(
    facts: &Facts,
    forms: &Facts,
    runs: &[Measurement],
    vcpus: u32,
    signed: Option<&SignedLaunch>,
    manifest: Option<&Written>,
    json: bool,
) {
    if json {
        let mut object: serde_json::Map<_, _> =
            facts.iter().map(|(name, value)| ((*name).to_owned(), serde_json::json!(value))).collect();
        if !forms.is_empty() {
            let forms = forms.iter().map(|(form, value)| ((*form).to_owned(), serde_json::json!(value))).collect();
            object.insert("launches".into(), serde_json::Value::Object(forms));
        }
        object.insert("run_measurements".into(), serde_json::json!(runs));
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
        for (name, value) in facts.iter().chain(forms) {
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

fn write_igvm(measured: &Measured, out: &Path) -> Result<Facts, CliError> {
    let (bytes, measurement) = measured.igvm().map_err(error::of)?;
    Writer::private()
        .into_pipes()
        .write(out, &bytes)
        .class_while(Class::Config, format!("cannot write {}", out.display()))?;
    Ok(vec![("igvm", out.display().to_string()), ("igvm_measurement", measurement.to_string())])
}
