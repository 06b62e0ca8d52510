//! What `stop` and `restart` are told.

use coffer_runtime::engine::How;

/// Which boxes, and how patiently.
#[derive(Debug, clap::Args)]
pub struct ToStop {
    /// Seconds until a box that does not end is ended [default: its --stop-timeout, else 10].
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS")]
    time: Option<u32>,
    /// Names or ids.
    #[arg(required = true, value_name = "BOX")]
    pub boxes: Vec<String>,
}

impl ToStop {
    /// As the engine takes it.
    pub fn how(&self) -> How {
        self.time.map_or(How::Own, How::Grace)
    }
}
