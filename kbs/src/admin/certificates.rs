//! Certificate profiles: what a tenant's workload certificates say.

use coffer_kbs_client::kbs::admin::v1 as wire;
use coffer_verifier::ear::{Issuer, Word};
use tonic::{Response, Status};

use super::{
    AdminService,
    changed::{listed, of_terms, say},
    sorted, store_status, tenant,
    terms::{terms, terms_wire},
};
use crate::{
    certificate,
    operators::Caller,
    store::{AuditEntry, CertificateProfile, KeyUse, StoreError, TokenProfile},
    tenant::Tenant,
    token,
};

/// Profiles of one tenant, and names in one.
const LIMIT: usize = 64;
/// One minute to one day: a certificate is renewed by attesting again.
const LIFETIME: core::ops::RangeInclusive<u32> = 60..=86_400;

impl AdminService {
    pub(super) async fn certificate_profile_put(
        &self,
        caller: Caller,
        message: wire::PutCertificateProfileRequest,
    ) -> Result<Response<wire::PutCertificateProfileResponse>, Status> {
        let message = message.profile.ok_or_else(|| Status::invalid_argument("profile: none was given"))?;
        let tenant = tenant(&message.tenant)?;
        let terms = terms(message.terms)?;
        let profile = CertificateProfile {
            name: profile_name(message.name)?,
            dns: names("dns", message.dns, is_dns)?,
            uris: names("uris", message.uris, is_uri)?,
            server_auth: message.server_auth,
            client_auth: message.client_auth,
            lifetime: message.lifetime_seconds,
            terms,
            tokens: tokens(&message.audiences, message.issuer.as_deref())?,
        };
        if !profile.names_somebody() && profile.tokens.is_none() {
            let message =
                "dns, uris, audiences: a certificate names somebody, and a token is for somebody; give one at least";
            return Err(Status::invalid_argument(message));
        }
        if profile.names_somebody() != (profile.server_auth || profile.client_auth) {
            let message =
                "server_auth, client_auth: a certificate is for something, and without dns and uris there is none";
            return Err(Status::invalid_argument(message));
        }
        if !LIFETIME.contains(&profile.lifetime) {
            let (least, most) = (LIFETIME.start(), LIFETIME.end());
            return Err(Status::invalid_argument(format!("lifetime_seconds: expected {least} to {most}")));
        }
        let mut entry = entry("certificate-profile.put", &tenant, &profile.name);
        entry.policy = Some(profile.terms.policy.clone());
        entry.allow_simulated = Some(profile.terms.allow_simulated);
        let mut change = self.change(caller, entry).await?;
        self.policy_is_there(&mut change.ledger, &tenant, &profile.terms.policy)?;
        let there = change.ledger.certificate_profiles(&tenant).await.map_err(store_status)?;
        if there.len() >= LIMIT && !there.iter().flatten().any(|one| one.name == profile.name) {
            return Err(Status::failed_precondition(format!("the tenant has {LIMIT} certificate profiles already")));
        }
        let audiences = profile.tokens.iter().flat_map(|tokens| &tokens.audiences);
        for audience in audiences {
            let has =
                |one: &&CertificateProfile| one.tokens.as_ref().is_some_and(|all| all.audiences.contains(audience));
            if let Some(other) = there.iter().flatten().filter(|one| one.name != profile.name).find(has) {
                let message = format!("audiences: profile {} has one of them already", other.name);
                return Err(Status::failed_precondition(message));
            }
        }
        // Putting it anew is how a damaged one is mended: of such a one nothing is known.
        let before = there.iter().flatten().find(|one| one.name == profile.name);
        change.entry.changes = of_profile(before, &profile);
        if profile.names_somebody() && !change.ledger.has_tenant_key(&tenant, KeyUse::Certificates) {
            let root = certificate::make_root(&tenant, change.now)
                .map_err(|error| Status::internal(format!("certificate key: {error}")))?;
            change.ledger.keep_tenant_key(&tenant, KeyUse::Certificates, &root).await.map_err(store_status)?;
        }
        if profile.tokens.is_some() && !change.ledger.has_tenant_key(&tenant, KeyUse::Tokens) {
            let key = token::make_key().map_err(|error| Status::internal(format!("key of tokens: {error}")))?;
            change.ledger.keep_tenant_key(&tenant, KeyUse::Tokens, &key).await.map_err(store_status)?;
        }
        let root = change.ledger.tenant_key_public(&tenant, KeyUse::Certificates).await.map_err(store_status)?;
        let token_key = change.ledger.tenant_key_public(&tenant, KeyUse::Tokens).await.map_err(store_status)?;
        let added = change.ledger.put_certificate_profile(&tenant, &profile).await.map_err(store_status)?;
        let (root, token_key) = (root.unwrap_or_default(), text(token_key));
        let answer = wire::PutCertificateProfileResponse { added, root, token_key };
        change.done_if(added, "replaced", answer).await
    }

