//! `coffer policy input`: what a policy would see of evidence, as JSON for `opa eval --input`.

use std::process::ExitCode;

use coffer_verifier::ExpectedGuest;

use crate::context::Context;
use crate::error::CliError;
use crate::evidence::judging::{self, Judgement, Judging};
use crate::evidence::shown::{self, About};

/// Print what a policy sees of evidence in a file.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What the typed policy refuses has an input, too: its status says so. Exit status: 0 printed, 2, 3 and 5 as of `coffer verify`.

Examples:
  coffer policy input report.bin --certs certs > input.json
  opa eval --input input.json --data team.rego data.team.allow")]
pub struct Args {
    #[command(flatten)]
    judging: Judging,
}

/// Judges, and prints.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let args = &args.judging;
    args.contradiction()?;
    let policy = judging::policy(&args.policy, &args.bundles)?;
    let Judgement { appraisal, input, .. } =
        judging::judge(args, &judging::read(&args.file)?, ExpectedGuest::WhateverThePolicyAdmits, &policy, context)?;
    if let Some(input) = input {
        println!("{input}");
        return Ok(ExitCode::SUCCESS);
    }
    if context.json {
        println!("{}", coffer_kds::appraisal_json(&appraisal, false));
    } else {
        let simulated = judging::is_of_this_simulator(&appraisal, context);
        let missing = args.where_missing(&appraisal, simulated);
        let about =
            About { subject: "", explain: false, simulated, untrusted_root: Some(args.untrusted_root()), missing };
        shown::print(&appraisal, about);
    }
    Ok(ExitCode::from(judging::exit_code(appraisal.verdict())))
}
