//! What was not got, as programs say it.

use coffer_rim::{Class, Failure};
use serde_json::{Value, json};

use tokio::time::Instant;

use crate::address::{Base, Item};
use crate::error::{Asked, FetchError};

/// What is not at hand, and why.
pub type Failures = Vec<(Item, FetchError)>;

/// What a client waits for at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnderWay {
    /// Of whom; nobody, where it asks nobody.
    pub service: Option<Base>,
    /// Items that are asked for, in the order of their names.
    pub items: Vec<Item>,
    /// The service wants no request until then, where that is to come.
    pub pause_until: Option<Instant>,
}

/// One that was not got, with its class, and where it was asked for.
pub fn failure((item, error): &(Item, FetchError), asked: Asked<'_>) -> Failure {
    let class = match error {
        FetchError::NoAddress | FetchError::Offline | FetchError::None { .. } => Class::NotFound,
        FetchError::TooLong { .. } | FetchError::Unfit(_) => Class::NotAuthentic,
        _ => Class::Unreachable,
    };
    let failure = Failure::caused(class, error);
    let answers =
        !matches!(error, FetchError::NoAddress | FetchError::Offline | FetchError::Budget { .. } | FetchError::Folder);
    let failure = match asked.service.filter(|_| answers).and_then(|service| service.url(item)) {
        Some(url) => failure.while_doing(url),
        None => failure,
    };
    failure.while_doing(item).hint(error.hint(item, asked))
}

/// All of them in JSON: `[{"item", "error", "retry_after"}, …]`.
pub fn failures_json(failures: &[(Item, FetchError)], asked: Asked<'_>) -> Value {
    let one = |one: &(Item, FetchError)| {
        let wait = one.1.retry_after().map(|wait| wait.as_secs().max(1));
        json!({ "item": one.0, "error": failure(one, asked).json()["error"], "retry_after": wait })
    };
    failures.iter().map(one).collect()
}
