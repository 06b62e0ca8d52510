//! What `stop` and `restart` are told.

use coffer_runtime::engine::How;
use coffer_runtime::supervisor::DEFAULT_GRACE;

/// Which boxes, and how patiently.
#[derive(Debug, clap::Args)]
pub struct ToStop {
    /// Seconds until a box that does not end is ended.
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", default_value_t = DEFAULT_GRACE)]
    time: u32,
    /// Names or ids.
    #[arg(required = true, value_name = "BOX")]
    pub boxes: Vec<String>,
}

impl ToStop {
    /// As the engine takes it.
    pub fn how(&self) -> How {
        How::Grace(self.time)
    }
}
