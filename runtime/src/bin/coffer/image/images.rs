//! `coffer images`.

use std::process::ExitCode;

use coffer_image::store::Listing;
use coffer_image::{Digest, Image, Store};
use coffer_runtime::boxes::unix_ms;
use coffer_runtime::images::{self, of_image};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::context::Context;
use crate::error::{self, Class, CliError};
use crate::format::{Fields, Format};
use crate::image::wanted::Wanted;
use crate::table;

/// List images.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer images --digests
  coffer images -q
  coffer images 'team/*'
  coffer images --filter label=tier=web --filter since=busybox
  coffer images --format '{{.Repository}}:{{.Tag}} {{.Size}}'")]
pub struct Args {
    /// Also images between the layers of a build, of which there are none here.
    #[arg(short, long)]
    all: bool,
    /// Ids only.
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids.
    #[arg(long)]
    no_trunc: bool,
    /// Print images by a template, a `table` of one, or as `json`: ID Repository Tag Digest CreatedAt CreatedSince Size.
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Show digests.
    #[arg(long)]
    digests: bool,
    /// reference=NAME[:TAG], label=KEY[=VALUE], dangling=true|false, before=IMAGE or since=IMAGE (made earlier, or later, than that one);
    /// values of one key are alternatives, but for labels.
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Only those of this name; * and ? stand for what is between slashes.
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

/// Lists them. A damaged one hides no other: it is named last, and the exit code says so.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let format = args.format.as_deref().map(|text| Format::of(text, FIELDS)).transpose()?;
    let home = context.open_home()?;
    let store = images::open(&home)?;
    let mut wanted = Wanted::parse(args.name.as_deref(), &args.filter)?;
    wanted.look_up(|name| store.resolve(name).map_err(|error| of_image(&error)))?;
    let Listing { images: mut all, mut damaged } = store.list().map_err(|error| of_image(&error))?;
    all.retain(|image| wanted.admits(image));
    if !wanted.is_all() {
        // Of those nobody knows whether they are wanted.
        damaged.clear();
    }
    let damaged: Vec<_> = damaged
        .iter()
        .map(|found| {
            let failure = of_image(&found.error).while_doing(&found.reference);
            let hint = format!("coffer pull {0} brings it back, coffer rmi {0} removes it", found.reference);
            (found, CliError { hint: Some(hint), ..failure })
        })
        .collect();
    let end = if damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(Class::Config.code()) };
    let id = |digest: &Digest| {
        if args.no_trunc { digest.to_string() } else { digest.hex().chars().take(12).collect() }
    };
    if context.json {
        let whole = all.iter().map(|image| {
            let space = store.space(image);
            serde_json::json!({
                "id": image.config_digest.to_string(), "reference": image.reference,
                "digest": image.repo_digest.to_string(), "created": image.config.created,
                "size": space.disk, "download": image.size, "unpacked": space.unpacked,
            })
        });
        let lost = damaged.iter().map(|(found, failure)| {
            serde_json::json!({
                "id": null, "reference": found.reference, "digest": found.repo_digest.to_string(), "created": null,
                "size": null, "download": null, "unpacked": null, "error": failure.json()["error"],
            })
        });
        println!("{}", whole.chain(lost).collect::<serde_json::Value>());
        return Ok(end);
    }
    if args.quiet {
        for image in &all {
            println!("{}", id(&image.config_digest));
        }
    } else if let Some(format) = format {
        let rows: Vec<_> = all.iter().map(|image| fields(&store, image, &id(&image.config_digest))).collect();
        format.print(&rows, HEADINGS)?;
    } else {
        print_table(&store, &all, args, id);
    }
    for (_, failure) in &damaged {
        error::print(failure, false);
    }
    Ok(end)
}

/// What stands above a column, where that is not the field's name.
const HEADINGS: &[(&str, &str)] = &[("ID", "IMAGE ID"), ("CreatedAt", "CREATED AT"), ("CreatedSince", "CREATED")];

/// For templates.
const FIELDS: &[&str] = &["ID", "Repository", "Tag", "Digest", "CreatedAt", "CreatedSince", "Size"];

fn fields(store: &Store, image: &Image, id: &str) -> Fields {
    let (repository, tag) = split(image.familiar_name());
    let value = serde_json::json!({
        "ID": id, "Repository": repository, "Tag": tag, "Digest": image.repo_digest.to_string(),
        "CreatedAt": image.config.created, "CreatedSince": since(image.config.created.as_deref()), "Size": table::size(store.space(image).disk),
    });
    Fields { value, labels: serde_json::Map::new() }
}

/// How long ago something was made, by a time as an image writes it.
pub fn since(created: Option<&str>) -> String {
    let created = created.and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    let age = created.map(|time| unix_ms() - time.unix_timestamp() * 1000);
    age.map_or_else(|| "N/A".into(), |age| format!("{} ago", table::span(age)))
}

/// SIZE is what it takes of this disk: its blobs and its root file system.
fn print_table(store: &Store, all: &[Image], args: &Args, id: impl Fn(&Digest) -> String) {
    let mut heading = vec!["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];
    if args.digests {
        heading.insert(2, "DIGEST");
    }
    let rows: Vec<_> = all
        .iter()
        .map(|image| {
            let (repository, tag) = split(image.familiar_name());
            let mut row = vec![
                repository,
                tag,
                id(&image.config_digest),
                since(image.config.created.as_deref()),
                table::size(store.space(image).disk),
            ];
            if args.digests {
                row.insert(2, image.repo_digest.to_string());
            }
            row
        })
        .collect();
    table::print(&heading, &rows);
}

/// Repository and tag; an image pulled by digest has no tag.
fn split(name: &str) -> (String, String) {
    if let Some((repository, _)) = name.split_once('@') {
        return (repository.into(), "<none>".into());
    }
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository.into(), tag.into()),
        _ => (name.into(), "<none>".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_no_tag() {
        assert_eq!(split("localhost:5000/a:1"), ("localhost:5000/a".into(), "1".into()));
        assert_eq!(split("localhost:5000/a"), ("localhost:5000/a".into(), "<none>".into()));
        assert_eq!(split("a@sha256:00"), ("a".into(), "<none>".into()));
    }
}
