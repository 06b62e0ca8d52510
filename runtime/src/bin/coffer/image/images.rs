//! `coffer images`.

use std::process::ExitCode;

use coffer_runtime::boxes::unix_ms;
use coffer_runtime::images::{self, of_image};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cli::Context;
use crate::error::CliError;
use crate::table;

/// List images.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer images --digests
  coffer images -q")]
pub struct Args {
    /// Ids only.
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids.
    #[arg(long)]
    no_trunc: bool,
    /// Show digests.
    #[arg(long)]
    digests: bool,
}

/// Lists them.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let home = context.open_home()?;
    let all = images::open(&home)?.list().map_err(|error| of_image(&error))?;
    let id = |digest: &coffer_image::Digest| {
        if args.no_trunc { digest.to_string() } else { digest.hex().chars().take(12).collect() }
    };
    if context.json {
        let list: Vec<_> = all
            .iter()
            .map(|image| {
                serde_json::json!({
                    "id": image.config_digest.to_string(), "reference": image.reference,
                    "digest": image.repo_digest.to_string(), "created": image.config.created, "size": image.size,
                })
            })
            .collect();
        println!("{}", serde_json::Value::from(list));
        return Ok(ExitCode::SUCCESS);
    }
    if args.quiet {
        for image in &all {
            println!("{}", id(&image.config_digest));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut heading = vec!["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];
    if args.digests {
        heading.insert(2, "DIGEST");
    }
    let rows: Vec<_> = all
        .iter()
        .map(|image| {
            let (repository, tag) = split(image.familiar_name());
            let created = image.config.created.as_deref().and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
            let age = created.map(|time| unix_ms() - time.unix_timestamp() * 1000);
            let mut row = vec![
                repository,
                tag,
                id(&image.config_digest),
                age.map_or_else(|| "N/A".into(), |age| format!("{} ago", table::span(age))),
                table::size(image.size),
            ];
            if args.digests {
                row.insert(2, image.repo_digest.to_string());
            }
            row
        })
        .collect();
    table::print(&heading, &rows);
    Ok(ExitCode::SUCCESS)
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
