//! `coffer sim check`: the whole attack kit against anybody's verifier.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use coffer_rim::file::Writer;
use coffer_runtime::sim_check::{
    Case, Outcome, Prepared, Report, Target, Verdict, Verifier, adopt_orphans, cases, quote,
};
use coffer_simulator::Installation;
use coffer_simulator::attack::Scene;
use coffer_verifier::abi::ProductLine;

use super::{evidence, now, open_all};
use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::passing;

/// Check a verifier.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
--cmd runs once per case, through sh, with these variables:
  COFFER_EVIDENCE     evidence record (CMW)
  COFFER_DIR          its folder: report.bin, *.der, *.pem, cert_table.bin too
  COFFER_POLICY       policy (TOML) that accepts the good guest alone; its
                      values stand in expect.json
  COFFER_ANCHOR       SHA-256 of the simulator root's public key
  COFFER_REPORT_DATA  what the verifier asked for
Exit status 0 means accepted; 5 not authentic and 6 refused are told apart, anything else counts as not accepted. A command \
that dies by a signal or does not end in time is wrong, whatever it was asked; what it started is killed with it.

--url gets one POST of the record per case (http only), REPORT_DATA in the header coffer-report-data; 2xx means accepted.
Configure the verifier with the anchor and the policy that `coffer sim evidence --out DIR` writes.

Exit status 6 means that an answer was wrong, or that the verifier answers good and bad evidence alike, which proves nothing.

Examples:
  coffer sim check --product milan --strict --junit check.xml \\
      --cmd 'coffer verify \"$COFFER_EVIDENCE\" --allow-simulated \\
      --anchor $COFFER_ANCHOR --policy \"$COFFER_POLICY\" \\
      --report-data $COFFER_REPORT_DATA'
  coffer sim check --attack debug --url http://127.0.0.1:8080/verify")]
pub struct Args {
    /// Command to run for each case.
    #[arg(long, value_name = "CMD", conflicts_with = "url")]
    cmd: Option<String>,

    /// Endpoint to send each case to.
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// Product line: milan, genoa, turin, or all.
    #[arg(long, default_value = "all", value_name = "NAME")]
    product: Products,

    /// Count an attack refused under the wrong class as a failure too (--cmd only).
    #[arg(long, requires = "cmd")]
    strict: bool,

    /// Only this attack, and good evidence.
    #[arg(long, value_name = "NAME")]
    attack: Option<String>,

    /// Seconds one answer may take.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,

    /// Also write the report as JUnit XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// One product line or all of them.
#[derive(Clone, Debug)]
struct Products(Vec<ProductLine>);

impl std::str::FromStr for Products {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self(ProductLine::ALL.to_vec()));
        }
        text.parse().map(|product| Self(vec![product])).map_err(|_| "expected milan, genoa, turin or all".to_owned())
    }
}

/// Checks.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let products = &args.product.0;
    let cases = cases(products, args.attack.as_deref())
        .map_err(|error| CliError::caused(Class::Usage, &error).hint("coffer sim attacks lists them"))?;
    let target = match (&args.cmd, &args.url) {
        (Some(command), _) => Target::Command(command.clone()),
        (None, Some(url)) => Target::Url(url.clone()),
        (None, None) => {
            return Err(CliError::new(Class::Usage, "no verifier is named: one of --cmd CMD and --url URL is needed")
                .hint("coffer sim check --help has an example of each"));
        }
    };
    if matches!(target, Target::Command(_)) {
        // This process starts nothing but the cases.
        adopt_orphans()?;
    }
    let verifier = Verifier { target, timeout: Duration::from_secs(args.timeout) };
    let installation = open_all(products, false, context)?;
    let scenes: BTreeMap<_, _> = products.iter().map(|product| (product.name(), Scene::new(*product, now()))).collect();
    let scratch = tempfile::tempdir().and_then(passing::with_us).class(Class::Config)?;
    let coffer = ourselves(context)?;
    let mut report = Report { outcomes: Vec::with_capacity(cases.len()), strict: args.strict };
    for case in cases {
        let out = scratch.path().join(case.product.name()).join(case.name());
        let prepared = prepare(&installation, &scenes[case.product.name()], case, out)?;
        let asked = verifier.ask(&prepared)?;
        let again = verifier.again(&coffer, case, &prepared);
        report.outcomes.push(Outcome { case, asked, again });
    }
    if let Some(file) = &args.junit {
        let written = Writer::private().into_pipes().mode(0o644).write(file, report.junit().as_bytes());
        written.class_while(Class::Config, format!("writing {}", file.display()))?;
    }
    if context.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.text());
    }
    let right = report.verdict() == Verdict::Right;
    Ok(if right { ExitCode::SUCCESS } else { ExitCode::from(Class::Refused.code()) })
}

/// Makes the evidence of a case and writes it into `out`.
fn prepare(installation: &Installation, scene: &Scene, case: Case, out: PathBuf) -> Result<Prepared, CliError> {
    let set = evidence::make(installation, scene, case.attack.map(|attack| attack.name))?;
    evidence::write(&out, installation, scene, &set, case.attack.map(|attack| attack.expect))?;
    let anchor = installation.anchor(case.product).map(|anchor| anchor.spki.to_string()).unwrap_or_default();
    let report_data = scene.report_data.to_string();
    Ok(Prepared { folder: out, record: set.evidence().to_cmw(), anchor, report_data })
}

/// This program with this home, for a line that runs again what failed.
fn ourselves(context: &Context) -> Result<String, CliError> {
    let program = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    // A bare name is found again on the same path; any other is only right from here.
    let program = if program.components().count() > 1 { std::env::current_exe()? } else { program };
    let home = std::path::absolute(&context.home)?;
    Ok(format!("{} --home {}", quote(&program.to_string_lossy()), quote(&home.to_string_lossy())))
}
