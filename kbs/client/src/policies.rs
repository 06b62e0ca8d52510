//! The operator's side of release policies that a tenant keeps at the broker.

use crate::{admin::AdminClient, error::ClientError, kbs::admin::v1};

pub use v1::{ListPoliciesResponse as Policies, PolicyInfo, PutPolicyResponse as PutPolicy};

impl AdminClient {
    /// Keeps a policy under a name. Gives what it is, and what names it.
    ///
    /// # Errors
    /// [`ClientError::Rejected`] for a text that is no policy, with the place and the reason.
    pub async fn put_policy(&self, tenant: &str, name: &str, text: &str) -> Result<PutPolicy, ClientError> {
        let request = v1::PutPolicyRequest { tenant: tenant.to_owned(), name: name.to_owned(), text: text.to_owned() };
        self.done(self.admin.clone().put_policy(request)).await
    }

    /// The policy of a name, and its text; nothing if the tenant keeps none.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn policy(&self, tenant: &str, name: &str) -> Result<Option<(PolicyInfo, String)>, ClientError> {
        let request = v1::GetPolicyRequest { tenant: tenant.to_owned(), name: name.to_owned() };
        let answer = self.done(self.admin.clone().get_policy(request)).await?;
        Ok(answer.policy.map(|policy| (policy, answer.text)))
    }

    /// The policies a tenant keeps, and the names that the broker's configuration has.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_policies(&self, tenant: &str) -> Result<Policies, ClientError> {
        self.done(self.admin.clone().list_policies(v1::ListPoliciesRequest { tenant: tenant.to_owned() })).await
    }

    /// Tries a policy on what was decided.
    ///
    /// # Errors
    /// [`ClientError::Rejected`] for a text that is no policy.
    pub async fn test_policy(&self, request: v1::TestPolicyRequest) -> Result<v1::TestPolicyResponse, ClientError> {
        self.done(self.admin.clone().test_policy(request)).await
    }

    /// Removes a policy; false if there was none.
    ///
    /// # Errors
    /// [`ClientError::Rejected`] names what uses it.
    pub async fn remove_policy(&self, tenant: &str, name: &str) -> Result<bool, ClientError> {
        let request = v1::RemovePolicyRequest { tenant: tenant.to_owned(), name: name.to_owned() };
        Ok(self.done(self.admin.clone().remove_policy(request)).await?.existed)
    }
}
