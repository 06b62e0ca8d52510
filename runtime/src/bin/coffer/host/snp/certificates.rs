//! `coffer host certificates`: the certificates of this host's chip.

use std::path::PathBuf;
use std::process::ExitCode;

use coffer_rim::file;
use coffer_runtime::home::host_certificates;
use coffer_runtime::host::certificates::{Host, HostCertificates};
use coffer_runtime::host::{CertificatesError, Firmware as _};
use coffer_verifier::abi::SigningKey;
use coffer_verifier::{EndorsementKind, EndorsementRequest, Endorsements};
use serde_json::json;

use super::{open, refused};
use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::evidence::judging::read;
use crate::row::Entry;

/// Fetch addresses of, keep and hand out the certificates of this host's chip, and load a VLEK.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer host certificates show
  coffer host certificates import vcek.der cert_chain.pem
  coffer host certificates export --out certs")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] = &[
    command!("show": ShowArgs => show),
    command!("import": ImportArgs => import),
    command!("export": ExportArgs => export),
    command!("load-vlek": LoadArgs => load_vlek),
];

/// Say where AMD has this chip's certificates, and which are kept here.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer host certificates show")]
struct ShowArgs {}

fn show(_: &ShowArgs, context: &Context) -> Result<ExitCode, CliError> {
    let host = host()?;
    let urls = |kind| {
        coffer_kds::urls(&EndorsementRequest {
            kind,
            products: vec![host.product],
            chip_id: Some(host.chip),
            reported_tcb: host.reported.to_raw(),
            simulated: false,
        })
    };
    let leaf = urls(EndorsementKind::Leaf(SigningKey::Vcek));
    let chain = urls(EndorsementKind::Root(SigningKey::Vcek));
    let path = kept(context);
    let held = if path.exists() { Some(load(context, &host)) } else { None };
    let state = match &held {
        None => "none".to_owned(),
        Some(Ok(found)) => format!("for TCB {}", found.tcb()),
        Some(Err(failure)) => format!("not of use: {}", failure.message),
    };
    if context.json {
        println!(
            "{}",
            json!({ "product": host.product, "chip_id": host.chip, "reported": host.reported, "vcek": leaf, "chain": chain,
                "kept": held.as_ref().is_some_and(Result::is_ok), "kept_state": state, "file": path })
        );
    } else {
        println!("fetch VCEK:  {}\nfetch chain: {}\nkept here:   {state}", leaf.join(" "), chain.join(" "));
    }
    Ok(ExitCode::SUCCESS)
}

/// Keep a set: the leaf (VCEK or VLEK), its intermediate and the root. Only this very chip's at its reported TCB is taken.
///
/// Signatures and dates are not judged here: whoever verifies a report does that.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer host certificates import vcek.der cert_chain.pem")]
struct ImportArgs {
    /// DER, or PEM with one or more.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

fn import(args: &ImportArgs, context: &Context) -> Result<ExitCode, CliError> {
    let mut found = Endorsements::new();
    for path in &args.files {
        found.add_certificates(&read(path)?).class_while(Class::Config, path.display())?;
    }
    let host = host()?;
    let set = HostCertificates::check(&found, &host).map_err(|error| of(&error))?;
    context.open_home()?;
    let path = kept(context);
    let folder = path.parent().unwrap_or(&path);
    std::fs::create_dir_all(folder).class_while(Class::Config, folder.display())?;
    file::write_private(&path, &set.table()).class_while(Class::Config, path.display())?;
    if context.json {
        println!("{}", json!({ "file": path, "tcb": set.tcb() }));
    } else {
        println!("kept in {}, for TCB {}", path.display(), set.tcb());
    }
    Ok(ExitCode::SUCCESS)
}

/// Write what is kept into a folder, as `coffer verify --certs` reads it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer host certificates export --out certs
  coffer verify report.bin --certs certs")]
struct ExportArgs {
    /// Folder, made if it is not there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

fn export(args: &ExportArgs, context: &Context) -> Result<ExitCode, CliError> {
    let host = host()?;
    let set = load(context, &host)?;
    std::fs::create_dir_all(&args.out).class_while(Class::Config, args.out.display())?;
    let mut written = Vec::new();
    for (name, der) in set.files() {
        let path = args.out.join(name);
        file::write_private(&path, der).class_while(Class::Config, path.display())?;
        written.push(path);
    }
    if context.json {
        println!("{}", json!({ "files": written, "tcb": set.tcb() }));
    } else {
        for path in written {
            println!("{}", path.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Load the cloud provider's VLEK hashstick into the firmware.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer host certificates load-vlek hashstick.bin")]
struct LoadArgs {
    /// 432 bytes, wrapped by AMD for this very chip.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

fn load_vlek(args: &LoadArgs, context: &Context) -> Result<ExitCode, CliError> {
    let bytes = read(&args.file)?;
    let (mut device, _) = open()?;
    device.load_vlek(&bytes).map_err(refused)?;
    if context.json {
        println!("{}", json!({ "loaded": true }));
    } else {
        println!("the firmware has the VLEK: guests that ask for it are signed with it until the machine restarts");
    }
    Ok(ExitCode::SUCCESS)
}

fn host() -> Result<Host, CliError> {
    let (mut device, _) = open()?;
    let reported = device.status().map_err(refused)?.reported;
    let chip = device.chip().map_err(refused)?;
    Ok(Host { product: device.product(), chip, reported })
}

fn kept(context: &Context) -> PathBuf {
    host_certificates(&context.home)
}

/// What is kept, checked again: the platform's TCB may have moved since.
fn load(context: &Context, host: &Host) -> Result<HostCertificates, CliError> {
    let path = kept(context);
    let none = |failure: CliError| failure.hint("`coffer host certificates import` keeps a set");
    let bytes = read(&path).map_err(none)?;
    let found = Endorsements::from_cert_table(&bytes).class_while(Class::Config, path.display()).map_err(none)?;
    HostCertificates::check(&found, host).map_err(|error| of(&error))
}

fn of(error: &CertificatesError) -> CliError {
    use CertificatesError as E;
    CliError::caused(Class::Config, error).hint(match error {
        E::Form(_) => "give VCEK or VLEK, ASK or ASVK, and ARK, each DER or PEM",
        E::Missing(_) | E::Twice(_) | E::Intermediate { .. } => {
            "a set is one leaf (VCEK or VLEK), its intermediate (ASK or ASVK) and the root (ARK)"
        }
        E::Product { .. } | E::Chip { .. } | E::Tcb { .. } => {
            "`coffer host certificates show` names the addresses where AMD has this chip's at its reported TCB"
        }
        E::Root(_) => "take the chain from AMD's key distribution service",
    })
}