    pub(super) async fn certificate_profiles_listed(
        &self,
        message: wire::ListCertificateProfilesRequest,
    ) -> Result<Response<wire::ListCertificateProfilesResponse>, Status> {
        let tenant = tenant(&message.tenant)?;
        let mut view = self.view().await?;
        let (profiles, mut damaged) = sorted(view.certificate_profiles(&tenant).await.map_err(store_status)?);
        let mut public = [None, None];
        for (used, found) in [KeyUse::Certificates, KeyUse::Tokens].into_iter().zip(&mut public) {
            *found = match view.tenant_key_public(&tenant, used).await {
                Err(error @ StoreError::Tampered { .. }) => {
                    damaged.extend(sorted::<()>(vec![Err(error)]).1);
                    None
                }
                other => other.map_err(store_status)?,
            };
        }
        let [root, token_key] = public;
        Ok(Response::new(wire::ListCertificateProfilesResponse {
            profiles: profiles.into_iter().map(|one| to_wire(&tenant, one)).collect(),
            root: root.unwrap_or_default(),
            damaged,
            token_key: text(token_key),
        }))
    }

    pub(super) async fn certificate_profile_removed(
        &self,
        caller: Caller,
        message: wire::RemoveCertificateProfileRequest,
    ) -> Result<Response<wire::RemoveCertificateProfileResponse>, Status> {
        let tenant = tenant(&message.tenant)?;
        let name = profile_name(message.name)?;
        let mut change = self.change(caller, entry("certificate-profile.remove", &tenant, &name)).await?;
        let existed = change.ledger.remove_certificate_profile(&tenant, &name).await.map_err(store_status)?;
        change.done_if(existed, "nothing-there", wire::RemoveCertificateProfileResponse { existed }).await
    }
}

fn of_profile(before: Option<&CertificateProfile>, now: &CertificateProfile) -> Vec<String> {
    let mut changes = of_terms(before.map(|before| &before.terms), &now.terms);
    say(&mut changes, "dns", before.map(|before| listed(&before.dns)), listed(&now.dns));
    say(&mut changes, "uris", before.map(|before| listed(&before.uris)), listed(&now.uris));
    say(&mut changes, "server_auth", before.map(|before| before.server_auth), now.server_auth);
    say(&mut changes, "client_auth", before.map(|before| before.client_auth), now.client_auth);
    let tokens = |one: &CertificateProfile| {
        let all = one.tokens.iter().flat_map(|tokens| &tokens.audiences).map(ToString::to_string);
        (
            listed(all.collect::<Vec<_>>()),
            one.tokens.as_ref().map_or("none".to_owned(), |tokens| tokens.issuer.to_string()),
        )
    };
    let (was, is) = (before.map(tokens).unzip(), tokens(now));
    say(&mut changes, "audiences", was.0, is.0);
    say(&mut changes, "issuer", was.1, is.1);
    say(&mut changes, "lifetime_seconds", before.map(|before| before.lifetime), now.lifetime);
    changes
}

