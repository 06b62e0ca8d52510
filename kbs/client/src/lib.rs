//! The key broker seen from outside: its protocols, the guest's [`BrokerClient`] and the operator's [`AdminClient`].
//!
//! Trusts: the broker behind a pinned key, for the values it releases. Believes nothing of who carries the bytes.
//! Never: dials for the guest (a stream comes in, the caller chooses the road), logs a value, follows a redirect.
//! Source: docs/design/protocol.md §4, docs/design/broker.md §6.
#![forbid(unsafe_code)]

mod admin;
mod admins;
mod audit;
mod broker;
mod crls;
mod error;
mod listed;
mod policies;
mod profile;
mod revocations;
mod sealing;
mod secrets;
mod terms;
pub mod trail;
mod trust;
mod volume;

pub use admin::{AdminClient, Reference};
pub use admins::{Grant, Operator};
pub use audit::{Archived, AuditFound, AuditPage, AuditQuery, DecisionInput};
pub use broker::{
    BrokerClient, GENERATION, GET_SEALING_KEY, GET_SECRET, Generation, Meter, SealingKey, Secret, secret_aad,
};
pub use coffer_spec::{PathError, SecretPath as ResourcePath};
pub use crls::{CrlInfo, PutCrl, SeenCrl};
pub use error::{ClientError, ROLES_ENOUGH, ROLES_HELD};
pub use listed::Listed;
pub use policies::{Policies, PolicyInfo, PutPolicy};
pub use profile::{AdminProfile, ProfileError};
pub use sealing::{Scope, SealingName, SealingPolicy, SealingWordError};
pub use secrets::{
    Expected, Labels, PutSecret, SecretInfo, SecretMeta, SecretUpdate, SecretVersion, Stated, Stored, Updated,
};
pub use terms::{CertificateProfile, CertificateProfiles, SealedVolume, SealingContext, describe_rules};
pub use trust::{ManifestInfo, ManifestKey, RevokedManifest, Signer, StillAdmitted};
pub use volume::{VolumeRecord, VolumeState};

/// ALPN of the admin API.
pub const ALPN_ADMIN: &[u8] = b"coffer-kbs-admin/1";

/// Longest answer of the admin API, in bytes: a list of everything that a tenant may keep, with labels.
pub const ANSWER_LIMIT: usize = 64 * 1024 * 1024;

/// Generated: what a guest asks of the broker.
pub mod kbs {
    /// Protocol version 1.
    #[allow(missing_docs, clippy::pedantic)]
    pub mod v1 {
        tonic::include_proto!("coffer.kbs.v1");
    }
    /// The admin API.
    pub mod admin {
        /// Protocol version 1.
        #[allow(missing_docs, clippy::pedantic)]
        pub mod v1 {
            tonic::include_proto!("coffer.kbs.admin.v1");
        }
    }
}

impl From<coffer_ratls::HpkeSealed> for kbs::v1::Sealed {
    fn from(sealed: coffer_ratls::HpkeSealed) -> Self {
        Self { enc: sealed.enc, ciphertext: sealed.ciphertext }
    }
}

impl From<kbs::v1::Sealed> for coffer_ratls::HpkeSealed {
    fn from(sealed: kbs::v1::Sealed) -> Self {
        Self { enc: sealed.enc, ciphertext: sealed.ciphertext }
    }
}
