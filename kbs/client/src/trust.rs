//! The operator's side of authors, manifest keys and signed manifests.

use coffer_verifier::{
    Expiry, P384PublicKey, SignerRule,
    abi::{FamilyId, ImageId, KeyDigest, SpkiDigest, WordError, WorkloadDigest},
};

use crate::{
    admin::{AdminClient, expiry, given, seconds},
    error::ClientError,
    kbs::admin::v1,
    listed::Listed,
};

/// An author whose signed launches are admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// Tenant.
    pub tenant: String,
    /// Name of the rule.
    pub name: String,
    /// Who must have signed, under which names, from which version on.
    pub rule: SignerRule,
    /// From when on it admits nothing.
    pub expires: Expiry,
}

/// A key whose reference manifests count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestKey {
    /// Tenant.
    pub tenant: String,
    /// For people.
    pub name: String,
    /// The key.
    pub key: P384PublicKey,
}

/// What a revocation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedManifest {
    /// The last sequence that is revoked.
    pub through: u64,
    /// How many measurements it admitted, where that is known: its key is still listed, and the broker is no older release.
    pub measurements: Option<u32>,
    /// What admits some of them for the same workload all the same; any, where they are not known.
    pub still_admitted: Vec<StillAdmitted>,
    /// Authors that are listed: their launches are admitted whatever manifests say.
    pub signers: Vec<String>,
}

/// What admits measurements of a manifest that was revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StillAdmitted {
    /// Another manifest, else the tenant's references.
    pub manifest: Option<String>,
    /// How many of them.
    pub measurements: u32,
}

/// What the broker tells about a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestInfo {
    /// Name.
    pub name: String,
    /// Its number.
    pub sequence: u64,
    /// Last sequence revoked; 0: none.
    pub revoked_through: u64,
    /// The workload it is about.
    pub workload: WorkloadDigest,
    /// When it was made, seconds since 1970; 0 unless it is authentic.
    pub created_unix: i64,
    /// When it ends, seconds since 1970; 0 unless it is authentic.
    pub expires_unix: i64,
    /// The listed key that signed it.
    pub key: Option<SpkiDigest>,
    /// Number of measurements.
    pub measurements: u32,
    /// When it was added.
    pub added_unix: i64,
    /// `current`, `expired`, `revoked` or `not-authentic`.
    pub state: String,
}

