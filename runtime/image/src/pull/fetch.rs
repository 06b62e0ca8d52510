//! One request at a time: retried, continued, checked.

use super::options::{Progress, PullOptions};
use super::retry::Retry;
use crate::digest::Digest;
use crate::error::{ImageError, Result};
use crate::manifest;
use crate::registry::{Act, Failure, Reading, Registry, body};
use crate::store::{Scratch, Store, document_bytes};
use oci_client::Reference;
use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};
use sha2::{Digest as _, Sha256};
use std::io::{self, Read as _, Seek as _};

pub(super) struct Fetcher {
    store: Store,
    registry: Registry,
    retry: Retry,
}

/// A download that may break and go on.
struct Partial {
    file: Scratch,
    hasher: Sha256,
    done: u64,
    /// Bytes that an earlier pull left; nobody looked at them since.
    found: u64,
}

impl Fetcher {
    /// From the registry of a reference, or from a mirror of it.
    pub(super) async fn new(
        store: Store,
        reference: &Reference,
        mirror: Option<&str>,
        options: &PullOptions,
    ) -> Result<Self> {
        let registry = Registry::of(reference, mirror, options, Act::Pull).await?;
        Ok(Self { store, registry, retry: Retry::new(options) })
    }

    pub(super) fn report(&self, progress: &Progress) {
        self.retry.report(progress);
    }

    /// A manifest or index with the digest of its bytes, which is the reference's where that has one.
    pub(super) async fn manifest(&self, reference: &Reference) -> Result<(Digest, Vec<u8>)> {
        let what = reference.whole();
        let name = reference.digest().or(reference.tag()).unwrap_or("latest");
        let path = format!("manifests/{name}");
        let mut attempt = 0;
        let (bytes, claimed) = loop {
            match self.manifest_once(&path, &what).await {
                Ok(got) => break got,
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(passing)) => {
                    self.retry.pause(&self.registry, &what, &mut attempt, passing).await?;
                }
            }
        };
        let found = Digest::of(&bytes);
        let asked = reference.digest().and_then(|digest| digest.parse().ok());
        match asked.into_iter().chain(claimed).find(|expected| *expected != found) {
            Some(expected) => Err(ImageError::CorruptBlob { what: "manifest", expected, found }),
            None => Ok((found, bytes)),
        }
    }

    /// Its bytes, and the digest the registry says they have.
    async fn manifest_once(&self, path: &str, what: &str) -> Result<(Vec<u8>, Option<Digest>), Failure> {
        let response = self.registry.get(path, &manifest::MEDIA_TYPES.join(", "), None, what).await?;
        let claimed =
            response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok()?.parse().ok());
        let pace = self.registry.pace();
        Ok((body(response, pace, document_bytes("manifest"), manifest::MAX_BYTES).await?, claimed))
    }

    /// Brings a blob into the store, unless it is there, whole.
    pub(super) async fn blob(&self, what: &'static str, digest: Digest, size: u64) -> Result<()> {
        let store = self.store.clone();
        let here = tokio::task::spawn_blocking(move || store.holds_whole_blob(&digest, size)).await;
        if here.map_err(|error| ImageError::Client { reason: error.to_string() })? {
            self.report(&Progress::Present { layer: digest });
            return Ok(());
        }
        let store = self.store.clone();
        let begun = tokio::task::spawn_blocking(move || Partial::open(&store, digest, size)).await;
        let mut partial = begun.map_err(|error| ImageError::Client { reason: error.to_string() })??;
        loop {
            if let Err(error) = self.whole(what, digest, size, &mut partial).await {
                // Nobody can go on with the one, and the other is in the way of everybody.
                if matches!(error, ImageError::CorruptSize { .. } | ImageError::DiskFull { .. }) {
                    partial.file.stays(false);
                }
                return Err(error);
            }
            let found = Digest::finish(partial.hasher.clone());
            if found == digest {
                break;
            }
            // What an earlier pull left may have been damaged since: then all of it is asked for, once.
            if partial.found == 0 {
                partial.file.stays(false);
                return Err(ImageError::CorruptBlob { what, expected: digest, found });
            }
            partial.restart()?;
        }
        // A whole one without its name would be asked for anew.
        partial.file.stays(false);
        self.store.publish(partial.file, &self.store.blob_path(&digest))?;
        self.report(&Progress::Stored { layer: digest });
        Ok(())
    }

    /// Downloads what is missing of a blob, as often as it takes and may take.
    async fn whole(&self, what: &'static str, digest: Digest, size: u64, partial: &mut Partial) -> Result<()> {
        let (mut attempt, mut furthest) = (0, partial.done);
        loop {
            match self.download(what, digest, size, partial).await {
                Ok(()) => return Ok(()),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(passing)) => {
                    // What brought us further is no failure in a row, but for a few bytes nobody comes for ever.
                    if partial.done >= furthest.saturating_add(PROGRESS) {
                        (attempt, furthest) = (0, partial.done);
                    }
                    self.retry.pause(&self.registry, &digest.to_string(), &mut attempt, passing).await?;
                }
            }
        }
    }

    /// One request for the rest of a blob; afterwards all `size` bytes are there, whatever their digest.
    async fn download(
        &self,
        what: &'static str,
        digest: Digest,
        size: u64,
        partial: &mut Partial,
    ) -> Result<(), Failure> {
        // A connection lost right at the end leaves nothing to ask for.
        if partial.done == size {
            return Ok(());
        }
        let name = digest.to_string();
        let path = format!("blobs/{name}");
        let response = self.registry.get(&path, "*/*", Some(partial.done), &name).await?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            partial.restart()?;
        } else if begins_at(&response).is_some_and(|at| at != partial.done) {
            let (registry, reason) = (self.registry.name().to_owned(), "it sent another part than was asked for");
            return Err(ImageError::Protocol { registry, reason: reason.to_owned() }.into());
        }
        let wrong_size = |found| Failure::Final(ImageError::CorruptSize { what, digest, expected: size, found });
        let mut reading = Reading::of(response, self.registry.pace());
        while let Some(piece) = reading.piece().await? {
            let piece = piece.as_ref();
            let done = partial.done + piece.len() as u64;
            if done > size {
                return Err(wrong_size(done));
            }
            self.store.write(&mut partial.file, piece, size)?;
            partial.hasher.update(piece);
            partial.done = done;
            self.report(&Progress::Downloading { layer: digest, done, total: size });
        }
        if partial.done == size { Ok(()) } else { Err(wrong_size(partial.done)) }
    }
}

