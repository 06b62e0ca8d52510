//! Why a text is no policy.

use crate::engine::POLICY_LIMIT;

/// Why a text is no policy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Longer than a policy may be.
    #[error("policy {name} has {found} bytes, more than {POLICY_LIMIT}")]
    TooLong {
        /// Its name.
        name: String,
        /// Bytes found.
        found: usize,
    },
    /// Not Rego.
    #[error("policy {name} does not parse: {}{message}", shown(*.place))]
    Parse {
        /// Its name.
        name: String,
        /// Line and column, from 1, where the parser says them.
        place: Option<(u32, u32)>,
        /// The parser's words.
        message: String,
    },
    /// It calls a function that no policy has, wherever that stands.
    #[error("policy {name}, line {}, column {}: {}", .place.0, .place.1, forbidden(.function))]
    Forbidden {
        /// Its name.
        name: String,
        /// Line and column, from 1.
        place: (u32, u32),
        /// The function.
        function: String,
    },
    /// It could take more stack, or more time to parse, than there is for any policy.
    #[error("policy {name}, line {line}: {message}")]
    TooDeep {
        /// Its name.
        name: String,
        /// Where, from 1.
        line: usize,
        /// What.
        message: String,
    },
    /// The system gives no thread to parse it on.
    #[error("policy {name} cannot be parsed now")]
    NoThread {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No `allow` rule: such a policy could never say yes.
    #[error("policy {name} has no rule named allow in package {package}")]
    NoAllow {
        /// Its name.
        name: String,
        /// Its package.
        package: String,
    },
    /// Several packages with an `allow` rule: nobody could tell which decides.
    #[error("policy {name} has a rule named allow in more than one package: {}", .packages.join(", "))]
    SeveralAllow {
        /// Its name.
        name: String,
        /// The packages.
        packages: Vec<String>,
    },
    /// Data that the engine does not take beside these rules.
    #[error("data of policy {name}: {message}")]
    Data {
        /// Its name.
        name: String,
        /// The engine's words.
        message: String,
    },
    /// A file of unit tests, which decides nothing, gives a value to a rule that decides.
    #[error("policy {name}, line {line}: {rule} is given a value in a file of unit tests, where it decides nothing")]
    InTest {
        /// Its name.
        name: String,
        /// Where, from 1.
        line: u32,
        /// The rule, with its package.
        rule: String,
    },
    /// A unit test that is not one.
    #[error("policy {name} has no unit test: a test is a rule whose name starts with test_")]
    NoTests {
        /// Its name.
        name: String,
    },
}

impl PolicyError {
    /// Of what the engine says about a text of this name, or of the file that it points to.
    pub(crate) fn parse(name: &str, error: &anyhow::Error) -> Self {
        let text = error.to_string();
        let pointed = text.lines().find_map(|line| line.trim().strip_prefix("--> ")).and_then(|place| {
            let (rest, column) = place.rsplit_once(':')?;
            let (file, line) = rest.rsplit_once(':')?;
            Some((file.to_owned(), (line.parse().ok()?, column.parse().ok()?)))
        });
        let said = last_line(error);
        let message = said.strip_prefix("error: ").unwrap_or(&said).to_owned();
        match pointed {
            Some((file, place)) => Self::Parse { name: file, place: Some(place), message },
            None => Self::Parse { name: name.into(), place: None, message },
        }
    }

    /// Which file it is about, and where in it, as far as that is known.
    pub fn place(&self) -> (&str, Option<(u32, u32)>) {
        match self {
            Self::Parse { name, place, .. } => (name, *place),
            Self::Forbidden { name, place, .. } => (name, Some(*place)),
            Self::TooDeep { name, line, .. } => (name, u32::try_from(*line).ok().map(|line| (line, 1))),
            Self::InTest { name, line, .. } => (name, Some((*line, 1))),
            Self::TooLong { name, .. }
            | Self::NoThread { name, .. }
            | Self::NoAllow { name, .. }
            | Self::SeveralAllow { name, .. }
            | Self::Data { name, .. }
            | Self::NoTests { name } => (name, None),
        }
    }

    /// What the operator can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "split the policy, or move data out of it",
            Self::Parse { .. } => "policies are Rego v1: `allow if { … }`, `deny contains message if { … }`",
            Self::Forbidden { .. } => {
                "let what decides stand in the input, or in data beside the policy; the time of the decision is input.now_unix"
            }
            Self::TooDeep { .. } => {
                "write it flatter: no rule or function that comes back to itself, and short chains of them, of operators and of brackets"
            }
            Self::NoThread { .. } => "see what takes the threads or the memory of this machine",
            Self::SeveralAllow { .. } => {
                "keep `allow` in the package that decides, and call the others' rules something else"
            }
            Self::Data { .. } => {
                "let no data stand under the name of a rule, and nothing but its own rules under `allow` and `deny` of the package that decides"
            }
            Self::NoAllow { .. } => {
                "give one package a rule `allow`: `coffer policy show snp` prints one about evidence, and `… release` one for a key broker"
            }
            Self::InTest { .. } => {
                "let it stand in a file that decides, whose name does not end in _test.rego, or give the tests a package of their own"
            }
            Self::NoTests { .. } => "write `test_name if …` rules, as `coffer policy show release --tests` prints them",
        }
    }
}

/// What is said of a function that no policy has.
pub(crate) fn forbidden(function: &str) -> String {
    format!(
        "{function} is not available to policies: the same input must give the same answer, within bounds, without I/O"
    )
}

fn shown(place: Option<(u32, u32)>) -> String {
    place.map(|(line, column)| format!("line {line}, column {column}: ")).unwrap_or_default()
}

/// What the engine says last: it points into the policy with several lines, and the last says what is wrong.
pub(crate) fn last_line(error: &anyhow::Error) -> String {
    let text = error.to_string();
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("no reason given").chars().take(300).collect()
}
