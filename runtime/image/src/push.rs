//! Pushing an image: what the registry lacks of its layers and configuration, then its manifest, byte for byte.
//!
//! The manifest goes last, so that a tag never leads to an image that is not whole. Each blob is hashed before it is sent:
//! what was damaged on this disk is found here. Trusts: nothing the registry says but that it has what it says it has.
//! Source: OCI Distribution Specification 1.1, "Push".

use crate::digest::Digest;
use crate::error::{ImageError, Result};
use crate::manifest;
use crate::pull::options::{Progress, PullOptions};
use crate::pull::retry::Retry;
use crate::registry::{Act, Failure, Registry};
use crate::store::{Store, parse_reference};
use futures_util::stream;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use reqwest::{Body, Method, Response};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// What [`Store::push`] sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Canonical reference that leads to the image at the registry.
    pub reference: String,
    /// Digest of the manifest.
    pub digest: Digest,
    /// Bytes of the manifest.
    pub size: u64,
    /// Bytes of layers and configuration that the registry did not have.
    pub sent: u64,
}

impl Store {
    /// Sends an image to the registry of the name that it has here. Of an image for several platforms that is the one that is
    /// here.
    ///
    /// # Errors
    /// As [`Store::pull`]; class `usage` for what is no name with a tag. The tag leads where it led before, unless the last
    /// answer alone was lost.
    pub async fn push(&self, name: &str, options: &PullOptions) -> Result<Pushed> {
        let _in_use = self.use_lock()?;
        let reference = parse_reference(name)?;
        let Some(tag) = reference.tag().filter(|_| reference.digest().is_none()) else {
            let reason = "an image is pushed under a tag, which a digest is not".to_owned();
            return Err(ImageError::InvalidReference { reference: name.to_owned(), reason });
        };
        let absent = |error| match error {
            ImageError::NotStored { .. } => ImageError::NotStored { name: name.to_owned() },
            other => other,
        };
        let image = self.resolve(&reference.whole()).map_err(absent)?;
        let document = self.read_blob("manifest", &image.manifest_digest, manifest::MAX_BYTES)?;
        let registry = Registry::of(&reference, None, options, Act::Push).await?;
        let retry = Retry::new(options);
        let sender = Arc::new(Sender { store: self.clone(), registry, retry });

        let mut blobs: Vec<_> = image.layers.iter().map(|layer| ("layer", layer.digest, layer.size)).collect();
        let config = self.read_blob("configuration", &image.config_digest, crate::config::MAX_BYTES)?;
        blobs.push(("configuration", image.config_digest, config.len() as u64));
        blobs.sort_unstable();
        blobs.dedup();
        let permits = Arc::new(Semaphore::new(options.parallel.max(1)));
        // Dropping the set, on the first failure or with this future, ends the others.
        let mut tasks = JoinSet::new();
        for (what, digest, size) in blobs {
            let (sender, permits) = (Arc::clone(&sender), Arc::clone(&permits));
            tasks.spawn(async move {
                let _permit = permits.acquire_owned().await;
                sender.blob(what, digest, size).await
            });
        }
        let mut sent = 0_u64;
        while let Some(done) = tasks.join_next().await {
            sent += done.map_err(|error| ImageError::Client { reason: error.to_string() })??;
        }
        sender.manifest(tag, &image.media_type, image.manifest_digest, &document).await?;
        let (digest, size) = (image.manifest_digest, document.len() as u64);
        Ok(Pushed { reference: reference.whole(), digest, size, sent })
    }
}

struct Sender {
    store: Store,
    registry: Registry,
    retry: Retry,
}