/// The first byte of a partial answer, where it says so: `bytes FIRST-LAST/ALL`.
fn begins_at(response: &Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

impl Partial {
    /// What an earlier pull left of a layer, hashed; or an empty file. It stays where this pull ends before its time, for the
    /// next one, unless somebody else is at it.
    fn open(store: &Store, digest: Digest, size: u64) -> Result<Self> {
        let empty = |file| Self { file, hasher: Sha256::new(), done: 0, found: 0 };
        if size < WORTH_KEEPING {
            return Ok(empty(store.scratch()?));
        }
        let Some(mut file) = store.partial(&digest)? else { return Ok(empty(store.scratch()?)) };
        let path = store.partial_path(&digest);
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        let mut done = 0;
        loop {
            let count = match file.as_file_mut().read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ImageError::io("read", &path)(error)),
            };
            hasher.update(&buffer[..count]);
            done += count as u64;
        }
        let mut partial = Self { file, hasher, done, found: done };
        if done >= size {
            partial.restart()?;
        }
        Ok(partial)
    }

    fn restart(&mut self) -> Result<()> {
        let failed = |error| ImageError::write(self.file.path(), 0, error);
        self.file.as_file().set_len(0).map_err(failed)?;
        self.file.as_file_mut().rewind().map_err(ImageError::io("rewind", self.file.path()))?;
        self.hasher = Sha256::new();
        (self.done, self.found) = (0, 0);
        Ok(())
    }
}

/// Bytes of a blob from which on it is worth keeping what came of it.
const WORTH_KEEPING: u64 = 1 << 20;
/// Bytes of a blob that count as having come further.
const PROGRESS: u64 = 1 << 20;
