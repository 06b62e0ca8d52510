//! The operator's side of revocations, and of who is attested.

use crate::{admin::AdminClient, error::ClientError, kbs::admin::v1, listed::Listed};

impl AdminClient {
    /// Revokes for a tenant, or for all. Gives whether it is new, and how many connections are recalled.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn revoke(
        &self,
        tenant: Option<&str>,
        kind: &str,
        value: &str,
        reason: Option<&str>,
    ) -> Result<(bool, u32), ClientError> {
        let revocation = v1::Revocation {
            tenant: tenant.map(str::to_owned),
            kind: kind.to_owned(),
            value: value.to_owned(),
            reason: reason.map(str::to_owned),
            by: String::new(),
            since_unix: 0,
        };
        let request = v1::AddRevocationRequest { revocation: Some(revocation) };
        let answer = self.done(self.admin.clone().add_revocation(request)).await?;
        Ok((answer.added, answer.recalled))
    }

    /// Revocations of a tenant, or those for all.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_revocations(&self, tenant: Option<&str>) -> Result<Listed<v1::Revocation>, ClientError> {
        let request = v1::ListRevocationsRequest { tenant: tenant.map(str::to_owned) };
        let response = self.done(self.admin.clone().list_revocations(request)).await?;
        Ok(Listed { rows: response.revocations, damaged: response.damaged })
    }

    /// Takes a revocation back; false if there was none.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn remove_revocation(&self, tenant: Option<&str>, kind: &str, value: &str) -> Result<bool, ClientError> {
        let (tenant, kind, value) = (tenant.map(str::to_owned), kind.to_owned(), value.to_owned());
        let request = v1::RemoveRevocationRequest { tenant, kind, value };
        Ok(self.done(self.admin.clone().remove_revocation(request)).await?.existed)
    }

    /// Who is attested and admitted now, of a tenant or of all.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_guests(&self, tenant: Option<&str>) -> Result<Vec<v1::Guest>, ClientError> {
        let request = v1::ListGuestsRequest { tenant: tenant.map(str::to_owned) };
        Ok(self.done(self.admin.clone().list_guests(request)).await?.guests)
    }
}
