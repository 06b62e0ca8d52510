//! Flags about the rights of a box's programs.

use clap::Args;
use coffer_runtime::request::{RequestError, RightsWords};
use coffer_spec::Rights;

use crate::error::{self, CliError};

/// What its programs may do less, or have more of, than any program of a box.
#[derive(Debug, Args)]
pub struct RightsFlags {
    /// Take a capability from the box's programs, or ALL; the box never has more than Docker's default set without MKNOD.
    #[arg(long, value_name = "CAPABILITY", conflicts_with = "spec")]
    cap_drop: Vec<String>,
    /// Leave them this one, where --cap-drop ALL takes it.
    #[arg(long, value_name = "CAPABILITY", conflicts_with = "spec")]
    cap_add: Vec<String>,
    /// no-new-privileges: no program gets more than the one that starts it had.
    #[arg(long, value_name = "OPTION", conflicts_with = "spec")]
    security_opt: Vec<String>,
    /// Limit a resource of each program: NAME=SOFT[:HARD], such as nofile=1024:4096; nproc not for root.
    #[arg(long, value_name = "NAME=SOFT[:HARD]", conflicts_with = "spec")]
    ulimit: Vec<String>,
    /// A further group of the box's user, by name or number.
    #[arg(long, value_name = "GROUP", conflicts_with = "spec")]
    group_add: Vec<String>,
    /// Most programs and threads of the box; not with --isolation process.
    #[arg(long, value_name = "N", allow_negative_numbers = true, conflicts_with = "spec")]
    pids_limit: Option<i64>,
}

impl RightsFlags {
    /// What they say.
    ///
    /// # Errors
    /// Class `usage`.
    pub fn rights(&self) -> Result<Rights, CliError> {
        let words = RightsWords {
            add: self.cap_add.clone(),
            drop: self.cap_drop.clone(),
            security: self.security_opt.clone(),
            limits: self.ulimit.clone(),
            groups: self.group_add.clone(),
            programs: self.pids_limit,
        };
        words.rights().map_err(|error| error::of(RequestError::from(error)))
    }
}
