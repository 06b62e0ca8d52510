//! The attack kit against anybody's verifier: what is asked, how the answers are judged, how a report says it.
//!
//! [`cases`] lists what to ask, a [`Verifier`] asks one case, a [`Report`] judges all of them and writes itself for people,
//! scripts and CI. Evidence is made by the caller.
//! Trusts: the command line it is given, which runs with our rights. Believes nothing a verifier prints: it is kept short, and
//! escaped where it is shown.
//! Never: waits longer than the timeout for a case, leaves a process of a case behind in its group, nor, where [`adopt_orphans`] was called, anywhere else.

mod asked;
mod command;
mod junit;
mod post;
mod report;

pub use asked::{Answer, Asked, Prepared};
pub use command::adopt_orphans;

use std::time::Duration;

use coffer_simulator::attack::{ATTACKS, Attack, Expect};
use coffer_verifier::abi::ProductLine;
use serde::Serialize;

use coffer_rim::Failure;

/// One question: good evidence of a product, or an attack on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// Product line.
    pub product: ProductLine,
    /// `None`: good evidence, which must be accepted.
    pub attack: Option<&'static Attack>,
}

/// Whom to ask.
#[derive(Clone, Debug)]
pub enum Target {
    /// A command line for `sh -c`.
    Command(String),
    /// An endpoint, `http://…`.
    Url(String),
}

/// A verifier under test.
#[derive(Clone, Debug)]
pub struct Verifier {
    /// Whom to ask.
    pub target: Target,
    /// How long one answer may take.
    pub timeout: Duration,
}

/// A case with its answer.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was asked.
    pub case: Case,
    /// What was answered.
    pub asked: Asked,
    /// A line for a shell that asks again.
    pub again: String,
}

/// All cases of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// In the order they were asked.
    pub outcomes: Vec<Outcome>,
    /// An attack refused under the wrong class is wrong too.
    pub strict: bool,
}

/// What a run shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every answer is right.
    Right,
    /// Some are not.
    Wrong,
    /// The verifier gives one answer to all, good and bad: not even its right answers say anything.
    ProvesNothing,
}

/// No attack has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no attack is named {0:?}")]
pub struct UnknownAttack(pub String);

/// Good evidence of each product and the attacks on it, or the one of that name.
///
/// # Errors
/// [`UnknownAttack`].
pub fn cases(products: &[ProductLine], only: Option<&str>) -> Result<Vec<Case>, UnknownAttack> {
    let attacks: Vec<_> = ATTACKS.iter().filter(|attack| only.is_none_or(|name| name == attack.name)).collect();
    if let (true, Some(name)) = (attacks.is_empty(), only) {
        return Err(UnknownAttack(name.to_owned()));
    }
    let of_product = |product: &ProductLine| {
        let product = *product;
        let good = std::iter::once(Case { product, attack: None });
        good.chain(attacks.iter().map(move |attack| Case { product, attack: Some(attack) })).collect::<Vec<_>>()
    };
    Ok(products.iter().flat_map(of_product).collect())
}

impl Verifier {
    /// Asks one case.
    ///
    /// # Errors
    /// Class `usage` or `config` where the command cannot be run or the URL is none, `unreachable` where an endpoint gives no
    /// verdict.
    pub fn ask(&self, prepared: &Prepared) -> Result<Asked, Failure> {
        match &self.target {
            Target::Command(command) => command::ask(command, prepared, self.timeout),
            Target::Url(url) => post::ask(url, prepared, self.timeout),
        }
    }

    /// A line for a shell that asks a case again. `coffer`: our program and its options before the command, each quoted.
    pub fn again(&self, coffer: &str, case: Case, prepared: &Prepared) -> String {
        let product = case.product.name().to_lowercase();
        let attack = case.attack.map(|attack| format!(" --attack {}", attack.name)).unwrap_or_default();
        match &self.target {
            Target::Command(command) => {
                let set = command::variables("$d", &prepared.anchor, &prepared.report_data)
                    .map(|(name, value)| format!("{name}=\"{value}\""))
                    .join(" ");
                let command = quote(command);
                format!(
                    "d=$(mktemp -d) && {coffer} sim evidence --product {product}{attack} --out \"$d\" && {set} sh -c {command}"
                )
            }
            Target::Url(url) => format!("{coffer} sim check --product {product}{attack} --url {}", quote(url)),
        }
    }
}

impl Case {
    /// The attack's name, or `good`.
    pub fn name(&self) -> &'static str {
        self.attack.map_or("good", |attack| attack.name)
    }

    /// The attack's group, or `good`.
    pub fn group(&self) -> String {
        self.attack.map_or_else(|| "good".to_owned(), |attack| format!("{:?}", attack.group).to_lowercase())
    }

    /// What is wrong with the evidence.
    pub fn what(&self) -> &'static str {
        self.attack.map_or("good evidence, which the policy accepts", |attack| attack.what)
    }

    /// What a correct verifier answers, in words.
    pub fn expected(&self) -> String {
        match self.attack.map(|attack| attack.expect) {
            None => "accepted".to_owned(),
            Some(Expect::NotAuthentic) => "not-authentic".to_owned(),
            Some(Expect::Refused(policy)) => format!("refused ({policy})"),
        }
    }

    /// Whether an answer is right. Whoever dies or never answers is not right about anything.
    pub fn is_right(&self, answer: Answer, strict: bool) -> bool {
        let class = match self.attack.map(|attack| attack.expect) {
            None => return answer == Answer::Accepted,
            Some(Expect::NotAuthentic) => Answer::NotAuthentic,
            Some(Expect::Refused(_)) => Answer::Refused,
        };
        match answer {
            Answer::Accepted | Answer::Killed(_) | Answer::TimedOut => false,
            Answer::NotAuthentic | Answer::Refused | Answer::NotAccepted => !strict || answer == class,
        }
    }
}

impl Verdict {
    /// As it is printed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Wrong => "wrong",
            Self::ProvesNothing => "proves nothing",
        }
    }
}

/// A word for a shell, quoted where it must be.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests;
