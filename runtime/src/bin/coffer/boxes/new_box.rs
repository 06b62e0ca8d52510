//! What `create` and `run` are told about the box they make.

use coffer_runtime::boxes::Timings;
use coffer_runtime::engine::{CreateRequest, Engine, ProgressFn};

use crate::boxes::flags::{BoxFlags, secrets_in_the_open};
use crate::boxes::unproven;
use crate::context::Context;
use crate::error::CliError;
use crate::image::progress;
use crate::launch::id_flags::IdFlags;

/// Its name and end, its launch, and what runs in it.
#[derive(Debug, clap::Args)]
pub struct NewBox {
    /// Name of the box [default: adjective_noun].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Remove the box when it ends.
    #[arg(long)]
    rm: bool,
    /// No progress of pulls.
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    id: IdFlags,
    #[command(flatten)]
    flags: BoxFlags,
}

impl NewBox {
    /// As the engine takes it.
    pub fn request(&self, engine: &Engine, timings: Timings) -> Result<CreateRequest, CliError> {
        let what = self.flags.request(engine)?;
        unproven::say_of(what.tee_demanded());
        secrets_in_the_open(&what);
        Ok(CreateRequest { what, name: self.name.clone(), remove: self.rm, identity: self.id.identity()?, timings })
    }

    /// Image and program, as typed.
    pub fn words(&self) -> &[String] {
        &self.flags.words
    }

    /// How a pull is shown.
    pub fn progress(&self, context: &Context) -> Option<ProgressFn> {
        progress::shown(self.quiet || context.json)
    }
}
