//! The last decisions of this replica with their reasons, for people who ask why somebody was refused.
//!
//! In memory, bounded, gone with the process. Trusts: nobody; what a reason quotes of evidence is typed by the judge, and cut here.
//! Never: holds evidence, a token, a nonce or a key; is asked by anything that decides.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use coffer_rim::foreign::foreign_at_most;
use coffer_verifier::{UnixTime, Verdict, VerifiedReport};
use serde::Serialize;

use crate::appraiser::Answer;

/// Decisions that are held.
pub const DECISIONS: usize = 1000;
/// Reasons of one that are held, and characters of each.
const REASONS: usize = 8;
const CHARACTERS: usize = 240;

/// The last decisions, the oldest first.
#[derive(Default)]
pub struct Decisions(Mutex<Held>);

#[derive(Default)]
struct Held {
    made: u64,
    last: VecDeque<Arc<Decision>>,
}

#[derive(Serialize)]
struct Decision {
    number: u64,
    at: String,
    caller: String,
    policy: String,
    revision: String,
    verdict: Verdict,
    simulated: Option<bool>,
    token: bool,
    reasons: Vec<Why>,
    further_reasons: usize,
}

#[derive(Serialize)]
struct Why {
    code: &'static str,
    text: String,
}

impl Decisions {
    /// Takes down what was answered, in place of the oldest.
    pub fn keep(&self, answer: &Answer, caller: &str, now: UnixTime) {
        let Answer { policy, appraisal, token, .. } = answer;
        let all = appraisal.reasons();
        let why = |reason: &coffer_verifier::Reason| Why {
            code: reason.code.as_str(),
            text: foreign_at_most(&reason.to_string(), CHARACTERS),
        };
        let mut decision = Decision {
            number: 0,
            at: now.to_string(),
            caller: caller.to_owned(),
            policy: policy.name.to_string(),
            revision: policy.revision.to_string(),
            verdict: appraisal.verdict(),
            simulated: appraisal.verified().map(VerifiedReport::simulated),
            token: token.is_some(),
            reasons: all.iter().take(REASONS).map(why).collect(),
            further_reasons: all.len().saturating_sub(REASONS),
        };
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.made += 1;
        decision.number = held.made;
        if held.last.len() >= DECISIONS {
            held.last.pop_front();
        }
        held.last.push_back(Arc::new(decision));
    }

    /// All of them as a document, the newest first.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Document<'a> {
            made: u64,
            held_at_most: usize,
            decisions: Vec<&'a Decision>,
        }
        // Nobody's decision waits while they are written out.
        let (made, last) = {
            let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            (held.made, held.last.clone())
        };
        let decisions = last.iter().rev().map(Arc::as_ref).collect();
        // Words, numbers and texts: there is nothing in it that could not be written.
        serde_json::to_string(&Document { made, held_at_most: DECISIONS, decisions }).unwrap_or_default()
    }
}
