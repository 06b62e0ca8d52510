//! `coffer report show`: every field of a report, with its meaning. It decides nothing.

use std::path::PathBuf;
use std::process::ExitCode;

use coffer_verifier::ReportClaims;
use coffer_verifier::abi::{PlatformBit, PolicyBit, ProductLine, Report};
use serde_json::json;

use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::evidence::judging::{presented, read};
use crate::row::Entry;

/// Show what a report says.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer report show report.bin")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] = &[command!("show": ShowArgs => show)];

/// Print every field.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer report show report.bin
  coffer report show evidence.cmw --json")]
struct ShowArgs {
    /// A 1184-byte report, an Azure HCL blob, a CMW record or a TSM report; `-` is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

fn show(args: &ShowArgs, context: &Context) -> Result<ExitCode, CliError> {
    let file = &args.file;
    let input = presented(file, &read(file)?)?;
    // The same exit code as `coffer verify` has for it.
    let report = Report::parse(&input.evidence().report).class_while(Class::NotAuthentic, file.display())?;
    // Version 2 does not name its product; only Milan and Genoa made it, and both share one TCB layout.
    let layout_of = report.product().unwrap_or(ProductLine::Milan);
    let tcbs = report.tcbs(layout_of).ok();
    let (mut r, mut s) = report.signature();
    r.reverse();
    s.reverse();
    if context.json {
        let value = json!({
            "report": ReportClaims::of(&report),
            "product": report.product(),
            "tcb": tcbs,
            "key_info": {
                "author_key_en": report.key_info().author_key_en,
                "mask_chip_key": report.key_info().mask_chip_key,
                "signing_key": report.signing_key(),
            },
            "signature": { "algorithm": "ECDSA P-384 with SHA-384", "r": hex::encode(r), "s": hex::encode(s) },
        });
        println!("{value}");
        return Ok(ExitCode::SUCCESS);
    }
    let line = |name: &str, value: &dyn std::fmt::Display, meaning: &str| {
        let gap = if meaning.is_empty() { "" } else { "  # " };
        println!("{name:<20} {value}{gap}{meaning}");
    };
    println!("not verified: anybody can write these fields; `coffer verify` decides");
    line("version", &report.version(), "");
    let product = report.product().map_or("not stated".to_owned(), |product| product.to_string());
    line("product", &product, "from the CPUID words; version 2 has none");
    if let Some(cpu) = report.cpuid() {
        line("cpuid", &format!("{:#04x}/{:#04x}/{:#x}", cpu.family, cpu.model, cpu.stepping), "family/model/stepping");
    }
    line("guest svn", &report.guest_svn(), "version of the guest, from the ID block");
    let policy = report.policy();
    line("policy", &policy, &format!("needs ABI {}.{} or newer", policy.abi().0, policy.abi().1));
    for bit in PolicyBit::ALL {
        line(&format!("  {}", bit.name()), &u8::from(policy.has(bit)), policy_meaning(bit));
    }
    line("family id", &report.family_id(), "from the ID block");
    line("image id", &report.image_id(), "from the ID block");
    line("vmpl", &report.vmpl(), "privilege level that asked for the report; 0 is the highest");
    let info = report.platform_info();
    line("platform info", &info, "");
    for bit in PlatformBit::ALL {
        line(&format!("  {}", bit.name()), &u8::from(info.has(bit)), platform_meaning(bit));
    }
    if info.unknown_bits() != 0 {
        line("  unknown bits", &format!("{:#x}", info.unknown_bits()), "newer than this program");
    }
    let key = report.key_info();
    line("signing key", &key.signing_key, "VCEK: the chip's own; VLEK: the cloud provider's");
    line("author key", &u8::from(key.author_key_en), "1: an author key signed the ID key");
    line("mask chip key", &u8::from(key.mask_chip_key), "1: the platform does not sign with its VCEK");
    line("report data", &report.report_data(), "what the guest asked to be signed");
    line("measurement", &report.measurement(), "launch digest of guest memory");
    line("host data", &report.host_data(), "set by the host; here the digest of the workload spec");
    line("id key digest", &report.id_key_digest(), "zero: no ID block");
    line("author key digest", &report.author_key_digest(), "");
    line("report id", &report.report_id(), "this guest instance");
    line("report id ma", &report.report_id_ma(), "all ff: no migration agent");
    match tcbs {
        Some(tcbs) => {
            line("current tcb", &tcbs.current, "running now");
            line("reported tcb", &tcbs.reported, "what the signing key is certified for");
            line("committed tcb", &tcbs.committed, "the platform cannot go below");
            line("launch tcb", &tcbs.launch, "when the guest was launched");
        }
        None => line("tcb", &"reserved bytes are not zero", ""),
    }
    line("chip id", &report.chip_id(), "zero: masked");
    line("current firmware", &report.current_firmware(), "");
    line("committed firmware", &report.committed_firmware(), "");
    for (name, vector) in
        [("launch mitigations", report.launch_mit_vector()), ("current mitigations", report.current_mit_vector())]
    {
        match vector {
            Some(vector) => line(name, &format!("{vector:#x}"), ""),
            None => line(name, &"absent", "reports below version 5 have none"),
        }
    }
    line("signature r", &hex::encode(r), "");
    line("signature s", &hex::encode(s), "");
    Ok(ExitCode::SUCCESS)
}

fn policy_meaning(bit: PolicyBit) -> &'static str {
    match bit {
        PolicyBit::Smt => "1: may run with SMT on",
        PolicyBit::MigrateMa => "1: a migration agent may be associated",
        PolicyBit::Debug => "1: the host may read and write guest memory",
        PolicyBit::SingleSocket => "1: one socket only",
        PolicyBit::CxlAllow => "1: CXL devices may be populated",
        PolicyBit::MemAes256Xts => "1: needs AES-256-XTS memory encryption",
        PolicyBit::RaplDis => "1: needs RAPL disabled",
        PolicyBit::CiphertextHiding => "1: needs ciphertext hiding",
        PolicyBit::PageSwapDisable => "1: guest pages may not be swapped or moved",
    }
}

fn platform_meaning(bit: PlatformBit) -> &'static str {
    match bit {
        PlatformBit::Smt => "1: SMT is on",
        PlatformBit::Tsme => "1: transparent SME is on",
        PlatformBit::Ecc => "1: ECC memory",
        PlatformBit::RaplDisabled => "1: RAPL is disabled",
        PlatformBit::CiphertextHiding => "1: ciphertext hiding is on",
        PlatformBit::AliasCheckComplete => "1: memory alias check done (AMD-SB-3015)",
        PlatformBit::IommuWriteSafe => "1: safe against AMD-SB-3016",
        PlatformBit::Tio => "1: trusted I/O is on",
    }
}
