//! Why an image operation failed: what, found, expected, and what to do about it.
//!
//! Fields hold what a registry, an image or a folder said as it was said; the text of an error has it escaped.

use crate::credentials::error::HelperError;
use crate::digest::Digest;
use crate::tarball::TarError;
use crate::tree::TreeError;
use coffer_rim::Foreign;
use coffer_rim::foreign::foreign_at_most;
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Result of an image operation.
pub type Result<T, E = ImageError> = std::result::Result<T, E>;

/// Why an image could not be pulled, found, stored or turned into a root file system.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The text is no image reference.
    #[error("\"{}\" is not an image reference: {}", Short(reference), Short(reason))]
    InvalidReference {
        /// As typed.
        reference: String,
        /// What the grammar objects to.
        reason: String,
    },
    /// The store holds no such image.
    #[error("no such image in the local store: {}", Short(name))]
    NotStored {
        /// As typed.
        name: String,
    },
    /// A digest prefix names several images.
    #[error("\"{}\" names {count} images", Short(prefix))]
    Ambiguous {
        /// As typed.
        prefix: String,
        /// How many images it names.
        count: usize,
    },
    /// The registry does not know the image, or will not say so to us.
    #[error("{} has no {}: {}", Short(registry), Short(what), Short(detail))]
    NotFound {
        /// Registry address.
        registry: String,
        /// Image reference or blob digest asked for.
        what: String,
        /// The registry's words.
        detail: String,
    },
    /// The registry wants credentials, or other ones.
    #[error("{} refuses access to {}", Short(registry), Short(what))]
    Unauthorized {
        /// Registry address.
        registry: String,
        /// Image reference or blob digest asked for.
        what: String,
    },
    /// The registry could not be reached, or kept failing.
    #[error("{} cannot be reached after {attempts} attempts: {}", Short(registry), Short(reason))]
    Unreachable {
        /// Registry address.
        registry: String,
        /// Requests made, the first included.
        attempts: u32,
        /// The last failure, with its causes.
        reason: String,
    },
    /// The registry limits requests (429), and wants fewer, or to be left alone for longer than anybody waits here.
    #[error("{} limits requests (429), {attempts} were made: {}{}", Short(registry), Short(reason), rest(*after))]
    TooManyRequests {
        /// Registry address.
        registry: String,
        /// Requests made, the first included.
        attempts: u32,
        /// Its words.
        reason: String,
        /// Seconds that it asks to be left alone for (`Retry-After`).
        after: Option<u64>,
    },
    /// The registry answered something the protocol does not allow.
    #[error("{} answered against the distribution protocol: {}", Short(registry), Short(reason))]
    Protocol {
        /// Registry address.
        registry: String,
        /// What was wrong.
        reason: String,
    },
    /// The image is not built for this guest.
    #[error("{} has no {wanted} image, only {}", Short(reference), Short(available))]
    Platform {
        /// Image reference.
        reference: String,
        /// Platform wanted.
        wanted: String,
        /// Platforms it has.
        available: String,
    },
    /// Bytes do not have the digest they are named by.
    #[error("{what} {expected} is corrupt: its bytes have digest {found}")]
    CorruptBlob {
        /// `layer`, `manifest` or `configuration`.
        what: &'static str,
        /// Digest it is named by.
        expected: Digest,
        /// Digest of the bytes.
        found: Digest,
    },
    /// A blob is longer or shorter than its manifest says.
    #[error("{what} {digest} is corrupt: {found} bytes, its manifest says {expected}")]
    CorruptSize {
        /// `layer`, `manifest` or `configuration`.
        what: &'static str,
        /// Digest it is named by.
        digest: Digest,
        /// Bytes in the manifest.
        expected: u64,
        /// Bytes received; the download stops at the first one too many.
        found: u64,
    },
    /// A layer unpacks to something other than the configuration says.
    #[error("layer {layer} is corrupt: it unpacks to {found}, the image configuration says {expected}")]
    CorruptDiffId {
        /// Digest of the compressed layer.
        layer: Digest,
        /// `rootfs.diff_ids` entry.
        expected: Digest,
        /// Digest of the unpacked tar stream.
        found: Digest,
    },
    /// A manifest, index or configuration cannot be read.
    #[error("{what} {digest} cannot be read: {}", Short(reason))]
    Malformed {
        /// `manifest`, `index` or `configuration`.
        what: &'static str,
        /// Digest of the document.
        digest: Digest,
        /// What the reader objects to.
        reason: String,
    },
    /// A layer's compression is damaged.
    #[error("layer {layer} is corrupt: cannot decompress it: {source}")]
    Decompress {
        /// Digest of the compressed layer.
        layer: Digest,
        /// The decompressor's error.
        source: io::Error,
    },
    /// A layer's tar stream cannot be read.
    #[error("layer {layer} is corrupt: {source}")]
    Tar {
        /// Digest of the compressed layer.
        layer: Digest,
        /// What is wrong with it.
        #[source]
        source: TarError,
    },
    /// A layer's entry cannot be placed in the tree.
    #[error("layer {layer}: {source}")]
    Tree {
        /// Digest of the compressed layer.
        layer: Digest,
        /// What is wrong with it.
        #[source]
        source: TreeError,
    },
    /// A registry or an image wants more than the limits allow; refused before it is taken.
    #[error("image exceeds the limit of {limit} {what}")]
    TooLarge {
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// More names lead to images than the index may have.
    #[error("the local store has no room for another name: its index would be longer than {limit} bytes")]
    Names {
        /// Longest index.
        limit: u64,
    },
    /// A host file or folder cannot become a snapshot.
    #[error("cannot make a snapshot of {}: {}", Foreign(&text(path)), Short(reason))]
    Snapshot {
        /// What is in the way.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file or folder that is no image, or no whole one.
    #[error("cannot take an image from {}: {}", Foreign(&text(path)), Short(reason))]
    Archive {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// What an imported image is to run cannot be read.
    #[error(transparent)]
    Change(crate::archive::ChangeError),
    /// The store lost a blob.
    #[error("{what} {digest} is missing from the local store")]
    MissingBlob {
        /// `layer`, `manifest` or `configuration`.
        what: &'static str,
        /// Digest it is named by.
        digest: Digest,
    },
    /// A blob in the store changed on the disk.
    #[error("{what} {expected} in the local store is corrupt: its bytes have digest {found}")]
    DamagedBlob {
        /// `layer`, `manifest` or `configuration`.
        what: &'static str,
        /// Digest it is named by.
        expected: Digest,
        /// Digest of the bytes.
        found: Digest,
    },
    /// No space, quota or file size left.
    #[error("disk full: cannot write {bytes} bytes to {}: {source}", Foreign(&text(path)))]
    DiskFull {
        /// File or folder being written.
        path: PathBuf,
        /// Bytes the write needed.
        bytes: u64,
        /// The system's error.
        source: io::Error,
    },
    /// Any other failure of the file system.
    #[error("cannot {action} {}: {source}", Foreign(&text(path)))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A document of the store cannot be read.
    #[error("{} is damaged: {}", Foreign(&text(path)), Short(reason))]
    Store {
        /// The document.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Credentials cannot be read.
    #[error("cannot use the credentials in {}: {}", Foreign(&text(path)), Short(reason))]
    Credentials {
        /// The Docker configuration file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A program that keeps logins gives none, or keeps none.
    #[error(transparent)]
    Helper(#[from] HelperError),
    /// The HTTP client could not be set up.
    #[error("cannot set up the registry client: {}", Short(reason))]
    Client {
        /// The client's error, with its causes.
        reason: String,
    },
}

impl ImageError {
    /// Stable kebab-case word for the kind of failure.
    ///
    /// One of `usage`, `not-found`, `unauthorized`, `unreachable`, `too-many-requests`, `registry`, `platform`, `corrupt`, `too-large`,
    /// `snapshot`, `disk-full`, `config`, `io`.
    pub fn class(&self) -> &'static str {
        match self {
            Self::InvalidReference { .. } | Self::Ambiguous { .. } | Self::Change(_) => "usage",
            Self::NotStored { .. } | Self::NotFound { .. } => "not-found",
            Self::Unauthorized { .. } => "unauthorized",
            Self::Unreachable { .. } => "unreachable",
            Self::TooManyRequests { .. } => "too-many-requests",
            Self::Protocol { .. } => "registry",
            Self::Platform { .. } => "platform",
            Self::CorruptBlob { .. }
            | Self::CorruptSize { .. }
            | Self::CorruptDiffId { .. }
            | Self::Malformed { .. }
            | Self::Decompress { .. }
            | Self::Tar { .. }
            | Self::Tree { .. }
            | Self::Archive { .. }
            | Self::MissingBlob { .. }
            | Self::DamagedBlob { .. } => "corrupt",
            Self::TooLarge { .. } | Self::Names { .. } => "too-large",
            Self::Snapshot { .. } => "snapshot",
            Self::DiskFull { .. } => "disk-full",
            Self::Credentials { .. } | Self::Helper(_) | Self::Client { .. } => "config",
            Self::Io { .. } | Self::Store { .. } => "io",
        }
    }

    /// What the operator can do about it, in one line.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::InvalidReference { .. } => "write [REGISTRY[:PORT]/]NAME[:TAG][@sha256:DIGEST]".to_owned(),
            Self::NotStored { name } => format!("pull it first: coffer pull {}", Short(name)),
            Self::Ambiguous { .. } => "give more digits of the digest".to_owned(),
            Self::NotFound { .. } => {
                "check the name and tag; for a private image, put its credentials into the Docker configuration file"
                    .to_owned()
            }
            Self::Unauthorized { registry, .. } => {
                format!(
                    "put credentials for {} into \"auths\" of the Docker configuration file (`coffer login` does)",
                    Short(registry)
                )
            }
            Self::Unreachable { registry, .. } => {
                format!(
                    "check that {} is up; plain http is spoken to loopback and listed insecure registries only",
                    Short(registry)
                )
            }
            Self::TooManyRequests { after, .. } => match after {
                Some(after) => format!("try again in {after} s; some registries allow more to who is logged in"),
                None => "try again later; some registries allow more to who is logged in".to_owned(),
            },
            Self::Platform { .. } => "choose an image built for linux/amd64".to_owned(),
            Self::CorruptBlob { .. } | Self::CorruptSize { .. } => {
                "the registry or a proxy in between serves damaged bytes; push the image again".to_owned()
            }
            Self::CorruptDiffId { .. } | Self::Malformed { .. } | Self::Decompress { .. } | Self::Tar { .. } => {
                "the image was built or stored damaged; build and push it again".to_owned()
            }
            Self::MissingBlob { .. } | Self::DamagedBlob { .. } => "pull the image again".to_owned(),
            Self::DiskFull { path, .. } => format!("free space on the file system of {}", Foreign(&text(path))),
            Self::TooLarge { .. } => "use a smaller image".to_owned(),
            Self::Names { .. } => "remove names that nobody needs: coffer rmi NAME".to_owned(),
            Self::Snapshot { .. } => "a snapshot holds plain files, folders and symbolic links".to_owned(),
            Self::Credentials { path, .. } => format!("repair {} (`coffer login` writes it)", Foreign(&text(path))),
            Self::Helper(error) => error.hint(),
            Self::Client { .. } => "install the system's root certificates (Debian: ca-certificates)".to_owned(),
            Self::Store { path, .. } => format!("remove {} and pull the images again", Foreign(&text(path))),
            Self::Change(_) => "write it as in a Dockerfile: CMD [\"sh\"], ENV NAME=value".to_owned(),
            Self::Protocol { .. } | Self::Tree { .. } | Self::Io { .. } | Self::Archive { .. } => return None,
        })
    }

    /// An error of the file system, as disk full where it is that. `bytes`: what the failed write needed.
    pub(crate) fn write(path: &Path, bytes: u64, source: io::Error) -> Self {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        if matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge) {
            Self::DiskFull { path: path.to_owned(), bytes, source }
        } else {
            Self::Io { action: "write", path: path.to_owned(), source }
        }
    }

    /// An error of the file system, with what was tried.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            let failed = Self::write(path, 0, source);
            match failed {
                Self::Io { path, source, .. } => Self::Io { action, path, source },
                full => full,
            }
        }
    }
}

