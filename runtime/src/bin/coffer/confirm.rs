//! A question before something is removed.

use std::io::{BufRead as _, Read as _, Write as _};

use crate::context::Context;
use crate::error::{Class, CliError};

/// Asks whoever sits there whether `what` may be removed. A script that is asked has not said yes.
///
/// # Errors
/// Class `config` where the answer is no.
pub fn removal(context: &Context, what: &str) -> Result<(), CliError> {
    let mut answer = String::new();
    if !context.json {
        print!("This removes {what}.\nGo on? [y/N] ");
        std::io::stdout().flush()?;
        std::io::stdin().lock().take(16).read_line(&mut answer)?;
    }
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(CliError::new(Class::Config, "nothing is removed: that was not a yes").hint("-f does not ask"))
}
