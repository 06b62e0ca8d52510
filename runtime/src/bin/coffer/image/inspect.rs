//! `coffer image inspect`.

use std::collections::BTreeSet;
use std::process::ExitCode;

use coffer_image::store::parse_reference;
use coffer_image::{Image, ImageError, Store};
use coffer_runtime::images::{self, of_image};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::CliError;
use crate::inspected;

/// Print everything known of images, as a JSON array.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer image inspect busybox | jq -r '.[0].Config.Cmd'
  coffer image inspect --format '{{.Digest}} {{.Size}}' busybox")]
pub struct Args {
    /// Print each by a template, an image a line; `json` is one line of JSON.
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// References, ids or unique prefixes of ids.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// Prints what is found, and fails if something was not: with `--json` as an object with the failure and what was found.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let store = images::open(&context.open_home()?)?;
    inspected::print(context, args.format.as_deref(), &args.images, |name| {
        store.resolve(name).and_then(|image| describe(&store, &image)).map_err(|error| of_image(&error))
    })
}

/// Docker's keys for what Docker has.
fn describe(store: &Store, image: &Image) -> Result<Value, ImageError> {
    let document: Value = serde_json::from_slice(&store.configuration(image)?).unwrap_or_default();
    let names = store.references(image)?;
    let mut digests = BTreeSet::new();
    for name in &names {
        if let Ok(name) = parse_reference(name) {
            digests.insert(name.clone_with_digest(image.repo_digest.to_string()).whole());
        }
    }
    let tags: Vec<_> = names.into_iter().filter(|name| !name.contains('@')).collect();
    let space = store.space(image);
    let rootfs = store.rootfs(image)?;
    let layers: Vec<_> = image
        .layers
        .iter()
        .map(|layer| json!({"digest": layer.digest, "size": layer.size, "mediaType": layer.media_type}))
        .collect();
    Ok(json!({
        "Id": image.config_digest,
        "RepoTags": tags,
        "RepoDigests": digests,
        "Digest": image.repo_digest,
        "ManifestDigest": image.manifest_digest,
        "Created": image.config.created,
        "Architecture": "amd64",
        "Os": "linux",
        "Config": document["config"],
        "Size": space.disk,
        "DownloadSize": image.size,
        "UnpackedSize": space.unpacked,
        "RootFS": {"Type": "layers", "Layers": image.config.diff_ids},
        "Layers": layers,
        "RootHash": rootfs.verity.root_hash,
        "LeftOut": rootfs.dropped,
    }))
}
