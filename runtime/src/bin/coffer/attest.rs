//! `coffer attest`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use coffer_ratls::Identity;
use coffer_runtime::owner_access::{self, Findings, OwnerError, Verdict};
use coffer_runtime::supervisor::of_state;
use coffer_runtime::{BoxRecord, Home};
use coffer_verifier::abi::WorkloadDigest;
use serde_json::json;

use crate::cli::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::guest::{self, Trust};

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
    let (home, state) = context.open_state()?;
    let record = state.find(&args.name).map_err(of_state)?;
    let (findings, error) = context.runtime()?.block_on(prove(args, context, &home, &record))?;
    let Some(findings) = findings else {
        let error =
            error.unwrap_or_else(|| CliError::new(Class::Internal, "the guest was neither accepted nor refused"));
        return Err(error);
    };
    if let Some(path) = &args.evidence_out {
        write_evidence(path, &findings)?;
    }
    if context.json {
        println!("{}", as_json(&findings));
    } else {
        print(args, &record, &findings);
    }
    Ok(match (findings.verdict, error) {
        (Verdict::Accepted, None) => ExitCode::SUCCESS,
        (Verdict::NotAuthentic, _) => ExitCode::from(Class::NotAuthentic.code()),
        (Verdict::Refused, _) => ExitCode::from(Class::Refused.code()),
        (Verdict::Accepted, Some(error)) => return Err(error),
    })
}

/// Anybody may ask for evidence: without an owner's key, an identity of the moment does.
async fn prove(
    args: &Args,
    context: &Context,
    home: &Home,
    record: &BoxRecord,
) -> Result<(Option<Findings>, Option<CliError>), CliError> {
    guest::must_run(record)?;
    let identity = match owner_access::load(&home.owner()) {
        Ok(identity) => identity,
        Err(_) => Identity::generate("coffer attest").class(Class::Internal)?,
    };
    let appraiser = Arc::new(guest::appraiser(context, home, record, &args.trust)?);
    let connected: Result<_, OwnerError> =
        owner_access::connect(&home.box_folder(&record.id), &identity, Arc::clone(&appraiser)).await;
    let findings = appraiser.findings();
    let error = connected.err().map(|error| guest::explain(&error, findings.as_ref(), record, &args.trust));
    Ok((findings, error))
}

fn print(args: &Args, record: &BoxRecord, findings: &Findings) {
    if args.explain {
        for check in &findings.checks {
            let mark = if check.ok { "ok  " } else { "FAIL" };
            println!("{mark} {:<24} {} (expected {})", check.code, check.found, check.expected);
        }
    }
    match findings.verdict {
        Verdict::Accepted => {
            let simulated = if findings.claims.as_ref().is_none_or(|claims| claims.simulated) {
                "; SIMULATED: it rests on this installation's own root, not on AMD's"
            } else {
                ""
            };
            println!("accepted: {} runs what it should{simulated}", record.name);
        }
        Verdict::NotAuthentic => println!("not authentic: {}", reasons(findings)),
        Verdict::Refused => println!("refused: {}", reasons(findings)),
    }
    if findings.verdict != Verdict::Accepted {
        let simulated = guest::simulated_hint(record, &args.trust);
        let hints = findings.reasons.iter().map(|reason| reason.hint.as_ref());
        for hint in simulated.map_or_else(|| hints.collect(), |hint| vec![hint]) {
            println!("hint: {hint}");
        }
    }
}

fn reasons(findings: &Findings) -> String {
    findings.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn as_json(findings: &Findings) -> serde_json::Value {
    let verdict = match findings.verdict {
        Verdict::Accepted => "accepted",
        Verdict::NotAuthentic => "not-authentic",
        Verdict::Refused => "refused",
    };
    let reasons: Vec<_> = findings
        .reasons
        .iter()
        .map(|reason| {
            json!({ "code": reason.code, "found": reason.found, "expected": reason.expected, "hint": reason.hint })
        })
        .collect();
    let claims = findings.claims.as_ref();
    json!({
        "verdict": verdict, "simulated": claims.map(|claims| claims.simulated),
        "anchor": claims.map(|claims| claims.anchor), "claims": claims, "reasons": reasons, "checks": findings.checks,
        "workload_digest": WorkloadDigest::of(&findings.evidence.workload_spec),
    })
}

fn write_evidence(path: &std::path::Path, findings: &Findings) -> Result<(), CliError> {
    let record = findings.evidence.to_cmw();
    let mut report = path.as_os_str().to_owned();
    report.push(".report");
    std::fs::write(path, record).class_while(Class::Config, format!("cannot write {}", path.display()))?;
    std::fs::write(&report, &findings.evidence.report)
        .class_while(Class::Config, format!("cannot write {}", report.display()))
}
