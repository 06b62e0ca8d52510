//! What `stop` and `restart` are told.

use coffer_runtime::engine::How;
use coffer_runtime::request::signal_number;

use crate::error::{Class, CliError};

/// Which boxes, and how patiently.
#[derive(Debug, clap::Args)]
pub struct ToStop {
    /// Seconds until a box that does not end is ended [default: its --stop-timeout, else 10].
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS")]
    time: Option<u32>,
    /// Send this signal, by name or number, in place of the box's own stop signal. A box with a TEE takes KILL and its own from its host,
    /// and others where the host may exec.
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// Names or ids.
    #[arg(required = true, value_name = "BOX")]
    pub boxes: Vec<String>,
}

impl ToStop {
    /// As the engine takes it.
    ///
    /// # Errors
    /// Class `usage`, of what is no signal.
    pub fn how(&self) -> Result<How, CliError> {
        match &self.signal {
            Some(text) => Ok(How::Signal { number: signal(text)?, grace: self.time }),
            None => Ok(self.time.map_or(How::Own, How::Grace)),
        }
    }
}

/// What `--signal` names.
///
/// # Errors
/// Class `usage`.
pub fn signal(text: &str) -> Result<i32, CliError> {
    signal_number(text).ok_or_else(|| {
        CliError::new(Class::Usage, format!("invalid value {text:?} for --signal: it is no signal"))
            .hint("write a name such as HUP or SIGTERM, or a number of 1 to 64")
    })
}
