//! `coffer pull`.

use std::path::Path;
use std::process::ExitCode;

use coffer_image::archive::LoadOptions;
use coffer_image::{Limits, Platform, PullOptions, Pulled, Store};
use coffer_rim::foreign;
use coffer_runtime::images::{self, of_image};

use crate::context::Context;
use crate::error::{Class, CliError};
use crate::image::{load, progress, room};

/// Pull an image and make its root file system.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer pull docker.io/library/busybox:1.36
  coffer pull oci-archive:busybox.tar")]
pub struct Args {
    /// Print the reference only.
    #[arg(short, long)]
    quiet: bool,
    /// Speak plain http to this registry.
    #[arg(long, value_name = "HOST:PORT")]
    insecure_registry: Vec<String>,
    /// Platform of an image that is there for several: linux/amd64, maybe with a level of it (linux/amd64/v3).
    #[arg(long, value_name = "OS/ARCH[/LEVEL]", default_value_t)]
    platform: Platform,
    /// Image reference; or docker-archive:FILE, oci-archive:FILE or oci:FOLDER, maybe with :NAME, or :@N for the N-th image in it.
    image: String,
}

/// Pulls it.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let home = context.open_home()?;
    let store = images::open(&home)?;
    if let Some(source) = Source::parse(&args.image)? {
        return from_file(&store, &source, args, context);
    }
    let progress = progress::shown(args.quiet || context.json);
    let options = PullOptions {
        platform: args.platform.clone(),
        ..context.engine()?.pull_options(&args.insecure_registry, progress.as_ref())?
    };
    let pulled =
        context.runtime()?.block_on(store.pull(args.image.strip_prefix("docker://").unwrap_or(&args.image), &options));
    let Pulled { image, rootfs } = pulled.map_err(|error| of_image(&error))?;
    if context.json {
        let space = store.space(&image);
        println!(
            "{}",
            serde_json::json!({
                "reference": image.reference, "digest": image.repo_digest.to_string(), "id": image.config_digest.to_string(),
                "root_hash": rootfs.verity.root_hash, "manifest": image.manifest_digest.to_string(),
                "download": image.size, "size": space.disk, "unpacked": space.unpacked, "left_out": rootfs.dropped,
            })
        );
    } else {
        if !args.quiet {
            println!("Digest: {}", image.repo_digest);
            println!("Root hash: {}", rootfs.verity.root_hash);
        }
        println!("{}", image.reference);
    }
    // While it is held, nothing is removed.
    drop(rootfs);
    room::keep(context, &[image.config_digest])?;
    Ok(ExitCode::SUCCESS)
}

/// A file or folder with images, as skopeo names them.
struct Source<'a> {
    folder: bool,
    path: &'a Path,
    only: Option<&'a str>,
}

impl<'a> Source<'a> {
    /// `None` for a reference of a registry.
    fn parse(text: &'a str) -> Result<Option<Self>, CliError> {
        let Some((scheme, rest)) = text.split_once(':') else { return Ok(None) };
        let folder = match scheme {
            "docker-archive" | "oci-archive" => false,
            "oci" => true,
            "containers-storage" | "docker-daemon" | "dir" => {
                let message = format!("images are not taken from {scheme}:");
                let hint = format!("`skopeo copy {scheme}:… oci-archive:FILE`, then `coffer pull oci-archive:FILE`");
                return Err(CliError::new(Class::Usage, message).hint(hint));
            }
            _ => return Ok(None),
        };
        // A registry's image of that name has a tag, which a path would have to be.
        let (path, only) = rest.split_once(':').map_or((rest, None), |(path, only)| (path, Some(only)));
        if path.is_empty() || only == Some("") {
            return Err(CliError::new(
                Class::Usage,
                format!("{scheme}: wants a path, and a name behind the second colon"),
            ));
        }
        Ok(Some(Self { folder, path: Path::new(path), only }))
    }

    /// What an image without a repository is called: by its file.
    fn repository(&self) -> String {
        let name = self.path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
        let word: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        format!("localhost/{}", Some(word.trim_matches('-')).filter(|word| !word.is_empty()).unwrap_or("image"))
    }
}

fn from_file(store: &Store, source: &Source<'_>, args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let options = LoadOptions {
        platform: args.platform.clone(),
        only: source.only.map(str::to_owned),
        repository: Some(source.repository()),
    };
    let loaded = if source.folder {
        drop(load::open(source.path)?);
        store.load_folder(source.path, &options, Limits::default())
    } else {
        store.load(source.path, load::open(source.path)?, &options, Limits::default())
    };
    let loaded = loaded.map_err(|error| of_image(&error))?;
    if context.json {
        println!("{}", serde_json::json!({ "images": loaded.iter().map(load::described).collect::<Vec<_>>() }));
    }
    for one in loaded.iter().filter(|_| !context.json) {
        if !args.quiet {
            println!("Digest: {}", one.pulled.image.repo_digest);
            println!("Root hash: {}", one.pulled.rootfs.verity.root_hash);
        }
        for name in &one.references {
            println!("{}", foreign(name));
        }
    }
    load::keep(context, loaded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_from_a_registry() {
        for text in ["busybox", "busybox:1", "registry.example:5000/a:1", "docker://busybox"] {
            assert!(Source::parse(text).unwrap().is_none(), "{text}");
        }
        let source = Source::parse("oci:./My App.d:v1").unwrap().unwrap();
        assert_eq!((source.folder, source.path, source.only), (true, Path::new("./My App.d"), Some("v1")));
        assert_eq!(source.repository(), "localhost/my-app");
        assert!(!Source::parse("docker-archive:/a.tar").unwrap().unwrap().folder);
        for text in ["oci:", "oci-archive::x", "oci:a:", "containers-storage:x"] {
            assert!(Source::parse(text).is_err(), "{text}");
        }
    }
}
