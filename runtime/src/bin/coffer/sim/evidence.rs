//! `coffer sim evidence`: evidence as files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coffer_rim::file::Writer;
use coffer_simulator::attack::{AttackError, EvidenceSet, Expect, Scene, find, forge, genuine};
use coffer_simulator::{Installation, pem};
use coffer_verifier::UnixTime;
use coffer_verifier::abi::{ProductLine, ReportData};
use serde_json::json;

use super::{expected, now, open_all};
use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};

/// Write evidence.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer sim evidence --out evidence
  coffer sim evidence --product genoa --attack tcb-old --out attack")]
pub struct Args {
    /// Product line: milan, genoa or turin.
    #[arg(long, default_value = "milan", value_name = "NAME")]
    product: ProductLine,

    /// Report version [default: the product's newest].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=5))]
    report_version: Option<u32>,

    /// REPORT_DATA, 64 bytes in hexadecimal.
    #[arg(long, value_name = "HEX")]
    report_data: Option<ReportData>,

    /// Sign with a VLEK instead of the VCEK.
    #[arg(long, conflicts_with = "attack")]
    vlek: bool,

    /// One thing wrong; `coffer sim attacks` lists the names.
    #[arg(long, value_name = "NAME")]
    attack: Option<String>,

    /// Issue everything for this time (RFC 3339) instead of now.
    #[arg(long, value_name = "RFC3339", value_parser = UnixTime::parse)]
    at: Option<UnixTime>,

    /// Folder to write to; made if missing.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Writes it.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let product = args.product;
    let version = args.report_version.unwrap_or(5);
    if product == ProductLine::Turin && version < 3 {
        return Err(CliError::new(Class::Usage, "Turin writes no report version below 3"));
    }
    if let Some(name) = &args.attack
        && find(name).is_none()
    {
        let failure = CliError::new(Class::Usage, format!("no attack is named {name:?}"));
        return Err(failure.hint("coffer sim attacks lists them"));
    }
    let installation = open_all(&[product], args.vlek, context)?;
    let at = args.at.map_or_else(now, |at| u64::try_from(at.0).unwrap_or(0));
    let mut scene = Scene::new(product, at);
    scene.options.report_version = version;
    if let Some(data) = args.report_data {
        scene.report_data = data;
    }
    if args.vlek {
        scene.options.vlek = Some("CN=cc-simulated.invalid".to_owned());
    }
    let set = make(&installation, &scene, args.attack.as_deref())?;
    let expect = args.attack.as_deref().and_then(find).map(|attack| attack.expect);
    write(&args.out, &installation, &scene, &set, expect)?;
    if context.json {
        println!("{}", facts(&installation, &scene, expect));
    } else {
        println!("wrote {}", args.out.display());
        println!("  a correct verifier answers: {}", answer(expect));
        if let Some(anchor) = installation.anchor(product) {
            let (folder, data) = (args.out.display(), scene.report_data);
            println!(
                "  coffer verify {folder}/evidence.cmw --allow-simulated --anchor {} --policy {folder}/policy.toml --report-data {data}",
                anchor.spki
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Good evidence, or that of an attack.
pub fn make(installation: &Installation, scene: &Scene, attack: Option<&str>) -> Result<EvidenceSet, CliError> {
    let made = match attack {
        None => genuine(installation, scene),
        Some(name) => forge(installation, scene, name),
    };
    made.map_err(|error| {
        let class = if matches!(error, AttackError::Unknown(_)) { Class::Usage } else { Class::Internal };
        CliError::caused(class, &error)
    })
}

/// Writes all files of one piece of evidence into `out`.
pub fn write(
    out: &Path,
    installation: &Installation,
    scene: &Scene,
    set: &EvidenceSet,
    expect: Option<Expect>,
) -> Result<(), CliError> {
    let what = || format!("writing to {}", out.display());
    std::fs::create_dir_all(out).class_while(Class::Config, what())?;
    let writer = Writer::private().mode(0o644).unsynced();
    let put = |name: &str, bytes: &[u8]| writer.write(&out.join(name), bytes).class_while(Class::Config, what());
    put("report.bin", &set.report)?;
    let (intermediate, leaf) = if set.is_vlek { ("asvk", "vlek") } else { ("ask", "vcek") };
    for (name, der) in [("ark", &set.ark), (intermediate, &set.intermediate), (leaf, &set.leaf)] {
        put(&format!("{name}.der"), der)?;
        put(&format!("{name}.pem"), pem("CERTIFICATE", der).as_bytes())?;
    }
    if let Some(crl) = &set.crl {
        put("crl.der", crl)?;
    }
    put("cert_table.bin", &set.cert_table)?;
    put("evidence.cmw", &set.evidence().to_cmw())?;
    put("policy.toml", scene.policy_toml(installation).as_bytes())?;
    put("expect.json", facts(installation, scene, expect).to_string().as_bytes())
}

fn facts(installation: &Installation, scene: &Scene, expect: Option<Expect>) -> serde_json::Value {
    json!({
        "product": scene.options.product,
        "anchor": installation.anchor(scene.options.product).map(|anchor| anchor.spki),
        "report_data": scene.report_data,
        "measurement": scene.measurement,
        "host_data": scene.host_data,
        "chip_id": installation.chip_id(scene.options.product),
        "answer": answer(expect),
    })
}

fn answer(expect: Option<Expect>) -> String {
    expect.map_or_else(|| "accepted".to_owned(), expected)
}
