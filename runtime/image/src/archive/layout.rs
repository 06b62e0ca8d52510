//! OCI layouts: `index.json` names manifests, `blobs/` has them.

use super::listed::{Listed, What};
use super::members::Members;
use crate::digest::Digest;
use crate::error::{ImageError, Result};
use crate::manifest::{Search, is_index};
use crate::platform::Platform;
use crate::store::Store;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    digest: Digest,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// Annotations that name an image: in full, as containerd and Docker write it; and by tag or in full, as the specification has it.
pub(super) const FULL_NAME: &str = "io.containerd.image.name";
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The images of a layout; `None` where it is none.
pub(super) fn list(store: &Store, members: &Members) -> Result<Option<Vec<Listed>>> {
    let Some(bytes) = members.document(store, "index.json")? else { return Ok(None) };
    let index: Index =
        serde_json::from_slice(&bytes).map_err(|error| members.bad(format!("its index.json: {error}")))?;
    let (mut listed, mut known) = (Vec::<Listed>::new(), BTreeMap::new());
    for Entry { digest, annotations } in index.manifests {
        let annotations = annotations.unwrap_or_default();
        let name = annotations.get(FULL_NAME).or_else(|| annotations.get(REF_NAME)).cloned();
        let at = *known.entry(digest).or_insert(listed.len());
        match listed.get_mut(at) {
            Some(image) => image.names.extend(name),
            None => listed.push(Listed { names: name.into_iter().collect(), what: What::Document(digest) }),
        }
    }
    Ok(Some(listed))
}

/// The member that is a blob.
pub(super) fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The manifest that a document is or leads to, and the index it was found in, which becomes a blob.
pub(super) fn manifest(
    store: &Store,
    members: &Members,
    name: &Path,
    top: Digest,
    wanted: &Platform,
) -> Result<(Option<Digest>, Vec<u8>)> {
    let read = |digest: Digest| -> Result<Vec<u8>> {
        let bytes = members.document(store, &blob(&digest))?;
        let bytes = bytes.ok_or_else(|| members.bad(format!("its manifest {digest} is missing")))?;
        let found = Digest::of(&bytes);
        if found == digest {
            Ok(bytes)
        } else {
            Err(ImageError::CorruptBlob { what: "manifest", expected: digest, found })
        }
    };
    let bytes = read(top)?;
    if !is_index(&bytes) {
        return Ok((None, bytes));
    }
    let mut search = Search::new(top, &bytes, wanted)?;
    while let Some(digest) = search.next()? {
        // A layout may have one platform's blobs alone.
        if let Some(manifest) = search.answer(digest, read(digest)?)? {
            store.put_blob(&top, &bytes)?;
            return Ok((Some(top), manifest));
        }
    }
    Err(search.nothing(&name.display().to_string()))
}
