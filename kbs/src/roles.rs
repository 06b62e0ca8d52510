//! Who may ask what of the admin API: one table, and the roles that stand in it.
//!
//! A grant is a role for one tenant, or for the whole broker. An owner may do what every role may. Methods without a role in
//! the table are for owners alone, and a method that is not in the table is nobody's.

use core::{fmt, str::FromStr};

use crate::tenant::Tenant;

/// What somebody is at the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Everything, and alone: manifest keys, tenants, other operators.
    Owner,
    /// Says whom a tenant admits, and on what terms.
    PolicyAuthor,
    /// Puts and removes values.
    Operator,
    /// Reads the trail.
    Auditor,
}

/// No role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected owner, policy-author, operator or auditor")]
pub struct RoleError;

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Owner, Self::PolicyAuthor, Self::Operator, Self::Auditor];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::PolicyAuthor => "policy-author",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
        }
    }
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        Self::ALL.into_iter().find(|role| role.name() == text).ok_or(RoleError)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A role for one tenant, or for every tenant and the broker itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// Which role.
    pub role: Role,
    /// For whom; nothing: for all.
    pub tenant: Option<Tenant>,
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tenant {
            Some(tenant) => write!(f, "{}@{tenant}", self.role),
            None => self.role.fmt(f),
        }
    }
}

/// What a method is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// The tenant its request names.
    Tenant,
    /// The broker: only a grant for all counts.
    Broker,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// Its name in the protocol.
    pub name: &'static str,
    /// What it is about.
    pub about: About,
    /// Who may ask it, beside owners.
    pub roles: &'static [Role],
}

const READERS: &[Role] = &[Role::PolicyAuthor, Role::Operator, Role::Auditor];
const VALUES: &[Role] = &[Role::Operator];
const RULES: &[Role] = &[Role::PolicyAuthor];
/// A manifest is signed by a key that owners list: whoever brings or revokes it adds nothing to that.
const MANIFESTS: &[Role] = &[Role::PolicyAuthor, Role::Operator];
/// Labels, and what takes away; what may let others have a value is [`WIDEN`]'s.
const TERMS: &[Role] = &[Role::PolicyAuthor, Role::Operator];
const TRAIL: &[Role] = &[Role::Auditor];
const OWNERS: &[Role] = &[];

macro_rules! methods {
    ($($name:ident: $about:ident $roles:ident),* $(,)?) => {
        /// Every method of the admin API.
        pub const METHODS: &[Method] =
            &[$(Method { name: stringify!($name), about: About::$about, roles: $roles }),*];
    };
}

methods! {
    PutSecret: Tenant VALUES,
    ListSecrets: Tenant READERS,
    GetSecretMeta: Tenant READERS,
    DeleteSecret: Tenant VALUES,
    UndeleteSecret: Tenant VALUES,
    DestroySecret: Tenant VALUES,
    UpdateSecret: Tenant TERMS,
    AddReference: Tenant RULES,
    ListReferences: Tenant READERS,
    RemoveReference: Tenant RULES,
    AddSigner: Tenant RULES,
    ListSigners: Tenant READERS,
    RemoveSigner: Tenant RULES,
    AddManifestKey: Tenant OWNERS,
    ListManifestKeys: Tenant READERS,
    RemoveManifestKey: Tenant OWNERS,
    AddManifest: Tenant MANIFESTS,
    ListManifests: Tenant READERS,
    RevokeManifest: Tenant MANIFESTS,
    AddRevocation: Tenant RULES,
    ListRevocations: Tenant READERS,
    RemoveRevocation: Tenant RULES,
    ListGuests: Tenant READERS,
    PutSealingContext: Tenant RULES,
    ListSealingContexts: Tenant READERS,
    RemoveSealingContext: Tenant RULES,
    ListVolumes: Tenant READERS,
    // It lets older data pass for newer.
    AllowVolume: Tenant OWNERS,
    PutCertificateProfile: Tenant RULES,
    ListCertificateProfiles: Tenant READERS,
    RemoveCertificateProfile: Tenant RULES,
    PutPolicy: Tenant RULES,
    GetPolicy: Tenant READERS,
    ListPolicies: Tenant READERS,
    RemovePolicy: Tenant RULES,
    // It tells how any text decides on what policies saw, and by that what they saw.
    TestPolicy: Tenant RULES,
    PutCrl: Broker RULES,
    ListCrls: Broker READERS,
    RemoveCrl: Broker RULES,
    AddTenant: Broker OWNERS,
    ListTenants: Broker READERS,
    AddAdmin: Broker OWNERS,
    ListAdmins: Tenant TRAIL,
    RemoveAdmin: Broker OWNERS,
    ConfirmRestored: Broker OWNERS,
    Audit: Tenant TRAIL,
    GetDecisionInput: Tenant TRAIL,
}

/// An update of a secret that may let others have a value which is there: whoever asks it need not know the value.
pub static WIDEN: Method = Method { name: "UpdateSecret", about: About::Tenant, roles: RULES };

/// The same of a new value that weakens the terms of the one before: whoever puts the next one keeps them.
pub static WIDEN_ANEW: Method = Method { name: "PutSecret", about: About::Tenant, roles: RULES };

/// The method of a name; a defect of ours if there is none.
pub fn method(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.name == name)
}

impl Method {
    /// True if one of these grants is enough for the tenant that is asked about; nothing: for all of them.
    pub fn allows(&self, grants: &[Grant], tenant: Option<&Tenant>) -> bool {
        let tenant = match self.about {
            About::Tenant => tenant,
            About::Broker => None,
        };
        let reaches = |grant: &Grant| grant.tenant.is_none() || tenant.is_some() && grant.tenant.as_ref() == tenant;
        grants.iter().any(|grant| reaches(grant) && (grant.role == Role::Owner || self.roles.contains(&grant.role)))
    }

    /// Grants each of which would be enough for what was asked.
    pub fn enough(&self, tenant: Option<&Tenant>) -> Vec<Grant> {
        let tenant = match self.about {
            About::Tenant => tenant.cloned(),
            About::Broker => None,
        };
        let roles = std::iter::once(&Role::Owner).chain(self.roles);
        roles.map(|role| Grant { role: *role, tenant: tenant.clone() }).collect()
    }

    /// Who may, in words.
    pub fn needs(&self) -> String {
        let mut names = vec![Role::Owner.name()];
        names.extend(self.roles.iter().map(|role| role.name()));
        names.join(" or ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_reaches_its_tenant_and_no_further() {
        let (acme, globex) = (Tenant::parse("acme").unwrap(), Tenant::parse("globex").unwrap());
        for one in METHODS {
            for role in Role::ALL {
                let may = role == Role::Owner || one.roles.contains(&role);
                let everywhere = [Grant { role, tenant: None }];
                let here = [Grant { role, tenant: Some(acme.clone()) }];
                let of_tenant = one.about == About::Tenant;
                assert_eq!(one.allows(&everywhere, Some(&acme)), may, "{} {role}", one.name);
                assert_eq!(one.allows(&everywhere, None), may, "{} {role}", one.name);
                assert_eq!(one.allows(&here, Some(&acme)), may && of_tenant, "{} {role}", one.name);
                assert!(!one.allows(&here, Some(&globex)), "{} {role}", one.name);
                assert!(!one.allows(&here, None), "{} {role}", one.name);
            }
            assert!(!one.allows(&[], Some(&acme)), "{}", one.name);
            for tenant in [None, Some(&acme)] {
                for grant in one.enough(tenant) {
                    assert!(one.allows(std::slice::from_ref(&grant), tenant), "{} {grant}", one.name);
                }
            }
        }
    }
}
