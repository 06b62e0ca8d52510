//! Archives as `docker save` wrote them before it wrote OCI layouts too: `manifest.json`, configurations and layers.
//!
//! They have no image manifest; one is made of what they have, the same for the same archive.

use super::listed::{Listed, Parts, What};
use super::members::Members;
use crate::digest::Digest;
use crate::error::{ImageError, Result};
use crate::manifest::{CONFIG_TYPE, MANIFEST_TYPE, MAX_LAYERS};
use crate::store::Store;
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// The images of an archive; `None` where it is none.
pub(super) fn list(store: &Store, members: &Members) -> Result<Option<Vec<Listed>>> {
    let Some(bytes) = members.document(store, "manifest.json")? else { return Ok(None) };
    let items: Vec<Item> =
        serde_json::from_slice(&bytes).map_err(|error| members.bad(format!("its manifest.json: {error}")))?;
    let listed = |item: Item| Listed {
        names: item.repo_tags.unwrap_or_default(),
        what: What::Parts(Parts { config: item.config, layers: item.layers.unwrap_or_default() }),
    };
    Ok(Some(items.into_iter().map(listed).collect()))
}

/// Makes blobs of the parts, and a manifest that names them.
pub(super) fn manifest(store: &Store, members: &mut Members, parts: &Parts) -> Result<Vec<u8>> {
    if parts.layers.len() > MAX_LAYERS {
        return Err(ImageError::TooLarge { what: "layers", limit: MAX_LAYERS as u64 });
    }
    let missing =
        |members: &Members, name: &str| members.bad(format!("its manifest.json names {name}, which it has not"));
    let config = members.document(store, &parts.config)?.ok_or_else(|| missing(members, &parts.config))?;
    let digest = Digest::of(&config);
    store.put_blob(&digest, &config)?;
    let mut layers = Vec::new();
    for name in &parts.layers {
        let kept = members.keep(store, name)?.ok_or_else(|| missing(members, name))?;
        layers.push(json!({"mediaType": kept.layer_type(), "digest": kept.digest, "size": kept.size}));
    }
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": CONFIG_TYPE, "digest": digest, "size": config.len()}, "layers": layers,
    });
    Ok(manifest.to_string().into_bytes())
}
