//! Figures for Prometheus. Labels are words of this program, never a policy, a caller or anything of evidence.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use coffer_verifier::Verdict;

use crate::refusal::Refusal;

/// What is counted.
#[derive(Default)]
pub struct Metrics {
    accepted: AtomicU64,
    refused: AtomicU64,
    not_authentic: AtomicU64,
    tokens: AtomicU64,
    challenges: AtomicU64,
    /// Requests that got no appraisal, by class of status: what was wrong, nobody who may ask, too many, ours.
    malformed: AtomicU64,
    unauthenticated: AtomicU64,
    shed: AtomicU64,
    failed: AtomicU64,
    /// Connections that were closed for want of a place, and that never spoke TLS.
    closed: AtomicU64,
    no_tls: AtomicU64,
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Metrics {
    /// One appraisal.
    pub fn appraised(&self, verdict: Verdict, token: bool) {
        add(match verdict {
            Verdict::Accepted => &self.accepted,
            Verdict::Refused => &self.refused,
            Verdict::NotAuthentic => &self.not_authentic,
        });
        if token {
            add(&self.tokens);
        }
    }

    /// One request without.
    pub fn refused(&self, refusal: &Refusal) {
        self.refused_with(refusal.status());
    }

    /// One request without, that got this status of HTTP or its like.
    pub fn refused_with(&self, status: u16) {
        add(match status {
            401 => &self.unauthenticated,
            500 => &self.failed,
            503 => &self.shed,
            _ => &self.malformed,
        });
    }

    /// One challenge was given.
    pub fn challenged(&self) {
        add(&self.challenges);
    }

    /// One connection found no place.
    pub fn closed(&self) {
        add(&self.closed);
    }

    /// One connection came to no TLS.
    pub fn no_tls(&self) {
        add(&self.no_tls);
    }

    /// As Prometheus reads it. `requests`: under way now; `connections`: open now; `spans_lost`: that no collector took.
    pub fn text(&self, requests: usize, connections: usize, spans_lost: u64) -> String {
        let mut text = String::new();
        let mut say = |name: &str, kind: &str, help: &str, values: &[(&str, u64)]| {
            let _ = writeln!(text, "# HELP coffer_verifier_{name} {help}\n# TYPE coffer_verifier_{name} {kind}");
            for (labels, value) in values {
                let _ = writeln!(text, "coffer_verifier_{name}{labels} {value}");
            }
        };
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let verdicts = [
            ("{verdict=\"accepted\"}", of(&self.accepted)),
            ("{verdict=\"refused\"}", of(&self.refused)),
            ("{verdict=\"not-authentic\"}", of(&self.not_authentic)),
        ];
        say("appraisals_total", "counter", "Evidence that was judged.", &verdicts);
        say("tokens_total", "counter", "Tokens that were signed.", &[("", of(&self.tokens))]);
        say("challenges_total", "counter", "Challenges that were given.", &[("", of(&self.challenges))]);
        let refused = [
            ("{why=\"request\"}", of(&self.malformed)),
            ("{why=\"unauthenticated\"}", of(&self.unauthenticated)),
            ("{why=\"too-many\"}", of(&self.shed)),
            ("{why=\"internal\"}", of(&self.failed)),
        ];
        say("requests_refused_total", "counter", "Requests without an answer of the judge.", &refused);
        let closed = [("{why=\"place\"}", of(&self.closed)), ("{why=\"tls\"}", of(&self.no_tls))];
        say("connections_closed_total", "counter", "For want of a place, or of TLS.", &closed);
        say("spans_lost_total", "counter", "Spans that no collector of traces took.", &[("", spans_lost)]);
        say("requests", "gauge", "Under way now.", &[("", requests as u64)]);
        say("connections", "gauge", "Open now.", &[("", connections as u64)]);
        text
    }
}
