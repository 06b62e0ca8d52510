//! What lies in the ledger for a question, or what stands in for it where there is nothing, so that both take the same road.

use coffer_kbs_client::SealingName;
use coffer_verifier::{SignerRule, UnixTime};
use zeroize::Zeroizing;

use crate::{
    asked::Asked,
    certificate,
    guest::Judged,
    permit::{Granted, Permit},
    sealing,
    store::{Absent, CertificateProfile, Counter, KeyUse, Ledger, OpenKey, SealingContext, Secret, StoreError},
    tenant::Tenant,
    terms::Terms,
    token::{self, Said},
};

/// Counters one subject may have in one context: each lies in the broker's memory.
const COUNTERS: usize = 256;

/// What was found.
pub enum Wanted {
    /// Nothing: a reason says so.
    Nothing,
    /// A version of a secret.
    Secret(Secret, Zeroizing<Vec<u8>>),
    /// A sealing context, and the root of the tenant's sealing keys.
    Sealing(SealingContext, OpenKey),
    /// A sealing context, and a counter under it.
    Counter(SealingContext, Counter, u64),
    /// A certificate profile, and the tenant's certificate key.
    Certificate(CertificateProfile, OpenKey),
    /// A profile that has an audience, and the tenant's key of tokens.
    Token(CertificateProfile, OpenKey),
}

impl Wanted {
    /// Reads it. What is not there, or not believed, goes into `reasons`.
    ///
    /// # Errors
    /// As the store.
    pub async fn read(
        ledger: &mut Ledger,
        judged: &Judged,
        asked: &Asked,
        now: i64,
        reasons: &mut Vec<String>,
    ) -> Result<Self, StoreError> {
        match Self::look(ledger, judged, asked, now).await {
            Ok(Ok(wanted)) => Ok(wanted),
            Ok(Err(reason)) => {
                reasons.push(reason);
                Ok(Self::Nothing)
            }
            Err(error @ StoreError::Tampered { .. }) => {
                tracing::error!(error = %coffer_rim::chain(&error), hint = error.hint(), "stored row is not believed");
                reasons.push(format!("store: {error}"));
                Ok(Self::Nothing)
            }
            Err(other) => Err(other),
        }
    }

    async fn look(
        ledger: &mut Ledger,
        judged: &Judged,
        asked: &Asked,
        now: i64,
    ) -> Result<Result<Self, String>, StoreError> {
        let tenant = &judged.tenant;
        Ok(match asked {
            Asked::Secret { path, version } => match ledger.find_secret(tenant, path, *version).await? {
                Err(absent @ Absent::Deleted) => {
                    // Whoever reads the trail wants both words.
                    Err(format!("{}; {absent}", Absent::Missing))
                }
                Err(absent) => Err(absent.to_string()),
                Ok(secret) if secret.expires.is_over(UnixTime::from_secs(now)) => {
                    Err(format!("secret: version {} expired at {}", secret.version, secret.expires))
                }
                Ok(secret) => {
                    let value = ledger.open_secret(tenant, path, &secret)?;
                    Ok(Self::Secret(secret, value))
                }
            },
            Asked::SealingKey(name) => match Self::context(ledger, tenant, name).await? {
                Err(reason) => Err(reason),
                Ok(context) => match ledger.tenant_key(tenant, KeyUse::Sealing).await? {
                    Some(root) => Ok(Self::Sealing(context, root)),
                    None => Err(format!("sealing: tenant {tenant} has no sealing root")),
                },
            },
            Asked::Generation { name, counter, step } => match Self::context(ledger, tenant, name).await? {
                Err(reason) => Err(reason),
                Ok(_) if ledger.restored().await?.is_some_and(|one| one.confirmed_unix.is_none()) => {
                    Err("generation: an older state was accepted, and no owner has confirmed it yet".to_owned())
                }
                Ok(context) => match sealing::subject(name, &judged.verified) {
                    Err(reason) => Err(reason),
                    Ok(subject) => {
                        let anchor = judged.verified.anchor().spki_sha256;
                        let counter = Counter::new(tenant, &anchor, name, &subject, counter);
                        match ledger.generation(&counter).await? {
                            None if step.is_some() && ledger.counters_beside(tenant, &counter) >= COUNTERS => {
                                Err(format!("generation: this subject has {COUNTERS} counters in this context already"))
                            }
                            found => Ok(Self::Counter(context, counter, found.unwrap_or(0))),
                        }
                    }
                },
            },
            Asked::Certificate { profile, .. } => match ledger.certificate_profile(tenant, profile).await? {
                None => Err("certificate: there is no profile of this name".to_owned()),
                Some(profile) if !profile.names_somebody() => {
                    Err("certificate: this profile has tokens alone, and names nobody".to_owned())
                }
                Some(profile) => match ledger.tenant_key(tenant, KeyUse::Certificates).await? {
                    Some(root) => Ok(Self::Certificate(profile, root)),
                    None => Err(format!("certificate: tenant {tenant} has no certificate key")),
                },
            },
            Asked::Token(token) => match ledger.profile_of_audience(tenant, &token.audience).await? {
                None => Err("token: no profile has this audience".to_owned()),
                Some(profile) => match ledger.tenant_key(tenant, KeyUse::Tokens).await? {
                    Some(key) => Ok(Self::Token(profile, key)),
                    None => Err(format!("token: tenant {tenant} has no key of tokens")),
                },
            },
        })
    }

