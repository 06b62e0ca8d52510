//! What is wrong with a template.

use crate::failure::{Class, Failure};

/// Why a template does not do what was meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// It is none.
    #[error("template: {what} at byte {at}")]
    Malformed {
        /// What is wrong.
        what: String,
        /// Where.
        at: usize,
    },
    /// It names what is not there.
    #[error("template: there is no field {name:?}{}", known(.there))]
    NoField {
        /// Its name.
        name: String,
        /// What is there.
        there: Vec<String>,
    },
    /// A function was given what it does not take.
    #[error("template: {function}: {what}")]
    Argument {
        /// Which.
        function: String,
        /// What is wrong.
        what: String,
    },
    /// It does more than anybody reads.
    #[error("template: it makes more than {0}")]
    TooMuch(&'static str),
}

fn known(there: &[String]) -> String {
    if there.is_empty() { String::new() } else { format!("; there are {}", there.join(", ")) }
}

impl From<TemplateError> for Failure {
    fn from(error: TemplateError) -> Self {
        let class = match error {
            TemplateError::Malformed { .. } | TemplateError::Argument { .. } => Class::Usage,
            TemplateError::NoField { .. } => Class::NotFound,
            TemplateError::TooMuch(_) => Class::Config,
        };
        Self::caused(class, &error)
    }
}
