//! An appraisal as people read it, of `coffer verify` and of `coffer attest` alike: the verdict, what is authentic, the checks
//! if they are asked for, each reason with what helps.

use coffer_kds::urls;
use coffer_verifier::{Appraisal, Code, CrlStatus, ReportBinding, Verdict};

/// What the command knows beside the appraisal.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// What the verdict is about, behind its word.
    pub subject: &'a str,
    /// Print every check.
    pub explain: bool,
    /// The evidence is a simulator's: AMD has nothing for it.
    pub simulated: bool,
    /// What helps against a root that is not listed, in place of the verifier's own hint, which knows no command.
    pub untrusted_root: Option<&'a str>,
    /// What helps where something is missing, or over.
    pub missing: Option<&'a str>,
}

/// Prints it.
pub fn print(appraisal: &Appraisal, about: About<'_>) {
    let between = if about.subject.is_empty() { "" } else { ": " };
    let simulated = appraisal.verified().is_some_and(|verified| verified.anchor().simulated);
    let told = about.subject.contains("SIMULATED");
    let mark = if simulated && !told && appraisal.verdict() == Verdict::Accepted { "; SIMULATED" } else { "" };
    println!("{}{mark}{between}{}", appraisal.verdict(), about.subject);
    print_facts(appraisal);
    if about.explain {
        println!("checks:");
        for check in appraisal.checks() {
            println!("  {check}");
        }
    }
    for reason in appraisal.reasons() {
        println!("{reason}");
        let own = if reason.code == Code::UntrustedRoot { about.untrusted_root } else { None };
        println!("  hint: {}", own.unwrap_or(&reason.hint));
    }
    if let Some(hint) = about.missing {
        println!("  hint: {hint}");
    }
    for request in appraisal.missing().iter().filter(|_| !about.simulated) {
        let urls = urls(request);
        if !urls.is_empty() {
            println!("  fetch {}: {}", request.kind.name(), urls.join(" or "));
        }
    }
}

fn print_facts(appraisal: &Appraisal) {
    let Some(verified) = appraisal.verified() else { return };
    let report = verified.report();
    println!("  anchor       {}", verified.anchor());
    println!("  measurement  {}", report.measurement());
    println!("  host data    {}", report.host_data());
    println!("  report data  {}", report.report_data());
    println!("  chip         {}", report.chip_id());
    println!("  TCB          {}", verified.tcbs().reported);
    match verified.binding() {
        ReportBinding::Demanded => {}
        ReportBinding::Attachment => {
            println!(
                "  not shown    freshness: REPORT_DATA covers the blob's own runtime data, not when or for whom it was made"
            );
        }
        ReportBinding::Waived => {
            println!("  waived       REPORT_DATA: this report may have been made for anybody, at any time");
        }
    }
    if verified.crl() == CrlStatus::Waived {
        println!("  waived       revocation");
    }
}
