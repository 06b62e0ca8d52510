//! `coffer measure --firmware`: the launch digest of an OVMF guest on QEMU, EC2 or GCE, from files alone.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coffer_rim::input;
use coffer_verifier::abi::Measurement;
use coffer_verifier::measure::{CpuSignature, Firmware, KernelHashes, Launch, Vmm, measure_ovmf};

use crate::error::{Class, Classify as _, CliError};

/// Guests that are not ours: any OVMF firmware, any launcher.
#[derive(Debug, clap::Args)]
pub struct FirmwareArgs {
    /// Measure an OVMF guest instead of one of ours: firmware image, or with --fw-digest its last pages.
    #[arg(long, value_name = "FILE", help_heading = "Firmware")]
    pub firmware: Option<PathBuf>,
    /// Kernel, for firmware that checks its hash.
    #[arg(long, value_name = "FILE", requires = "firmware", help_heading = "Firmware")]
    kernel: Option<PathBuf>,
    /// Initrd beside the kernel.
    #[arg(long, value_name = "FILE", requires = "kernel", help_heading = "Firmware")]
    initrd: Option<PathBuf>,
    /// Kernel command line, taken as it is.
    #[arg(long, value_name = "TEXT", requires = "kernel", help_heading = "Firmware")]
    append: Option<String>,
    /// QEMU's name of the vCPU type [default: EPYC-Milan].
    #[arg(long, value_name = "NAME", conflicts_with = "vcpu_sig")]
    pub vcpu_type: Option<String>,
    /// CPUID signature of the vCPUs in place of a type, hexadecimal.
    #[arg(long, value_name = "HEX", requires = "firmware", value_parser = hex_u32, help_heading = "Firmware")]
    vcpu_sig: Option<u32>,
    /// SEV_FEATURES, hexadecimal [default: 1].
    #[arg(long, value_name = "HEX", requires = "firmware", value_parser = hex_u64, help_heading = "Firmware")]
    guest_features: Option<u64>,
    /// Who launches the guest: qemu, ec2 or gce [default: qemu].
    #[arg(long, value_name = "NAME", requires = "firmware", help_heading = "Firmware")]
    vmm: Option<Vmm>,
    /// Launch digest after the whole firmware, of which --firmware then holds the end.
    #[arg(long, value_name = "HEX", requires = "firmware", help_heading = "Firmware")]
    fw_digest: Option<Measurement>,
}

/// Flags that say something about other people's firmware, and nothing about our own. What excludes `--firmware` excludes each: it
/// would have a flag that requires that one pass.
pub const OF_FIRMWARE: [&str; 8] =
    ["firmware", "kernel", "initrd", "append", "vcpu_sig", "guest_features", "vmm", "fw_digest"];

/// Prints the launch digest of `firmware` with `vcpus` virtual CPUs.
///
/// # Errors
/// Class `usage` for a wrong flag, `config` for a file that cannot be read or is no such firmware.
pub fn measure_firmware(args: &FirmwareArgs, firmware: &Path, vcpus: u32, json: bool) -> Result<ExitCode, CliError> {
    let image = read(firmware)?;
    let kernel = args.kernel.as_deref().map(read).transpose()?.map(|kernel| {
        let initrd = args.initrd.as_deref().map(read).transpose()?.unwrap_or_default();
        let line = args.append.as_deref().unwrap_or_default();
        Ok::<_, CliError>(KernelHashes::of(&kernel, &initrd, line.as_bytes()))
    });
    let signature = match (args.vcpu_sig, args.vcpu_type.as_deref()) {
        (Some(signature), _) => CpuSignature(signature),
        (None, name) => name.unwrap_or("EPYC-Milan").parse().class(Class::Usage)?,
    };
    let launch = Launch {
        firmware: match args.fw_digest {
            Some(digest) => Firmware::Suffix { tail: &image, digest },
            None => Firmware::Image(&image),
        },
        kernel: kernel.transpose()?,
        vcpus,
        signature,
        features: args.guest_features.unwrap_or(1),
        vmm: args.vmm.unwrap_or(Vmm::Qemu),
    };
    let measurement = measure_ovmf(&launch).class_while(Class::Config, firmware.display())?;
    if json {
        println!(
            "{}",
            serde_json::json!({
                "measurement": measurement, "vcpus": vcpus, "vcpu_signature": signature.to_string(),
            })
        );
    } else {
        println!("{measurement}");
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    input::read(path, input::FIRMWARE).class_while(Class::Config, format!("reading {}", path.display()))
}

fn hex_u32(text: &str) -> Result<u32, std::num::ParseIntError> {
    u32::from_str_radix(text.trim_start_matches("0x"), 16)
}

fn hex_u64(text: &str) -> Result<u64, std::num::ParseIntError> {
    u64::from_str_radix(text.trim_start_matches("0x"), 16)
}
