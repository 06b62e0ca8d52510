//! One request at a time: retried, continued, checked.

use super::{Progress, ProgressFn, PullOptions};
use crate::credentials;
use crate::digest::Digest;
use crate::error::{ImageError, Result, chain};
use crate::store::Store;
use futures_util::StreamExt as _;
use oci_client::Reference;
use oci_client::client::{BlobResponse, Client};
use oci_client::errors::{DigestError, OciDistributionError, OciErrorCode};
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE,
};
use oci_client::secrets::RegistryAuth;
use sha2::{Digest as _, Sha256};
use std::io::{Seek as _, Write as _};
use std::time::Duration;
use tempfile::NamedTempFile;

pub(super) struct Fetcher {
    store: Store,
    client: Client,
    reference: Reference,
    auth: RegistryAuth,
    retries: u32,
    backoff: Duration,
    progress: Option<ProgressFn>,
}

/// A request that failed: for good, or perhaps not the next time.
enum Failure {
    Final(ImageError),
    Passing(String),
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        Self::Final(error)
    }
}

/// A download that may break and go on.
struct Partial {
    file: NamedTempFile,
    hasher: Sha256,
    done: u64,
}

impl Fetcher {
    pub(super) fn new(store: Store, client: Client, reference: Reference, options: &PullOptions) -> Result<Self> {
        let auth = credentials::lookup(options.docker_config.as_deref(), reference.registry())?;
        let (retries, backoff, progress) = (options.retries, options.backoff, options.progress.clone());
        Ok(Self { store, client, reference, auth, retries, backoff, progress })
    }

    pub(super) fn report(&self, progress: &Progress) {
        if let Some(callback) = &self.progress {
            callback(progress);
        }
    }

    /// A manifest or index with the digest of its bytes, which is the reference's where that has one.
    pub(super) async fn manifest(&self, reference: &Reference) -> Result<(Digest, Vec<u8>)> {
        const ACCEPTED: &[&str] = &[
            OCI_IMAGE_MEDIA_TYPE,
            OCI_IMAGE_INDEX_MEDIA_TYPE,
            IMAGE_MANIFEST_MEDIA_TYPE,
            IMAGE_MANIFEST_LIST_MEDIA_TYPE,
        ];
        let what = reference.whole();
        let mut attempt = 0;
        let bytes = loop {
            match self.client.pull_manifest_raw(reference, &self.auth, ACCEPTED).await {
                Ok((bytes, _)) => break bytes,
                Err(error) => match self.judge("manifest", &what, error) {
                    Failure::Final(error) => return Err(error),
                    Failure::Passing(reason) => self.pause(&what, &mut attempt, reason).await?,
                },
            }
        };
        let found = Digest::of(&bytes);
        if let Some(expected) = reference.digest().and_then(|digest| digest.parse().ok())
            && expected != found
        {
            return Err(ImageError::CorruptBlob { what: "manifest", expected, found });
        }
        Ok((found, bytes.to_vec()))
    }

