//! What `create` and `run` are told about the box they make.

use coffer_rim::Failure;
use coffer_runtime::boxes::Timings;
use coffer_runtime::engine::{CreateRequest, Engine, ProgressFn, check_hardware};
use coffer_spec::Tee;

use crate::boxes::flags::BoxFlags;
use crate::context::Context;
use crate::error::CliError;
use crate::image::progress;
use crate::launch::id_flags::IdFlags;

/// What is to be known before anything is entrusted to hardware: the first line of every such launch. Where there is none,
/// the refusal says enough.
fn unproven(tee: Tee, check: impl Fn(Tee) -> Result<(), Failure>) -> Option<&'static str> {
    (tee == Tee::Snp && check(tee).is_ok()).then_some(
        "this release has not been run on SEV-SNP hardware by its authors; docs/snp-host.md says what has run where",
    )
}

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
        if let Some(note) = unproven(what.tee_demanded(), check_hardware) {
            eprintln!("coffer: {note}");
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_rim::Class;

    #[test]
    fn a_launch_on_hardware_says_first_that_it_is_unproven() {
        let there = |_| Ok(());
        let absent = |_| Err(Failure::new(Class::Platform, "none here"));
        assert!(unproven(Tee::Snp, there).unwrap().contains("not been run on SEV-SNP hardware"));
        assert_eq!(unproven(Tee::Snp, absent), None);
        assert_eq!(unproven(Tee::Simulated, there), None);
        assert_eq!(unproven(Tee::None, there), None);
    }
}
