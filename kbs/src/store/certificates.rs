//! Certificate profiles: what a workload's certificate says, and for whom it may have tokens, decided by policy and by no request.

use coffer_verifier::{
    binding::length_prefixed,
    ear::{Issuer, Word},
};

use super::{
    StoreError,
    ledger::Ledger,
    record::{Fields, Record, RowKey},
    rows::Kind,
    terms,
};
use crate::{tenant::Tenant, terms::Terms};

/// What certificates of one name say, and on what terms they are issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateProfile {
    /// Its name.
    pub name: String,
    /// DNS names.
    pub dns: Vec<String>,
    /// URIs, such as a SPIFFE id.
    pub uris: Vec<String>,
    /// Extended key usage serverAuth.
    pub server_auth: bool,
    /// Extended key usage clientAuth.
    pub client_auth: bool,
    /// How long one is valid, in seconds.
    pub lifetime: u32,
    /// On what terms.
    pub terms: Terms,
    /// Tokens under the same name; none: there are none.
    pub tokens: Option<TokenProfile>,
}

/// Tokens of a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenProfile {
    /// For whom there are any; each stands in one profile of a tenant's.
    pub audiences: Vec<Word>,
    /// Who they say has issued them.
    pub issuer: Issuer,
}

impl CertificateProfile {
    /// True if it says what a certificate says.
    pub fn names_somebody(&self) -> bool {
        !self.dns.is_empty() || !self.uris.is_empty()
    }
}

impl Record for CertificateProfile {
    fn encode(&self) -> Vec<u8> {
        let list = |all: &[String]| length_prefixed(&all.iter().map(String::as_bytes).collect::<Vec<_>>());
        let mut body = length_prefixed(&[
            &list(&self.dns),
            &list(&self.uris),
            &[u8::from(self.server_auth)],
            &[u8::from(self.client_auth)],
            &self.lifetime.to_be_bytes(),
            &terms::encode(&self.terms),
        ]);
        // A profile without tokens is written as before there were any.
        if let Some(TokenProfile { audiences, issuer }) = &self.tokens {
            let audiences: Vec<_> = audiences.iter().map(ToString::to_string).collect();
            body.extend(length_prefixed(&[&list(&audiences), issuer.as_str().as_bytes()]));
        }
        body
    }

    fn decode(key: &RowKey, body: &[u8]) -> Option<Self> {
        let list = |bytes| {
            let (mut fields, mut all) = (Fields(bytes), Vec::new());
            while !fields.0.is_empty() {
                all.push(fields.text()?);
            }
            Some(all)
        };
        let mut fields = Fields(body);
        let mut profile = Self {
            name: key.text(0),
            dns: list(fields.bytes()?)?,
            uris: list(fields.bytes()?)?,
            server_auth: fields.flag()?,
            client_auth: fields.flag()?,
            lifetime: u32::from_be_bytes(fields.array()?),
            terms: terms::decode(fields.bytes()?)?,
            tokens: None,
        };
        if !fields.0.is_empty() {
            let audiences: Option<Vec<_>> = list(fields.bytes()?)?.iter().map(|one| Word::parse(one).ok()).collect();
            let issuer = Issuer::parse(&fields.text()?).ok()?;
            profile.tokens = Some(TokenProfile { audiences: audiences.filter(|all| !all.is_empty())?, issuer });
        }
        fields.end(profile)
    }
}

impl Ledger {
    /// Says what certificates of this name say. True if there was no such profile.
    ///
    /// # Errors
    /// As the store.
    pub async fn put_certificate_profile(
        &mut self,
        tenant: &Tenant,
        profile: &CertificateProfile,
    ) -> Result<bool, StoreError> {
        let key = key(tenant, &profile.name);
        let added = !self.has(&key);
        self.put_record(key, profile).await?;
        Ok(added)
    }

    /// The profile of a name.
    ///
    /// # Errors
    /// As the store.
    pub async fn certificate_profile(
        &mut self,
        tenant: &Tenant,
        name: &str,
    ) -> Result<Option<CertificateProfile>, StoreError> {
        self.record(&key(tenant, name)).await
    }

    /// The profile that has tokens for an audience.
    ///
    /// # Errors
    /// As the store; [`StoreError::Tampered`] if none of those that are believed has it, and one is not believed.
    pub async fn profile_of_audience(
        &mut self,
        tenant: &Tenant,
        audience: &Word,
    ) -> Result<Option<CertificateProfile>, StoreError> {
        let mut not_believed = None;
        for profile in self.certificate_profiles(tenant).await? {
            match profile {
                Ok(profile) if profile.tokens.as_ref().is_some_and(|tokens| tokens.audiences.contains(audience)) => {
                    return Ok(Some(profile));
                }
                Ok(_) => {}
                Err(error) => not_believed = Some(error),
            }
        }
        not_believed.map_or(Ok(None), Err)
    }

    /// Takes a profile away. True if it was there.
    ///
    /// # Errors
    /// As the store.
    pub async fn remove_certificate_profile(&mut self, tenant: &Tenant, name: &str) -> Result<bool, StoreError> {
        self.remove_record(key(tenant, name)).await
    }

    /// Every profile of a tenant.
    ///
    /// # Errors
    /// As the store.
    pub async fn certificate_profiles(
        &mut self,
        tenant: &Tenant,
    ) -> Result<Vec<Result<CertificateProfile, StoreError>>, StoreError> {
        let keys = self.keys(Kind::CertificateProfile, tenant);
        self.records(keys).await
    }
}

fn key(tenant: &Tenant, name: &str) -> RowKey {
    RowKey::of(Kind::CertificateProfile, tenant, &[name.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_comes_back_from_its_bytes_with_tokens_and_without() {
        let tenant = Tenant::parse("acme").unwrap();
        let plain = CertificateProfile {
            name: "web".into(),
            dns: vec!["web.acme.example".into()],
            uris: Vec::new(),
            server_auth: true,
            client_auth: false,
            lifetime: 3600,
            terms: Terms::default(),
            tokens: None,
        };
        let audiences = vec![Word::parse("https://a.example").unwrap(), Word::parse("b").unwrap()];
        let tokens = Some(TokenProfile { audiences, issuer: Issuer::parse("https://kbs.example").unwrap() });
        let key = key(&tenant, "web");
        let before = plain.encode();
        for profile in [plain.clone(), CertificateProfile { tokens, ..plain }] {
            let bytes = profile.encode();
            assert_eq!(CertificateProfile::decode(&key, &bytes), Some(profile));
            for end in (0..bytes.len()).filter(|end| *end != before.len()) {
                assert_eq!(CertificateProfile::decode(&key, &bytes[..end]), None, "cut at {end}");
            }
        }
    }
}
