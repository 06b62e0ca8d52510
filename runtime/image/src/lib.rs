//! OCI images: pulled, stored, merged and written as a read-only EROFS image with a dm-verity tree.
//!
//! Takes image references and the bytes registries answer with; gives an [`Image`] in a [`Store`] and a [`Rootfs`] a
//! guest can mount. Nothing is unpacked to the host's file system and no external program is run, so none of it needs
//! privileges: layers are merged in a virtual [`tree`], file data goes from the layer's tar stream through one spool file
//! into the image.
//!
//! Trusts: the digest in a reference, and through it every byte it names. Believes nothing else a registry says: sizes,
//! digests and the uncompressed digests of the configuration are all checked, tar entries are resolved inside the
//! virtual tree only. Whatever it says, memory and work are bounded: documents by their length before they are read, layers
//! by [`Limits`].
//! Never: reads the environment, follows a layer's foreign URLs, runs a program but the credential helpers that the caller's own
//! configuration of Docker names.
#![forbid(unsafe_code)]

pub mod digest;
pub mod error;

pub mod config;
mod manifest;
pub mod platform;
pub mod store;

mod admit;
pub mod archive;
pub mod history;

pub mod credentials;
pub mod login;
pub mod pull;
pub mod push;
mod registry;

mod ahead;
pub mod decompress;
mod holes;
pub mod layer;
pub mod tarball;
pub mod tree;

pub mod erofs;
pub mod verity;

mod limit;
pub mod rootfs;
pub mod snapshot;

pub use config::{Healthcheck, ImageConfig};
pub use digest::Digest;
pub use error::ImageError;
pub use history::HistoryStep;
pub use layer::{Dropped, Limits};
pub use manifest::LayerBlob;
pub use oci_client::Reference;
pub use platform::Platform;
pub use pull::{Pace, Progress, ProgressFn, PullOptions, Pulled};
pub use push::Pushed;
pub use rootfs::Rootfs;
pub use snapshot::{Snapshot, SnapshotKind};
pub use store::familiar;
pub use store::{Collector, Damaged, Freed, Hold, Image, Listing, Removed, Store};
pub use verity::VerityTable;
