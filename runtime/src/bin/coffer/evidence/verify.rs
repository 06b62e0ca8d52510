//! `coffer verify`: decides about evidence in a file, offline, or about what a TLS server shows; with `--fetch`, what is missing is asked
//! for first.
//!
//! Exit 0 accepted, 2 usage, 3 a file that cannot be read or is of none of the forms, 5 not authentic (a report whose bytes
//! break the form is not, nor a server that presents no evidence), 6 refused by policy, 7 nobody answers.

use std::process::ExitCode;

use coffer_verifier::Verdict;
use coffer_verifier::abi::ReportData;

use crate::context::Context;
use crate::error::CliError;
use crate::evidence::decisions::DecisionLog;
use crate::evidence::endpoint::{self, Server};
use crate::evidence::fetching;
use crate::evidence::judging::{self, Judgement, Judging, Named, exit_code};
use crate::evidence::shown::{self, About};

/// Decide about evidence in a file, offline unless --fetch is given, or about that of a TLS server: https://HOST:PORT in place of FILE.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A server is challenged where it speaks RA-TLS, as a port of `coffer run -p HOST-PORT:PORT/ra-tls` does; else the evidence in its \
certificate is judged, if that is bound to the certificate's key, and what this does not show is said.
Exit status: 0 accepted, 2 usage, 3 a file that cannot be read or is none of the forms, 5 not authentic, or a server that \
presents no evidence, 6 refused by policy, 7 nobody answers.

Examples:
  coffer verify report.bin --certs certs
  coffer verify report.bin --fetch
  coffer verify report.bin --certs certs --at 2026-09-20T00:00:00Z --explain
  coffer verify evidence.cmw --policy fleet.toml --json
  coffer verify evidence.cmw --reference web.json \
      --nonce 5f0c1d9e27aa4b38
  coffer verify evidence.cmw --workload-data @request.bin
  coffer verify evidence.cmw --policy strict --policy team.rego
  coffer verify https://guest.example:8443 --guest-port 8080 \\
      --reference web.json --fresh")]
pub struct Args {
    #[command(flatten)]
    judging: Judging,

    #[command(flatten)]
    server: Server,

    /// Print every check with what was found and what was expected.
    #[arg(long)]
    explain: bool,

    #[command(flatten)]
    log: DecisionLog,
}

/// Decides.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    args.judging.contradiction()?;
    args.log.check()?;
    let policy = judging::policy(&args.judging.policy, &args.judging.bundles)?;
    let looked = match args.server.address(&args.judging)? {
        Some(address) => Some(args.server.look(&address, policy.rules.max_manifest_age, context)?),
        None => None,
    };
    let (mut demanded, judging) = (None, &args.judging);
    let judged = if let Some(looked) = &looked {
        looked.judge(judging, &policy, context)?
    } else {
        let bytes = judging::read(&judging.file)?;
        let guest = args.server.guest(policy.rules.max_manifest_age, judging.now())?;
        demanded =
            judging.demanded(&judging::presented(&judging.file, &bytes)?)?.filter(|_| judging.computes_report_data());
        judging::judge(judging, &bytes, guest, &policy, context)?
    };
    print(args, (looked.as_ref(), demanded), &judged, &policy, context)?;
    Ok(ExitCode::from(exit_code(judged.appraisal.verdict())))
}

fn print(
    args: &Args,
    (looked, demanded): (Option<&endpoint::Looked>, Option<ReportData>),
    judged: &Judgement,
    policy: &Named,
    context: &Context,
) -> Result<(), CliError> {
    let Judgement { appraisal, input, not_fetched, not_asked } = judged;
    args.log.write(appraisal, input.as_ref(), &policy.texts)?;
    let (explain, args) = (args.explain, &args.judging);
    let simulated = judging::is_of_this_simulator(appraisal, context);
    if context.json {
        let mut value = coffer_kds::appraisal_json(appraisal, simulated);
        if args.fetch {
            value["not_fetched"] = fetching::json(not_fetched, &args.asked());
        }
        if !not_asked.is_empty() {
            value["not_asked"] = serde_json::json!(not_asked);
        }
        if let Some(looked) = looked {
            value["server"] = looked.json();
        }
        if let Some(nonce) = args.nonce.as_ref().filter(|_| appraisal.verdict() == Verdict::Accepted) {
            value["nonce"] = hex::encode(nonce.as_bytes()).into();
        }
        if let Some(demanded) = demanded {
            value["report_data"] = demanded.to_string().into();
        }
        println!("{value}");
        return Ok(());
    }
    let subject = looked.map(endpoint::Looked::subject).unwrap_or_default();
    let about = About {
        subject: &subject,
        explain,
        simulated,
        untrusted_root: Some(args.untrusted_root()),
        missing: args.where_missing(appraisal, simulated),
    };
    shown::print(appraisal, about);
    if let Some(nonce) = args.nonce.as_ref().filter(|_| appraisal.verdict() == Verdict::Accepted) {
        println!(
            "  nonce        {}: the evidence was made over it, so after it was chosen",
            hex::encode(nonce.as_bytes())
        );
    }
    if args.workload_data.is_some() && appraisal.verdict() == Verdict::Accepted {
        println!("  data         the workload that this evidence names had it made over the data given");
    }
    if let Some(looked) = looked {
        looked.print();
    }
    fetching::print(not_fetched, &args.asked());
    Ok(())
}