impl AdminClient {
    /// Adds a signer rule; false if it replaced one of its name.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn add_signer(&self, signer: &Signer) -> Result<bool, ClientError> {
        let wire = v1::Signer {
            tenant: signer.tenant.clone(),
            name: signer.name.clone(),
            author_key_digest: signer.rule.author_key.as_bytes().to_vec(),
            family_id: signer.rule.family_id.as_bytes().to_vec(),
            image_id: signer.rule.image_id.as_bytes().to_vec(),
            minimum_guest_svn: signer.rule.minimum_guest_svn,
            expires_unix: seconds(signer.expires),
        };
        Ok(self.done(self.admin.clone().add_signer(v1::AddSignerRequest { signer: Some(wire) })).await?.added)
    }

    /// Lists a tenant's signer rules.
    ///
    /// # Errors
    /// [`ClientError::Protocol`] if the broker states one that is none.
    pub async fn list_signers(&self, tenant: &str) -> Result<Listed<Signer>, ClientError> {
        let request = v1::ListSignersRequest { tenant: tenant.to_owned() };
        let response = self.done(self.admin.clone().list_signers(request)).await?;
        Listed::read(response.signers, response.damaged, Signer::try_from)
    }

    /// Removes a signer rule; false if there was none.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn remove_signer(&self, tenant: &str, name: &str) -> Result<bool, ClientError> {
        let request = v1::RemoveSignerRequest { tenant: tenant.to_owned(), name: name.to_owned() };
        Ok(self.done(self.admin.clone().remove_signer(request)).await?.existed)
    }

    /// Lists a manifest key at the broker; false if it was there already.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn add_manifest_key(&self, key: &ManifestKey) -> Result<bool, ClientError> {
        let wire =
            v1::ManifestKey { tenant: key.tenant.clone(), name: given(&key.name), public_key: key.key.to_spki_der() };
        Ok(self.done(self.admin.clone().add_manifest_key(v1::AddManifestKeyRequest { key: Some(wire) })).await?.added)
    }

    /// Manifest keys of a tenant.
    ///
    /// # Errors
    /// [`ClientError::Protocol`] if the broker states one that is none.
    pub async fn list_manifest_keys(&self, tenant: &str) -> Result<Listed<ManifestKey>, ClientError> {
        let request = v1::ListManifestKeysRequest { tenant: tenant.to_owned() };
        let response = self.done(self.admin.clone().list_manifest_keys(request)).await?;
        let key = |wire: v1::ManifestKey| {
            let key = P384PublicKey::from_spki_der(&wire.public_key)
                .map_err(|error| ClientError::Protocol { cause: error.to_string() })?;
            Ok(ManifestKey { tenant: wire.tenant, name: wire.name.unwrap_or_default(), key })
        };
        Listed::read(response.keys, response.damaged, key)
    }

    /// Takes a manifest key from the list; false if it was not there.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn remove_manifest_key(&self, tenant: &str, key: &SpkiDigest) -> Result<bool, ClientError> {
        let request = v1::RemoveManifestKeyRequest { tenant: tenant.to_owned(), spki_sha256: key.as_bytes().to_vec() };
        Ok(self.done(self.admin.clone().remove_manifest_key(request)).await?.existed)
    }

    /// Adds a signed manifest; false if this very manifest was there already.
    ///
    /// # Errors
    /// [`ClientError::Rejected`] if it is not signed by a listed key, has expired, is older or revoked.
    pub async fn add_manifest(&self, tenant: &str, envelope: Vec<u8>) -> Result<(bool, ManifestInfo), ClientError> {
        let request = v1::AddManifestRequest { tenant: tenant.to_owned(), envelope };
        let response = self.done(self.admin.clone().add_manifest(request)).await?;
        let manifest =
            response.manifest.ok_or_else(|| ClientError::Protocol { cause: "no manifest in the answer".into() })?;
        Ok((response.added, manifest.try_into()?))
    }

    /// Manifests of a tenant.
    ///
    /// # Errors
    /// [`ClientError::Protocol`] if the broker states one that is none.
    pub async fn list_manifests(&self, tenant: &str) -> Result<Listed<ManifestInfo>, ClientError> {
        let request = v1::ListManifestsRequest { tenant: tenant.to_owned() };
        let response = self.done(self.admin.clone().list_manifests(request)).await?;
        Listed::read(response.manifests, response.damaged, ManifestInfo::try_from)
    }

    /// Revokes a manifest; gives nothing if there is no manifest of that name.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn revoke_manifest(&self, tenant: &str, name: &str) -> Result<Option<RevokedManifest>, ClientError> {
        let request = v1::RevokeManifestRequest { tenant: tenant.to_owned(), name: name.to_owned() };
        let response = self.done(self.admin.clone().revoke_manifest(request)).await?;
        let still = |one: v1::StillAdmitted| StillAdmitted {
            manifest: Some(one.manifest).filter(|name| !name.is_empty()),
            measurements: one.measurements,
        };
        Ok(response.existed.then(|| RevokedManifest {
            through: response.revoked_through,
            measurements: response.measurements,
            still_admitted: response.still_admitted.into_iter().map(still).collect(),
            signers: response.signers,
        }))
    }
}

#[allow(clippy::needless_pass_by_value, reason = "stands in map_err")]
fn malformed(error: WordError) -> ClientError {
    ClientError::Protocol { cause: error.to_string() }
}

impl TryFrom<v1::Signer> for Signer {
    type Error = ClientError;

    fn try_from(wire: v1::Signer) -> Result<Self, ClientError> {
        let rule = SignerRule {
            author_key: KeyDigest::try_from(wire.author_key_digest.as_slice()).map_err(malformed)?,
            family_id: FamilyId::try_from(wire.family_id.as_slice()).map_err(malformed)?,
            image_id: ImageId::try_from(wire.image_id.as_slice()).map_err(malformed)?,
            minimum_guest_svn: wire.minimum_guest_svn,
        };
        Ok(Self { tenant: wire.tenant, name: wire.name, rule, expires: expiry(wire.expires_unix)? })
    }
}

impl TryFrom<v1::ManifestInfo> for ManifestInfo {
    type Error = ClientError;

    fn try_from(wire: v1::ManifestInfo) -> Result<Self, ClientError> {
        let key = (!wire.key.is_empty()).then(|| SpkiDigest::try_from(wire.key.as_slice())).transpose();
        Ok(Self {
            name: wire.name,
            sequence: wire.sequence,
            revoked_through: wire.revoked_through,
            workload: WorkloadDigest::try_from(wire.workload_digest.as_slice()).map_err(malformed)?,
            created_unix: wire.created_unix,
            expires_unix: wire.expires_unix,
            key: key.map_err(malformed)?,
            measurements: wire.measurements,
            added_unix: wire.added_unix,
            state: wire.state,
        })
    }
}
