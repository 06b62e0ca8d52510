//! `coffer verify --decision-log FILE`: one line of JSON for each decision, in the shape of OPA's events.
//!
//! Never: leaves out a decision that was made because it could not be written; the command fails in its place.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::SystemTime;

use coffer_policies::decision_log::{Decided, MASKS, Mask, event};
use coffer_rim::file;
use coffer_verifier::{Appraisal, UnixTime, Verdict};
use serde_json::Value;

use crate::error::{Class, Classify as _, CliError};

/// Where decisions are written, and what of them is not.
#[derive(Clone, Debug, clap::Args)]
pub struct DecisionLog {
    /// Append the decision to this file, as one line of JSON, with what policies saw: `coffer policy try` reads it.
    #[arg(long, value_name = "FILE")]
    decision_log: Option<PathBuf>,

    /// With --decision-log: leave this out of the line, such as /input/result/claims/report/chip_id. Repeatable.
    #[arg(long, value_name = "PATH", requires = "decision_log", value_parser = Mask::parse)]
    mask: Vec<Mask>,
}

impl DecisionLog {
    /// Refuses masks that leave nothing out, before anything is decided.
    ///
    /// # Errors
    /// Class `usage`.
    pub fn check(&self) -> Result<(), CliError> {
        if self.mask.len() > MASKS {
            return Err(CliError::new(Class::Usage, format!("more than {MASKS} --mask")));
        }
        if let Some(mask) = self.mask.iter().find(|mask| !mask.names_a_field()) {
            let message = format!("--mask {mask}: no decision has such a field, so that nothing would be left out");
            return Err(CliError::new(Class::Usage, message).hint(
                "`coffer policy show input` lists fields of the input; beside them there are /result/allow and /result/deny",
            ));
        }
        Ok(())
    }

    /// Writes a decision, where a log is wanted.
    pub fn write(
        &self,
        appraisal: &Appraisal,
        input: Option<&Value>,
        policies: &[(String, String)],
    ) -> Result<(), CliError> {
        let Some(path) = &self.decision_log else { return Ok(()) };
        let now: UnixTime = SystemTime::now().into();
        let reasons: Vec<String> = appraisal.reasons().iter().map(ToString::to_string).collect();
        let decided = Decided {
            id: &id()?,
            timestamp: &now.to_string(),
            labels: &[("program", "coffer"), ("version", env!("CARGO_PKG_VERSION"))],
            path: "coffer/verify",
            policies,
            input,
            allow: appraisal.verdict() == Verdict::Accepted,
            reasons: &reasons,
        };
        let line = format!("{}\n", event(&decided, &self.mask));
        let written = file::append(path).and_then(|mut file| file.write_all(line.as_bytes()));
        written.class_while(Class::Config, format!("writing the decision to {}", path.display()))
    }
}

/// A random UUID (RFC 9562 §5.4).
fn id() -> Result<String, CliError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)
        .map_err(|error| CliError::new(Class::Internal, format!("no randomness from the system: {error}")))?;
    random[6] = random[6] & 0x0f | 0x40;
    random[8] = random[8] & 0x3f | 0x80;
    let text = hex::encode(random);
    Ok([&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-"))
}
