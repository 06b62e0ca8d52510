//! The operator's side of operators and tenants.

use coffer_verifier::abi::SpkiDigest;

use crate::{admin::AdminClient, error::ClientError, kbs::admin::v1, listed::Listed};

/// A role for one tenant, or for all and the broker itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// `owner`, `policy-author`, `operator` or `auditor`.
    pub role: String,
    /// For whom; nothing: for all.
    pub tenant: Option<String>,
}

/// An operator as the broker has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// Name in the trail.
    pub name: String,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub key: SpkiDigest,
    /// What it may.
    pub grants: Vec<Grant>,
    /// True if it stands in the broker's configuration.
    pub configured: bool,
}

impl AdminClient {
    /// Creates a tenant; false if it was there.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn add_tenant(&self, tenant: &str) -> Result<bool, ClientError> {
        Ok(self.done(self.admin.clone().add_tenant(v1::AddTenantRequest { tenant: tenant.to_owned() })).await?.added)
    }

    /// Every tenant.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_tenants(&self) -> Result<Vec<String>, ClientError> {
        Ok(self.done(self.admin.clone().list_tenants(v1::ListTenantsRequest {})).await?.tenants)
    }

    /// Lets a key in with these grants; false if it was there, and has them now.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn add_admin(&self, name: &str, key: &SpkiDigest, grants: &[Grant]) -> Result<bool, ClientError> {
        let grant = |grant: &Grant| v1::Grant { role: grant.role.clone(), tenant: grant.tenant.clone() };
        let admin = v1::Operator {
            name: name.to_owned(),
            spki_sha256: key.as_bytes().to_vec(),
            grants: grants.iter().map(grant).collect(),
            configured: false,
        };
        Ok(self.done(self.admin.clone().add_admin(v1::AddAdminRequest { admin: Some(admin) })).await?.added)
    }

    /// Every operator; of a tenant those with a role for it, and these roles alone.
    ///
    /// # Errors
    /// [`ClientError::Protocol`] if the broker states a key that is none.
    pub async fn list_admins(&self, tenant: Option<&str>) -> Result<Listed<Operator>, ClientError> {
        let request = v1::ListAdminsRequest { tenant: tenant.map(str::to_owned) };
        let response = self.done(self.admin.clone().list_admins(request)).await?;
        let operator = |wire: v1::Operator| {
            let key = SpkiDigest::try_from(wire.spki_sha256.as_slice())
                .map_err(|error| ClientError::Protocol { cause: error.to_string() })?;
            let grant = |grant: v1::Grant| Grant { role: grant.role, tenant: grant.tenant };
            let grants = wire.grants.into_iter().map(grant).collect();
            Ok(Operator { name: wire.name, key, grants, configured: wire.configured })
        };
        Listed::read(response.admins, response.damaged, operator)
    }

    /// Takes an operator away at once; false if there was none with this key.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn remove_admin(&self, key: &SpkiDigest) -> Result<bool, ClientError> {
        let request = v1::RemoveAdminRequest { spki_sha256: key.as_bytes().to_vec() };
        Ok(self.done(self.admin.clone().remove_admin(request)).await?.existed)
    }
}
