//! One request at a time: retried, continued, checked.

use super::answer::{Failure, body};
use super::options::{Progress, ProgressFn, PullOptions};
use super::registry::Registry;
use crate::digest::Digest;
use crate::error::{ImageError, Result};
use crate::manifest;
use crate::store::{Store, document_bytes};
use coffer_rim::chain;
use oci_client::Reference;
use reqwest::StatusCode;
use sha2::{Digest as _, Sha256};
use std::io::Seek as _;
use std::time::Duration;
use tempfile::NamedTempFile;

pub(super) struct Fetcher {
    store: Store,
    registry: Registry,
    retries: u32,
    backoff: Duration,
    progress: Option<ProgressFn>,
}

/// A download that may break and go on.
struct Partial {
    file: NamedTempFile,
    hasher: Sha256,
    done: u64,
}

impl Fetcher {
    pub(super) fn new(store: Store, reference: &Reference, options: &PullOptions) -> Result<Self> {
        let registry = Registry::new(reference, options)?;
        let (retries, backoff, progress) = (options.retries, options.backoff, options.progress.clone());
        Ok(Self { store, registry, retries, backoff, progress })
    }

    pub(super) fn report(&self, progress: &Progress) {
        if let Some(callback) = &self.progress {
            callback(progress);
        }
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
                Err(Failure::Passing(reason)) => self.pause(&what, &mut attempt, reason).await?,
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
        Ok((body(response, document_bytes("manifest"), manifest::MAX_BYTES).await?, claimed))
    }

    /// Brings a blob into the store, unless it is there, whole.
    pub(super) async fn blob(&self, what: &'static str, digest: Digest, size: u64) -> Result<()> {
        let store = self.store.clone();
        let here = tokio::task::spawn_blocking(move || store.holds_whole_blob(&digest, size)).await;
        if here.map_err(|error| ImageError::Client { reason: error.to_string() })? {
            self.report(&Progress::Present { layer: digest });
            return Ok(());
        }
        let mut partial = Partial { file: self.store.scratch()?, hasher: Sha256::new(), done: 0 };
        let mut attempt = 0;
        loop {
            let before = partial.done;
            match self.download(what, digest, size, &mut partial).await {
                Ok(()) => break,
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(reason)) => {
                    // What brought us further is no failure in a row.
                    if partial.done > before {
                        attempt = 0;
                    }
                    self.pause(&digest.to_string(), &mut attempt, reason).await?;
                }
            }
        }
        let found = Digest::finish(partial.hasher);
        if found != digest {
            return Err(ImageError::CorruptBlob { what, expected: digest, found });
        }
        self.store.publish(partial.file, &self.store.blob_path(&digest))?;
        self.report(&Progress::Stored { layer: digest });
        Ok(())
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
        let mut response = self.registry.get(&path, "*/*", Some(partial.done), &name).await?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            partial.restart()?;
        }
        let wrong_size = |found| Failure::Final(ImageError::CorruptSize { what, digest, expected: size, found });
        while let Some(chunk) = response.chunk().await.map_err(|error| Failure::Passing(chain(&error)))? {
            let done = partial.done + chunk.len() as u64;
            if done > size {
                return Err(wrong_size(done));
            }
            self.store.write(&mut partial.file, &chunk, size)?;
            partial.hasher.update(&chunk);
            partial.done = done;
            self.report(&Progress::Downloading { layer: digest, done, total: size });
        }
        if partial.done == size { Ok(()) } else { Err(wrong_size(partial.done)) }
    }

    /// Waits before the next try, or gives up.
    async fn pause(&self, what: &str, attempt: &mut u32, reason: String) -> Result<()> {
        if *attempt >= self.retries {
            let registry = self.registry.name().to_owned();
            return Err(ImageError::Unreachable { registry, attempts: *attempt + 1, reason });
        }
        *attempt += 1;
        tracing::debug!(what, attempt = *attempt, reason, "retrying");
        let wait = self.backoff.saturating_mul(1 << (*attempt - 1).min(16)).min(Duration::from_secs(5));
        self.report(&Progress::Retrying { what: what.to_owned(), attempt: *attempt, reason });
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

impl Partial {
    fn restart(&mut self) -> Result<()> {
        let failed = |error| ImageError::write(self.file.path(), 0, error);
        self.file.as_file().set_len(0).map_err(failed)?;
        self.file.as_file_mut().rewind().map_err(ImageError::io("rewind", self.file.path()))?;
        self.hasher = Sha256::new();
        self.done = 0;
        Ok(())
    }
}
