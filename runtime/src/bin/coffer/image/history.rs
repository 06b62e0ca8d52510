//! `coffer history`.

use std::process::ExitCode;

use coffer_rim::foreign::foreign_at_most;
use coffer_runtime::images::{self, of_image};

use crate::context::Context;
use crate::error::CliError;
use crate::image::images::since;
use crate::table;

/// Show how an image came to be, newest step first. SIZE is what the step's layer takes compressed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer history --no-trunc busybox")]
pub struct Args {
    /// Whole texts.
    #[arg(long)]
    no_trunc: bool,
    /// Reference, id or unique prefix of an id.
    image: String,
}

/// Shows it.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let store = images::open(&context.open_home()?)?;
    let steps = store.resolve(&args.image).and_then(|image| Ok((store.history(&image)?, image)));
    let (steps, image) = steps.map_err(|error| of_image(&error))?;
    if context.json {
        let steps = steps.iter().rev().map(|step| {
            serde_json::json!({
                "created": step.created, "created_by": step.created_by, "comment": step.comment, "size": step.layer,
            })
        });
        println!("{}", steps.collect::<serde_json::Value>());
        return Ok(ExitCode::SUCCESS);
    }
    let id = if args.no_trunc { image.config_digest.to_string() } else { image.config_digest.short() };
    let rows = steps.iter().rev().enumerate().map(|(at, step)| {
        let words = foreign_at_most(&step.created_by, if args.no_trunc { usize::MAX } else { 44 });
        let id = if at == 0 { id.clone() } else { "<missing>".to_owned() };
        let comment = foreign_at_most(&step.comment, if args.no_trunc { usize::MAX } else { 44 });
        vec![id, since(step.created.as_deref()), words, table::size(step.layer.unwrap_or(0)), comment]
    });
    table::print(&["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"], &rows.collect::<Vec<_>>());
    Ok(ExitCode::SUCCESS)
}
