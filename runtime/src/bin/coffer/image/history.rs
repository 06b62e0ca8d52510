//! `coffer history`.

use std::process::ExitCode;

use coffer_rim::foreign::foreign_at_most;
use coffer_runtime::images::{self, of_image};

use crate::context::Context;
use crate::error::CliError;
use crate::format::{Fields, Format};
use crate::image::images::since;
use crate::table;

/// Show how an image came to be, newest step first. SIZE is what the step's layer takes compressed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer history --no-trunc busybox
  coffer history --format '{{.CreatedBy}} {{.Size}}' busybox")]
pub struct Args {
    /// Whole texts.
    #[arg(long)]
    no_trunc: bool,
    /// Ids only.
    #[arg(short, long)]
    quiet: bool,
    /// Print steps by a template, a `table` of one, or as `json`: ID CreatedAt CreatedSince CreatedBy Size Comment.
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Reference, id or unique prefix of an id.
    image: String,
}

/// Shows it.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let format = args.format.as_deref().map(|text| Format::of(text, FIELDS)).transpose()?;
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
    let most = if args.no_trunc { usize::MAX } else { 44 };
    let rows = steps.iter().rev().enumerate().map(|(at, step)| Row {
        id: if at == 0 { id.clone() } else { "<missing>".to_owned() },
        created: step.created.clone(),
        by: foreign_at_most(&step.created_by, most),
        size: table::size(step.layer.unwrap_or(0)),
        comment: foreign_at_most(&step.comment, most),
    });
    if args.quiet {
        rows.for_each(|row| println!("{}", row.id));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(format) = format {
        format.print(&rows.map(Row::fields).collect::<Vec<_>>(), HEADINGS)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = rows.map(|row| vec![row.id, since(row.created.as_deref()), row.by, row.size, row.comment]);
    table::print(&["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"], &rows.collect::<Vec<_>>());
    Ok(ExitCode::SUCCESS)
}

/// A step, as it is shown.
struct Row {
    id: String,
    created: Option<String>,
    by: String,
    size: String,
    comment: String,
}

/// For templates.
const FIELDS: &[&str] = &["ID", "CreatedAt", "CreatedSince", "CreatedBy", "Size", "Comment"];

/// What stands above a column, where that is not the field's name.
const HEADINGS: &[(&str, &str)] =
    &[("ID", "IMAGE"), ("CreatedAt", "CREATED AT"), ("CreatedSince", "CREATED"), ("CreatedBy", "CREATED BY")];

impl Row {
    fn fields(self) -> Fields {
        let created_since = since(self.created.as_deref());
        let value = serde_json::json!({
            "ID": self.id, "CreatedAt": self.created, "CreatedSince": created_since, "CreatedBy": self.by, "Size": self.size,
            "Comment": self.comment,
        });
        Fields { value, labels: serde_json::Map::new() }
    }
}