    async fn context(
        ledger: &mut Ledger,
        tenant: &Tenant,
        name: &SealingName,
    ) -> Result<Result<SealingContext, String>, StoreError> {
        Ok(match ledger.sealing_context(tenant, &name.context).await? {
            None => Err("sealing: there are no terms for this context".to_owned()),
            Some(context) if !context.policies.contains(&name.policy) => {
                Err(format!("sealing: this context gives no keys of policy {}", name.policy))
            }
            Some(context) => Ok(context),
        })
    }

    /// True if there is something to release.
    pub fn is_there(&self) -> bool {
        !matches!(self, Self::Nothing)
    }

    /// On what terms. Of nothing: those that release least.
    pub fn terms(&self) -> Terms {
        match self {
            Self::Nothing => Terms::default(),
            Self::Secret(secret, _) => secret.terms.clone(),
            Self::Sealing(context, _) | Self::Counter(context, ..) => context.terms.clone(),
            Self::Certificate(profile, _) | Self::Token(profile, _) => profile.terms.clone(),
        }
    }

    /// Leave for what was found, once nothing speaks against it. `authors`: those of the tenant that admit now. `said`: what a token
    /// repeats.
    ///
    /// # Errors
    /// One more reason against.
    pub fn permit(
        self,
        judged: &Judged,
        asked: &Asked,
        authors: &[SignerRule],
        said: &Said<'_>,
    ) -> Result<Permit, String> {
        let verified = &judged.verified;
        let listed = |name: &SealingName| sealing::author_listed(name, verified, authors);
        Ok(Permit::new(match (self, asked) {
            (Self::Secret(secret, value), Asked::Secret { path, .. }) => {
                Granted::Secret { path: path.clone(), version: secret.version, value }
            }
            (Self::Sealing(_, root), Asked::SealingKey(name)) => {
                listed(name)?;
                let subject = sealing::subject(name, verified)?;
                let length = |_| "sealing: the tenant's sealing root is none".to_owned();
                let root: &[u8; 32] = root.key.as_slice().try_into().map_err(length)?;
                let key = sealing::derive(root, &verified.anchor().spki_sha256, name, &subject);
                Granted::SealingKey { name: name.clone(), key }
            }
            (Self::Counter(_, row, found), Asked::Generation { name, counter, step }) => {
                listed(name)?;
                let next = step.filter(|(expected, _)| *expected == found).map(|(_, next)| next);
                let moved = next.map(|next| (row, next));
                Granted::Generation { name: name.clone(), counter: *counter, found, moved, asked: *step }
            }
            (Self::Certificate(profile, root), Asked::Certificate { key, .. }) => {
                let report = verified.report().report_id();
                Granted::Certificate(certificate::issue(&root, &judged.tenant, &profile, key, &report, said.now)?)
            }
            (Self::Token(profile, key), Asked::Token(asked)) => {
                Granted::Token(token::issue(&key, &profile, asked, said)?)
            }
            _ => return Err("secret: there is none at this path".to_owned()),
        }))
    }
}
