//! The workload spec: what runs, who may talk to it, where its secrets come from; and its digest.
//!
//! A CoCo *initdata* document (TOML) whose `data."workload.toml"` member holds [`WorkloadSpec`]. The *workload digest* is
//! SHA-256 over the document's raw bytes; it stands in HOST_DATA and, exactly once, on the measured command line.
//!
//! ```
//! use coffer_spec::{Act, Document, MeasuredCommandLine, Tee, workload_argument};
//!
//! let text = r#"
//! version = "0.1.0"
//! algorithm = "sha256"
//! [data]
//! "workload.toml" = '''
//! version = 1
//! tenant = "default"
//! tee = "snp"
//! host_may = ["stop", "stats"]
//! [image]
//! reference = "registry.example/app:1"
//! config_digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
//! [root.verity]
//! algorithm = "sha256"
//! block_size = 4096
//! data_blocks = 8
//! hash_start = 8
//! salt = ""
//! root_hash = "0000000000000000000000000000000000000000000000000000000000000000"
//! [root.scratch]
//! kind = "tmpfs"
//! bytes = 134217728
//! [process]
//! argv = ["/bin/app"]
//! env = []
//! cwd = "/"
//! user = "0:0"
//! stop_signal = 15
//! hostname = "coffer"
//! '''
//! "#;
//! let document = Document::parse(text.as_bytes().to_vec())?;
//! assert!(document.spec().host_may.contains(Act::Stop) && !document.spec().host_may.contains(Act::Exec));
//!
//! // What the guest finds on its measured command line names these bytes and no others.
//! let line = MeasuredCommandLine::parse(&workload_argument(&document.digest(), Tee::Snp)).unwrap();
//! assert_eq!(line.workload, document.digest());
//!
//! let wider = text.replace("\"stats\"]", "\"stats\", \"unseal\"]");
//! let refused = Document::parse(wider.into_bytes()).unwrap_err();
//! assert!(refused.to_string().contains("the host cannot be given unseal"), "{refused}");
//! # Ok::<(), coffer_spec::SpecError>(())
//! ```
//! Trusts: nothing. A document is what it says only after its digest was checked against both.
//! Never: holds a secret value, accepts an unknown key or version, fills in what is absent with something weaker.
//! Source: docs/design/boot.md §3.1; Confidential Containers initdata 0.1.0.
#![forbid(unsafe_code)]

mod act;
mod card_rules;
mod check;
mod command_line;
mod data_volume;
mod digest;
mod document;
mod domain;
mod error;
mod ingress;
mod memory;
mod mode;
mod name;
mod network;
mod owner;
mod owner_list;
mod peer;
mod rights;
#[doc(hidden)]
pub mod sample;
mod scratch;
mod sealed_volume;
mod secret;
mod sysctl;
mod workload;

pub use act::{Act, ActError, Acts, Grantee, Host, HostMay, Listed, OwnerMay};
pub use card_rules::{CardProtocol, CardRule, CardRules, Neighbours, Ports};
pub use command_line::{CommandLineError, MeasuredCommandLine, TeeWord, workload_argument};
pub use data_volume::DataVolume;
pub use digest::{ConfigDigest, DigestError, ManifestDigest};
pub use document::Document;
pub use domain::{Domain, DomainError, ResolverOption};
pub use error::SpecError;
pub use ingress::{Ingress, IngressClients};
pub use mode::{FileMode, FolderMode, ModeError};
pub use name::{NAME_RULE, Name, NameError, PathError, SecretPath, Tenant};
pub use network::{HostEntry, Network};
pub use owner::Owner;
pub use owner_list::{AuthorityKey, OWNER_LIST_TYPE, OwnerAuthority, OwnerList, OwnerListError, SignedOwnerList};
pub use peer::{Guests, Measured, Peer, SignedLaunch};
pub use rights::{Capability, Resource, ResourceLimit, Rights, UnknownWord};
pub use scratch::Scratch;
pub use sealed_volume::{SealedVolume, Unclean, VolumePolicy};
pub use secret::{OnChange, SecretTarget, SecretWanted};
pub use sysctl::{Sysctl, SysctlError};
pub use workload::{
    COCO_PORT, Floors, Image, KbsPin, Mount, Process, Root, SealFloors, SvnFloor, Tee, VerityTable, Volume, VolumeKind,
    WorkloadSpec,
};