    /// Brings a blob into the store, unless it is there.
    pub(super) async fn blob(&self, what: &'static str, digest: Digest, size: u64) -> Result<()> {
        if self.store.has_blob(&digest, size) {
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
        // A descriptor without `urls`: foreign addresses in a manifest are never followed.
        let response = self.client.pull_blob_stream_partial(&self.reference, name.as_str(), partial.done, None).await;
        let mut stream = match response {
            Ok(BlobResponse::Partial(stream)) => stream,
            Ok(BlobResponse::Full(stream)) => {
                partial.restart()?;
                stream
            }
            Err(error) => return Err(self.judge(what, &name, error)),
        };
        let wrong_size = |found| Failure::Final(ImageError::CorruptSize { what, digest, expected: size, found });
        while let Some(chunk) = stream.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                // The client checks whole answers too; by then all bytes are here and our own check names both digests.
                Err(error) if is_digest_error(&error) => break,
                Err(error) => return Err(Failure::Passing(chain(&error))),
            };
            let done = partial.done + chunk.len() as u64;
            if done > size {
                return Err(wrong_size(done));
            }
            partial.file.write_all(&chunk).map_err(|error| ImageError::write(partial.file.path(), size, error))?;
            partial.hasher.update(&chunk);
            partial.done = done;
            self.report(&Progress::Downloading { layer: digest, done, total: size });
        }
        if partial.done == size { Ok(()) } else { Err(wrong_size(partial.done)) }
    }

    /// Waits before the next try, or gives up.
    async fn pause(&self, what: &str, attempt: &mut u32, reason: String) -> Result<()> {
        if *attempt >= self.retries {
            let registry = self.reference.registry().to_owned();
            return Err(ImageError::Unreachable { registry, attempts: *attempt + 1, reason });
        }
        *attempt += 1;
        tracing::debug!(what, attempt = *attempt, reason, "retrying");
        let wait = self.backoff.saturating_mul(1 << (*attempt - 1).min(16)).min(Duration::from_secs(5));
        self.report(&Progress::Retrying { what: what.to_owned(), attempt: *attempt, reason });
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Sorts a client error.
    fn judge(&self, kind: &'static str, what: &str, error: OciDistributionError) -> Failure {
        use OciDistributionError as E;
        let registry = || self.reference.registry().to_owned();
        let not_found = |detail: String| {
            Failure::Final(ImageError::NotFound { registry: registry(), what: what.to_owned(), detail })
        };
        let unauthorized = || Failure::Final(ImageError::Unauthorized { registry: registry(), what: what.to_owned() });
        let protocol = |reason: String| Failure::Final(ImageError::Protocol { registry: registry(), reason });
        match error {
            E::RequestError(error) if error.is_builder() || error.is_redirect() => protocol(chain(&error)),
            E::RequestError(error) => Failure::Passing(chain(&error)),
            E::IoError(error) => Failure::Passing(chain(&error)),
            E::ServerError { code, .. } if code == 429 || code >= 500 => {
                Failure::Passing(format!("it answered with status {code}"))
            }
            E::ServerError { code: 404, .. } => not_found("status 404".to_owned()),
            E::ServerError { code: 401 | 403, .. } | E::UnauthorizedError { .. } | E::AuthenticationFailure(_) => {
                unauthorized()
            }
            E::ServerError { code, .. } => protocol(format!("status {code}")),
            E::ImageManifestNotFoundError(detail) => not_found(detail),
            E::RegistryError { envelope, .. } => {
                let codes: Vec<_> = envelope.errors.iter().map(|error| &error.code).collect();
                let text = envelope.errors.iter().map(|error| error.message.as_str()).collect::<Vec<_>>().join("; ");
                if codes.contains(&&OciErrorCode::Toomanyrequests) {
                    Failure::Passing(format!("it asks for fewer requests: {text}"))
                } else if codes.iter().any(|code| matches!(code, OciErrorCode::Unauthorized | OciErrorCode::Denied)) {
                    unauthorized()
                } else if codes.iter().any(|code| {
                    use OciErrorCode as C;
                    matches!(code, C::ManifestUnknown | C::NameUnknown | C::BlobUnknown | C::NotFound)
                }) {
                    not_found(text)
                } else {
                    protocol(text)
                }
            }
            E::DigestError(DigestError::VerificationError { expected, actual }) => {
                match (expected.parse(), actual.parse()) {
                    (Ok(expected), Ok(found)) => {
                        Failure::Final(ImageError::CorruptBlob { what: kind, expected, found })
                    }
                    _ => protocol(format!("digest {actual}, expected {expected}")),
                }
            }
            other => protocol(chain(&other)),
        }
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

fn is_digest_error(error: &std::io::Error) -> bool {
    error.get_ref().and_then(|inner| inner.downcast_ref::<DigestError>()).is_some()
}
