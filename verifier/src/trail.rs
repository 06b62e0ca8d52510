//! The trail of one decision: each check writes its line when it is made, and public-key operations are counted.

use core::{fmt, ops::AddAssign};
use std::borrow::Cow;

use crate::{CheckLine, Code, Outcome, Reason};

/// Public-key operations a decision took. A kept chain takes none of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// RSA-4096 verifications: certificates and revocation lists.
    pub rsa: u32,
    /// ECDSA P-384 verifications: reports.
    pub ecdsa: u32,
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.rsa += other.rsa;
        self.ecdsa += other.ecdsa;
    }
}

/// Lines in the order in which the checks were made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trail {
    pub lines: Vec<CheckLine>,
    pub cost: Cost,
    /// Asked twice, a check is written once: what only chooses among candidates goes without a trail.
    silent: bool,
}

impl Trail {
    pub fn new() -> Self {
        Self { lines: Vec::with_capacity(24), ..Self::default() }
    }

    /// One that writes nothing.
    pub fn silent() -> Self {
        Self { silent: true, ..Self::default() }
    }

    fn line(&mut self, code: Code, outcome: Outcome, found: &dyn fmt::Display, expected: &dyn fmt::Display) {
        if !self.silent {
            let (found, expected) = (found.to_string(), expected.to_string());
            self.lines.push(CheckLine { code, outcome, found, expected, hint: "".into() });
        }
    }

    pub fn pass(&mut self, code: Code, found: impl fmt::Display, expected: impl fmt::Display) {
        self.line(code, Outcome::Passed, &found, &expected);
    }

    /// Not demanded; `waiver` says by what.
    pub fn waive(&mut self, code: Code, found: impl fmt::Display, waiver: impl fmt::Display) {
        self.line(code, Outcome::Waived, &found, &waiver);
    }

    /// Not made, and why.
    pub fn skip(&mut self, code: Code, why: impl Into<std::borrow::Cow<'static, str>>) {
        if !self.silent {
            let (outcome, hint) = (Outcome::NotRun, why.into());
            self.lines.push(CheckLine { code, outcome, found: String::new(), expected: String::new(), hint });
        }
    }

    pub fn fail(&mut self, reason: &Reason) {
        if !self.silent {
            self.lines.push(CheckLine::from(reason));
        }
    }

    /// Takes over what another trail has: its lines and its cost.
    pub fn append(&mut self, other: Self) {
        self.lines.extend(other.lines);
        self.cost += other.cost;
    }
}

/// All checks there are, in the table's order: those of `lines` as they were made, the others as not made.
pub(crate) fn complete<'a>(lines: impl IntoIterator<Item = Cow<'a, CheckLine>>) -> Vec<Cow<'a, CheckLine>> {
    let mut lines: Vec<_> = lines.into_iter().collect();
    let failed = lines.iter().find(|line| line.outcome == Outcome::Failed).map(|line| line.code);
    let mut made = [false; Code::ALL.len()];
    for line in &lines {
        made[line.code as usize] = true;
    }
    for code in Code::ALL.iter().copied().filter(|code| code.stage() != crate::Stage::Elsewhere) {
        if !made[code as usize] {
            let why = failed.map_or_else(|| "not made".into(), |failed| format!("not made, because {failed} failed"));
            let (found, expected) = (String::new(), String::new());
            lines.push(Cow::Owned(CheckLine { code, outcome: Outcome::NotRun, found, expected, hint: why.into() }));
        }
    }
    lines.sort_by_key(|line| line.code);
    lines
}