impl Sender {
    /// Sends a blob unless it is there; gives the bytes that were sent.
    async fn blob(&self, what: &'static str, digest: Digest, size: u64) -> Result<u64> {
        let store = self.store.clone();
        let whole = tokio::task::spawn_blocking(move || store.holds_whole_blob(&digest, size)).await;
        if !whole.map_err(|error| ImageError::Client { reason: error.to_string() })? {
            return Err(ImageError::MissingBlob { what, digest });
        }
        let mut attempt = 0;
        let present = loop {
            match self.blob_once(digest, size).await {
                Ok(present) => break present,
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(passing)) => {
                    self.retry.pause(&self.registry, &digest.to_string(), &mut attempt, passing).await?;
                }
            }
        };
        self.retry.report(&Progress::Sent { blob: digest, present });
        Ok(if present { 0 } else { size })
    }

    /// Whether it was there.
    async fn blob_once(&self, digest: Digest, size: u64) -> Result<bool, Failure> {
        let name = digest.to_string();
        let there = self.registry.address(&format!("blobs/{name}"))?;
        match self.registry.ask(Method::HEAD, &there, &name, |request| request).await {
            Ok(_) => return Ok(true),
            Err(Failure::Final(ImageError::NotFound { .. })) => {}
            Err(other) => return Err(other),
        }
        let begin = self.registry.address("blobs/uploads/")?;
        let begun = self.registry.ask(Method::POST, &begin, &name, |request| request.header(CONTENT_LENGTH, 0)).await?;
        let mut to = self.location(&begun)?;
        to.query_pairs_mut().append_pair("digest", &name);
        let (path, gone) = (self.store.blob_path(&digest), Arc::new(AtomicU64::new(0)));
        let sending = self.registry.ask(Method::PUT, &to, &name, |request| {
            let request = request.header(CONTENT_TYPE, "application/octet-stream").header(CONTENT_LENGTH, size);
            request.body(body(path.clone(), Arc::clone(&gone)))
        });
        moving(sending, &gone, STALLED).await?;
        Ok(false)
    }

    /// Where the registry wants the bytes.
    fn location(&self, answer: &Response) -> Result<reqwest::Url, Failure> {
        let said = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let reason = || "it takes an upload and does not say where".to_owned();
        let said = said.ok_or_else(|| {
            Failure::Final(ImageError::Protocol { registry: self.registry.name().to_owned(), reason: reason() })
        })?;
        self.registry.address(said)
    }

    async fn manifest(&self, tag: &str, kind: &str, digest: Digest, document: &[u8]) -> Result<()> {
        let mut attempt = 0;
        loop {
            let put = async {
                let to = self.registry.address(&format!("manifests/{tag}"))?;
                let dress =
                    |request: reqwest::RequestBuilder| request.header(CONTENT_TYPE, kind).body(document.to_vec());
                moving(self.registry.ask(Method::PUT, &to, tag, dress), &AtomicU64::new(0), STALLED).await
            };
            match put.await {
                Ok(answer) => {
                    let said = answer.headers().get("docker-content-digest");
                    let said = said.and_then(|value| value.to_str().ok()?.parse::<Digest>().ok());
                    return match said.filter(|said| *said != digest) {
                        Some(found) => Err(ImageError::CorruptBlob { what: "manifest", expected: digest, found }),
                        None => Ok(()),
                    };
                }
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(passing)) => self.retry.pause(&self.registry, tag, &mut attempt, passing).await?,
            }
        }
    }
}

/// A file as the body of a request. `gone`: counts what was taken of it.
fn body(path: PathBuf, gone: Arc<AtomicU64>) -> Body {
    Body::wrap_stream(stream::try_unfold((path, None, gone), |(path, file, gone)| async move {
        let mut file = match file {
            Some(file) => file,
            None => tokio::fs::File::open(&path).await?,
        };
        let mut bytes = vec![0; 256 << 10];
        let count = file.read(&mut bytes).await?;
        bytes.truncate(count);
        gone.fetch_add(count as u64, Ordering::Relaxed);
        Ok::<_, io::Error>((count > 0).then_some((bytes, (path, Some(file), gone))))
    }))
}

/// A request for as long as it moves: one whose body nobody takes, or that nobody answers, is given up.
async fn moving<T>(
    request: impl Future<Output = Result<T, Failure>>,
    gone: &AtomicU64,
    stalled: Duration,
) -> Result<T, Failure> {
    let mut request = std::pin::pin!(request);
    let mut before = gone.load(Ordering::Relaxed);
    loop {
        if let Ok(ended) = tokio::time::timeout(stalled, &mut request).await {
            return ended;
        }
        let now = gone.load(Ordering::Relaxed);
        if now == before {
            let reason = format!("nothing was taken and nothing answered for {} s", stalled.as_secs());
            return Err(Failure::passing(reason));
        }
        before = now;
    }
}

/// How long a registry may neither take bytes nor answer: some write a whole layer somewhere before they do.
const STALLED: Duration = Duration::from_mins(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_that_does_not_move_is_given_up_and_one_that_does_is_not() {
        let (gone, instant) = (AtomicU64::new(0), Duration::from_millis(1));
        let never = moving(std::future::pending::<Result<(), Failure>>(), &gone, instant).await;
        assert!(matches!(never, Err(Failure::Passing(_))));
        // It is looked at once each time, and then has taken something.
        let slow = std::future::poll_fn(|_| {
            let taken = gone.fetch_add(1, Ordering::Relaxed);
            if taken < 10 { std::task::Poll::Pending } else { std::task::Poll::Ready(Ok(7)) }
        });
        assert!(matches!(moving(slow, &gone, instant).await, Ok(7)));
    }
}
