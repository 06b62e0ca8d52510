//! `coffer measure`.

use std::process::ExitCode;

use coffer_platform::files::Platform;
use coffer_platform::plan::{LaunchInputs, LaunchPlan, VCPU_TYPE};
use coffer_runtime::launch::load_platform;
use coffer_spec::{Document, Tee};
use coffer_verifier::abi::Measurement;

use crate::cli::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::flags::{BoxFlags, read_spec};
use crate::measure_firmware::{FirmwareArgs, measure_firmware};

/// Predict what `coffer run` with the same flags measures, from files alone.
#[derive(Debug, clap::Args)]
#[command(mut_arg("image", |image| image.required_unless_present_any(["spec", "firmware"])))]
#[command(after_help = "Examples:
  coffer measure --tee-simulate busybox sha256sum /run/secrets/key
  coffer measure --spec web.toml --vcpus 2 --json
  coffer measure --firmware OVMF.amdsev.fd --kernel bzImage --append console=ttyS0 --vcpus 2 --vcpu-type EPYC-Genoa")]
pub struct Args {
    #[command(flatten)]
    flags: BoxFlags,
    #[command(flatten)]
    firmware: FirmwareArgs,
}

/// Prints measurement, workload digest and HOST_DATA.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let flags = &args.flags;
    if let Some(firmware) = &args.firmware.firmware {
        // Not our machine model, so its limit on processors is not asked either.
        let vcpus = flags.cpus.parse().class_while(Class::Usage, format!("--vcpus {}", flags.cpus))?;
        return measure_firmware(&args.firmware, firmware, vcpus, context.json);
    }
    let (document, folder, vcpus) = if let (Some(path), None) = (&flags.spec, &flags.image) {
        // A spec says everything: no image, no registry, any machine.
        let folder = context.search.platform_folder(flags.platform.as_deref())?;
        (read_spec(path)?, folder, flags.vcpus()?)
    } else {
        let home = context.open_home()?;
        let described = context.runtime()?.block_on(flags.describe(context, &home, context.json))?;
        (described.document, described.platform, described.vcpus)
    };
    let measurement = measurement(&load_platform(&folder)?, &document, document.spec().tee, vcpus)?;
    let digest = document.digest();
    if context.json {
        println!(
            "{}",
            serde_json::json!({
                "measurement": measurement, "workload_digest": digest, "host_data": digest.host_data(),
                "vcpus": vcpus, "vcpu_type": VCPU_TYPE,
            })
        );
    } else {
        println!("measurement      {measurement}");
        println!("workload_digest  {digest}");
        println!("host_data        {}", digest.host_data());
        println!("vcpus            {vcpus}");
        println!("vcpu_type        {VCPU_TYPE}");
    }
    Ok(ExitCode::SUCCESS)
}

/// The launch digest of a workload on a platform.
pub fn measurement(platform: &Platform, document: &Document, tee: Tee, vcpus: u32) -> Result<Measurement, CliError> {
    let command_line = coffer_platform::command_line(&document.digest(), tee);
    let inputs =
        LaunchInputs { kernel: &platform.kernel, initrd: &platform.initrd, command_line: &command_line, vcpus };
    Ok(LaunchPlan::new(&inputs).class(Class::Usage)?.measurement())
}
