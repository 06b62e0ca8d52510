//! Which guests another one is believed to be: those of the spec, and no other.
//!
//! Trusts: AMD's roots and the simulators that the spec lists, the spec's list of guests. Believes nothing of a guest's own.
//! Never: admits one that can be debugged or migrated, that no list names, or whose platform is behind what AMD's bulletins ask for (the
//! floor `strict`; Milan on hardware by a word of the spec alone); decides by the host's clock alone that something is new: a
//! revocation list is as fresh as the broker's clock says, or, in a guest without a broker, the host's.

use std::{sync::Arc, time::Duration};

use coffer_ratls::{Appraiser, Attested, ConnectionState, Reception, Refusal};
use coffer_rim::foreign::foreign_at_most;
use coffer_spec::{Guests, Tee, WorkloadSpec};
use coffer_verifier::{
    Accept, AttestationResult, CrlPolicy, Endorsements, EvidencePolicy, Expected, ExpectedGuest, ExpectedReportData,
    Reason, Verdict, Verifier, abi::ReportData, evidence::Evidence,
};

use crate::{clock::Clock, notices::Notices};

/// Judges guests of one list.
pub struct Judge {
    verifier: Verifier,
    guests: ExpectedGuest,
    clock: Clock,
}

impl Judge {
    /// For these guests, in the guest of this spec.
    pub fn new(guests: &Guests, spec: &WorkloadSpec) -> Self {
        let mut policy = EvidencePolicy::strict();
        // No simulated processor is worth more than another one.
        if guests.milan_chip_keys_can_be_extracted || spec.tee == Tee::Simulated {
            policy.products = Accept::Any;
        }
        Self {
            verifier: Verifier { anchors: guests.anchors(), crl: CrlPolicy::Required, policy },
            guests: guests.expected(),
            clock: Clock::of(spec),
        }
    }
}

impl Appraiser for Judge {
    type Admitted = AttestationResult;

    fn appraise(&self, evidence: &Evidence, expected: &ReportData) -> Result<AttestationResult, Refusal> {
        let expected = Expected { report_data: ExpectedReportData::Exactly(*expected), guest: self.guests.clone() };
        let unknown = || Refusal::new("clock-unknown", "the key broker has not said yet what time it is".to_owned());
        let now = self.clock.now().ok_or_else(unknown)?;
        let appraisal = self.verifier.judge(evidence, &Endorsements::new(), &expected, now);
        appraisal.into_result().map_err(|refused| refusal(refused.verdict(), refused.reasons()))
    }
}

/// The first reason, with what helps; the others are counted. The code stands before it.
fn refusal(verdict: Verdict, reasons: &[Reason]) -> Refusal {
    let Some(first) = reasons.first() else { return Refusal::new(verdict.as_str(), "no reason".into()) };
    let [found, expected] = [&first.found, &first.expected].map(|text| foreign_at_most(text, SHOWN));
    let others = match reasons.len() {
        1 => String::new(),
        count => format!(", and {} more reasons", count - 1),
    };
    Refusal::new(first.code.as_str(), format!("found {found}, expected {expected} ({}){others}", first.hint))
}

/// Characters of what was found or expected: a measurement and a workload fit, where guests differ in the one or the other.
const SHOWN: usize = 220;

/// Takes clients whose evidence was judged.
pub struct Gate {
    notices: Arc<Notices>,
}

impl Gate {
    /// Says in these whom it does not take.
    pub fn new(notices: Notices) -> Self {
        Self { notices: Arc::new(notices) }
    }
}

/// How long a client that was refused has to hear so.
const PARTING: Duration = Duration::from_secs(5);

impl Reception<AttestationResult> for Gate {
    fn attested(&self, connection: &Arc<ConnectionState>, _: &Arc<Attested<AttestationResult>>) {
        connection.welcome();
    }

    /// Its streams end with its connection, too.
    fn refused(&self, connection: &ConnectionState, refusal: &Refusal, id: &str) {
        connection.recall(PARTING);
        let (notices, said) = (self.notices.clone(), format!("a client was refused ({id}): {refusal}"));
        tokio::spawn(async move { notices.say(&said).await });
    }
}

#[cfg(test)]
mod tests {
    use coffer_verifier::Code;

    use super::*;

    #[test]
    fn a_refusal_says_its_code_once_and_what_helps_however_long_the_list_is() {
        let long = vec!["ab".repeat(48); 64].join(" or ");
        let first = Reason::new(Code::Debug, "debug", long, "launch it without the debug bit");
        let said = refusal(Verdict::Refused, &[first.clone(), first]).to_string();
        assert_eq!(said.matches("debug:").count(), 1, "{said}");
        assert!(said.contains("launch it without the debug bit") && said.contains("1 more"), "{said}");
        assert!(said.len() < crate::notices::LONGEST, "{said}");
    }
}