fn entry(event: &'static str, tenant: &Tenant, name: &str) -> AuditEntry {
    AuditEntry { event, tenant: Some(tenant.to_string()), name: Some(name.to_owned()), ..AuditEntry::default() }
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn profile_name(text: String) -> Result<String, Status> {
    match text.parse::<coffer_spec::Name>() {
        Ok(_) => Ok(text),
        Err(_) => Err(Status::invalid_argument(format!("name: expected {}", coffer_spec::NAME_RULE))),
    }
}

/// Audiences and who says it to them: both, or neither.
#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn tokens(audiences: &[String], issuer: Option<&str>) -> Result<Option<TokenProfile>, Status> {
    let issuer = match (audiences, issuer) {
        ([], None) => return Ok(None),
        ([], Some(_)) => return Err(Status::invalid_argument("issuer: without audiences there are no tokens")),
        (_, None) => return Err(Status::invalid_argument("issuer: who tokens say has issued them, an https address")),
        (_, Some(issuer)) => {
            Issuer::parse(issuer).map_err(|error| Status::invalid_argument(format!("issuer: {error}")))?
        }
    };
    let is_one = |text: &str| Word::parse(text).is_ok();
    let texts = names("audiences", audiences.to_vec(), is_one)?;
    let mut audiences: Vec<_> = texts.iter().filter_map(|text| Word::parse(text).ok()).collect();
    audiences.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    if audiences.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Status::invalid_argument("audiences: one stands twice"));
    }
    Ok(Some(TokenProfile { audiences, issuer }))
}

fn text(pem: Option<Vec<u8>>) -> String {
    String::from_utf8(pem.unwrap_or_default()).unwrap_or_default()
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn names(field: &str, list: Vec<String>, is_one: impl Fn(&str) -> bool) -> Result<Vec<String>, Status> {
    if list.len() > LIMIT {
        return Err(Status::invalid_argument(format!("{field}: over {LIMIT} names")));
    }
    match list.iter().find(|text| !is_one(text)) {
        Some(_) => Err(Status::invalid_argument(format!("{field}: one is no such name"))),
        None => Ok(list),
    }
}

/// Labels of letters, digits and hyphens, at most 253 bytes, and no address: the last is not a number. The first may be `*` where
/// two more follow.
fn is_dns(text: &str) -> bool {
    let label = |(at, label): (usize, &str)| {
        (at == 0 && label == "*")
            || (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let labels: Vec<&str> = text.split('.').collect();
    let is_number = labels.last().is_none_or(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    let is_wide = labels[0] == "*" && labels.len() < 3;
    (1..=253).contains(&text.len()) && !is_number && !is_wide && labels.into_iter().enumerate().all(label)
}

/// A scheme, and printable ASCII after it.
fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    text.len() <= 2048
        && scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        && !rest.is_empty()
        && rest.bytes().all(|byte| byte.is_ascii_graphic())
}

fn to_wire(tenant: &Tenant, one: CertificateProfile) -> wire::CertificateProfile {
    wire::CertificateProfile {
        tenant: tenant.to_string(),
        terms: Some(terms_wire(&one.terms)),
        name: one.name,
        dns: one.dns,
        uris: one.uris,
        server_auth: one.server_auth,
        client_auth: one.client_auth,
        lifetime_seconds: one.lifetime,
        audiences: one.tokens.iter().flat_map(|tokens| &tokens.audiences).map(ToString::to_string).collect(),
        issuer: one.tokens.map(|tokens| tokens.issuer.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names() {
        for good in ["web", "a.b-c.example", "*.acme.example"] {
            assert!(is_dns(good), "{good}");
        }
        for bad in
            ["", "*", "a..b", "-a", "a b", "a.*", "*.com", "127.0.0.1", "1", "10.256", &"a".repeat(64), "ü.example"]
        {
            assert!(!is_dns(bad), "{bad}");
        }
        assert!(is_uri("spiffe://acme.example/web"));
        for bad in ["", "web", "1:x", "spiffe:", "spiffe://a b", "spiffe://\n"] {
            assert!(!is_uri(bad), "{bad}");
        }
    }
}
