//! `coffer attest`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coffer_rim::file::Writer;
use coffer_runtime::engine::{Attestation, Guest, Hint};
use coffer_runtime::owner_access::Findings;
use coffer_verifier::abi::WorkloadDigest;
use coffer_verifier::binding::nonce_report_data;
use coffer_verifier::ear::Nonce;
use coffer_verifier::{Appraisal, Verdict, VerifiedReport};

use crate::context::Context;
use crate::error::{self, Class, Classify as _, CliError};
use crate::evidence::judging::{exit_code, nonce};
use crate::evidence::shown::{self, About};
use crate::prove::evidence_files::EvidenceFiles;
use crate::prove::guest::Trust;
use crate::words;

/// Have the guest of a box prove what it is, on a connection of its own.
#[derive(Debug, clap::Args)]
#[command(after_help = "The guest must be what this machine's platform files and the box's spec measure to.
Exit status: 0 accepted, 5 not authentic, 6 refused, 7 not reached; 1 no such box, 3 one that does not run.

Examples:
  coffer attest web --explain
  coffer attest web --nonce 5f0c1d9e27aa4b38 --cmw web.cmw
  coffer attest web --platform /srv/coffer/platform-1.2 \\
      --policy fleet.toml --json")]
pub struct Args {
    /// Print every check with what was found and what was expected.
    #[arg(long)]
    explain: bool,
    /// Write the evidence: FILE (a CMW record) and FILE.report (the report).
    #[arg(long, value_name = "FILE")]
    evidence_out: Option<PathBuf>,
    /// Have it prove itself once more over these 8 to 64 bytes, which whoever is to believe the evidence chose: it was made since. An
    /// owner's; its REPORT_DATA is in docs/ra-tls.md.
    #[arg(long, value_name = "HEX", value_parser = nonce)]
    nonce: Option<Nonce>,
    #[command(flatten)]
    files: EvidenceFiles,
    #[command(flatten)]
    trust: Trust,
    /// Name or id; or coffer://HOST:PORT of a guest elsewhere, with --reference.
    #[arg(value_name = "BOX")]
    name: String,
}

/// Exit 0 accepted, 5 not authentic, 6 refused, 7 unreachable.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    let bytes_alone = args.files.check(&[("--json", context.json), ("--explain", args.explain)])?;
    let trust = args.trust.read()?;
    let attestation = context.runtime()?.block_on(async {
        match &args.nonce {
            Some(nonce) => engine.attest_nonce(&args.name, nonce, &trust).await,
            None => engine.attest(&args.name, &trust).await,
        }
    });
    let attestation = attestation.map_err(error::of)?;
    let Attestation { guest, findings, error } = attestation;
    let error = error.map(error::of);
    let Some(findings) = findings else {
        let error =
            error.unwrap_or_else(|| CliError::new(Class::Internal, "the guest was neither accepted nor refused"));
        return Err(error);
    };
    if let Some(path) = &args.evidence_out {
        write_evidence(path, &findings)?;
    }
    args.files.write(&findings.evidence)?;
    let verdict = findings.appraisal.verdict();
    let simulated = match &guest {
        Guest::Here(_) => guest.is_simulated(),
        Guest::Elsewhere(_) => verdict == Verdict::Accepted && is_simulated(&findings.appraisal),
    };
    if bytes_alone {
        return error.map_or(Ok(ExitCode::SUCCESS), Err);
    }
    // Accepted, and yet something went wrong behind it: the connection, say.
    let failed = error.filter(|_| verdict == Verdict::Accepted);
    if context.json {
        let mut value = coffer_kds::appraisal_json(&findings.appraisal, simulated);
        if let Some(nonce) = args.nonce.as_ref().filter(|_| verdict == Verdict::Accepted) {
            value["nonce"] = hex::encode(nonce.as_bytes()).into();
            let workload = WorkloadDigest::of(&findings.evidence.workload_spec);
            value["report_data"] = nonce_report_data(&workload, nonce.as_bytes()).to_string().into();
        }
        if let Some(failure) = &failed {
            value["error"] = failure.json()["error"].take();
        }
        println!("{value}");
        return Ok(failed.map_or(ExitCode::from(exit_code(verdict)), |failure| context.exit(&failure)));
    }
    let subject = match verdict {
        Verdict::Accepted if is_simulated(&findings.appraisal) => {
            let whose = if args.trust.anchor.is_empty() { "this installation's own" } else { "a simulator's" };
            format!("{} runs what it should; SIMULATED: it rests on {whose} root, not on AMD's", guest.name())
        }
        Verdict::Accepted => format!("{} runs what it should", guest.name()),
        Verdict::NotAuthentic | Verdict::Refused => String::new(),
    };
    let believe = words::of(&Hint::BelieveSimulator);
    let about = About {
        subject: &subject,
        explain: args.explain,
        simulated,
        untrusted_root: (simulated && !args.trust.allow_simulated).then_some(believe.as_str()),
        missing: (!simulated && !findings.appraisal.missing().is_empty()).then_some(MISSING),
    };
    shown::print(&findings.appraisal, about);
    failed.map_or_else(|| Ok(ExitCode::from(exit_code(verdict))), Err)
}

const MISSING: &str = "guests are handed what their host keeps: `coffer host certificates import` there; or write the evidence with --cmw \
    FILE, and judge it with `coffer verify FILE --fetch`";

fn is_simulated(appraisal: &Appraisal) -> bool {
    appraisal.verified().is_none_or(VerifiedReport::simulated)
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
