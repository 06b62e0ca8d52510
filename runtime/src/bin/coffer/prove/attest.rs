//! `coffer attest`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coffer_rim::file::Writer;
use coffer_runtime::engine::{Attestation, Hint};
use coffer_runtime::owner_access::Findings;
use coffer_runtime::{BoxRecord, kds};
use coffer_spec::Tee;
use coffer_verifier::{Appraisal, Verdict, VerifiedReport};

use crate::context::Context;
use crate::error::{self, Class, Classify as _, CliError};
use crate::evidence::verify::exit_code;
use crate::prove::guest::Trust;
use crate::words;

/// Have the guest of a box prove what it is, on a connection of its own.
#[derive(Debug, clap::Args)]
#[command(after_help = "The guest must be what this machine's platform files and the box's spec measure to.

Examples:
  coffer attest web --explain
  coffer attest web --platform /srv/coffer/platform-1.2 --policy fleet.toml --json")]
pub struct Args {
    /// Print every check with what was found and what was expected.
    #[arg(long)]
    explain: bool,
    /// Write the evidence: FILE (a CMW record) and FILE.report (the report).
    #[arg(long, value_name = "FILE")]
    evidence_out: Option<PathBuf>,
    #[command(flatten)]
    trust: Trust,
    /// Name or id.
    #[arg(value_name = "BOX")]
    name: String,
}

/// Exit 0 accepted, 5 not authentic, 6 refused, 7 unreachable.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    let trust = args.trust.read()?;
    let attestation = context.runtime()?.block_on(engine.attest(&args.name, &trust)).map_err(error::of)?;
    let Attestation { record, findings, error } = attestation;
    let error = error.map(error::of);
    let Some(findings) = findings else {
        let error =
            error.unwrap_or_else(|| CliError::new(Class::Internal, "the guest was neither accepted nor refused"));
        return Err(error);
    };
    if let Some(path) = &args.evidence_out {
        write_evidence(path, &findings)?;
    }
    let verdict = findings.appraisal.verdict();
    if context.json {
        let simulated = record.options.tee == Tee::Simulated;
        println!("{}", kds::appraisal_json(&findings.appraisal, simulated));
    } else {
        print(args, &record, &findings.appraisal);
    }
    match (verdict, error) {
        (Verdict::Accepted, Some(error)) => Err(error),
        _ => Ok(ExitCode::from(exit_code(verdict))),
    }
}

fn print(args: &Args, record: &BoxRecord, appraisal: &Appraisal) {
    if args.explain {
        for check in appraisal.checks() {
            println!("{check}");
        }
    }
    match appraisal.verdict() {
        Verdict::Accepted => {
            let simulated = if appraisal.verified().is_none_or(VerifiedReport::simulated) {
                "; SIMULATED: it rests on this installation's own root, not on AMD's"
            } else {
                ""
            };
            println!("accepted: {} runs what it should{simulated}", record.name);
        }
        Verdict::NotAuthentic => println!("not authentic: {}", appraisal.why()),
        Verdict::Refused => println!("refused: {}", appraisal.why()),
    }
    if appraisal.verdict() == Verdict::Accepted {
        return;
    }
    if record.options.tee == Tee::Simulated && !args.trust.allow_simulated {
        println!("hint: {}", words::of(&Hint::BelieveSimulator));
        return;
    }
    for reason in appraisal.reasons() {
        println!("hint: {}", reason.hint);
    }
    // AMD has nothing about a simulated box.
    if record.options.tee != Tee::Simulated {
        for request in appraisal.missing() {
            for url in kds::urls(request) {
                println!("hint: fetch {url}");
            }
        }
    }
}

fn write_evidence(path: &Path, findings: &Findings) -> Result<(), CliError> {
    let record = findings.evidence.to_cmw();
    let mut report = path.as_os_str().to_owned();
    report.push(".report");
    let writer = Writer::private().into_pipes().mode(0o644);
    let put = |path: &Path, bytes: &[u8]| {
        writer.write(path, bytes).class_while(Class::Config, format!("cannot write {}", path.display()))
    };
    // The record last: it is whole without the report, which stands in it too.
    put(Path::new(&report), &findings.evidence.report)?;
    put(path, &record)
}