/// What a registry asked for, behind its words.
fn rest(after: Option<u64>) -> String {
    after.map(|seconds| format!("; it asks to be left alone for {seconds} s")).unwrap_or_default()
}

/// Foreign text of any length, escaped and cut where a message would be all of it.
struct Short<'a>(&'a str);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&foreign_at_most(self.0, MAX_SHOWN))
    }
}

/// Characters of foreign text in a message.
const MAX_SHOWN: usize = 500;

/// A path as text, for [`Foreign`]: names in a folder are not all ours.
fn text(path: &Path) -> Cow<'_, str> {
    path.to_string_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_of_a_registry_an_image_or_a_folder_reaches_a_terminal_raw() {
        let bad = || "a\u{1b}]0;x\u{7}\r\nhint: b\u{202e}".to_owned();
        let digest = Digest::of(b"");
        let tree = |source| ImageError::Tree { layer: digest, source };
        let tar = |source| ImageError::Tar { layer: digest, source };
        let all = [
            ImageError::InvalidReference { reference: bad(), reason: bad() },
            ImageError::NotStored { name: bad() },
            ImageError::Ambiguous { prefix: bad(), count: 2 },
            ImageError::NotFound { registry: bad(), what: bad(), detail: bad() },
            ImageError::Unauthorized { registry: bad(), what: bad() },
            ImageError::Unreachable { registry: bad(), attempts: 1, reason: bad() },
            ImageError::Protocol { registry: bad(), reason: bad() },
            ImageError::TooManyRequests { registry: bad(), attempts: 1, reason: bad(), after: Some(1) },
            ImageError::Platform { reference: bad(), wanted: "linux/amd64".to_owned(), available: bad() },
            ImageError::Malformed { what: "index", digest, reason: bad() },
            ImageError::Snapshot { path: bad().into(), reason: bad() },
            ImageError::DiskFull { path: bad().into(), bytes: 1, source: io::ErrorKind::StorageFull.into() },
            ImageError::Io { action: "read", path: bad().into(), source: io::ErrorKind::NotFound.into() },
            ImageError::Store { path: bad().into(), reason: bad() },
            ImageError::Credentials { path: bad().into(), reason: bad() },
            HelperError::Name { found: bad() }.into(),
            HelperError::Start { helper: bad(), source: io::ErrorKind::NotFound.into() }.into(),
            HelperError::Slow { helper: bad(), act: "get", seconds: 1 }.into(),
            ImageError::Client { reason: bad() },
            ImageError::Archive { path: bad().into(), reason: bad() },
            ImageError::Change(crate::archive::ChangeError { found: bad() }),
            tree(TreeError::Work { limit: 1 }),
            tree(TreeError::Traversal { path: bad() }),
            tree(TreeError::Name { path: bad() }),
            tree(TreeError::NotADirectory { path: bad() }),
            tree(TreeError::TooManyLinks { path: bad() }),
            tree(TreeError::TooDeep { path: bad() }),
            tree(TreeError::LinkTarget { path: bad(), target: bad() }),
            tree(TreeError::SymlinkTarget { path: bad(), length: 0 }),
            tar(TarError::Field { path: bad(), field: "size" }),
            tar(TarError::Unsupported { path: bad(), found: '\u{1b}' }),
        ];
        for error in all {
            for text in [coffer_rim::chain(&error), error.hint().unwrap_or_default()] {
                assert_eq!(coffer_rim::foreign(&text), text, "{error:?}");
            }
        }
        let text = crate::digest::DigestError { found: bad() }.to_string();
        assert_eq!(coffer_rim::foreign(&text), text);
    }

    #[test]
    fn no_word_of_a_registry_or_an_image_fills_a_screen() {
        let long = || "x".repeat(1 << 20);
        let digest = Digest::of(b"");
        let all = [
            ImageError::InvalidReference { reference: long(), reason: long() },
            ImageError::NotStored { name: long() },
            ImageError::Ambiguous { prefix: long(), count: 2 },
            ImageError::NotFound { registry: long(), what: long(), detail: long() },
            ImageError::Unauthorized { registry: long(), what: long() },
            ImageError::Unreachable { registry: long(), attempts: 1, reason: long() },
            ImageError::Protocol { registry: long(), reason: long() },
            ImageError::Platform { reference: long(), wanted: "linux/amd64".to_owned(), available: long() },
            ImageError::Malformed { what: "index", digest, reason: long() },
            ImageError::Store { path: "index.json".into(), reason: long() },
            ImageError::Client { reason: long() },
        ];
        for error in all {
            for text in [coffer_rim::chain(&error), error.hint().unwrap_or_default()] {
                assert!(text.len() < 2000, "{} bytes of {}", text.len(), &text[..100]);
            }
        }
    }
}
