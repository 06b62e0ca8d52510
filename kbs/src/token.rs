//! Tokens: what a decision says of a guest, for one audience, and for whoever holds one key.
//!
//! Trusts: the appraisal that the decision rests on, the tenant's profile and key. Believes of a request its key, once the CSR shows
//! that the sender holds it and a report of the guest is made over it.
//! Never: signs for an audience that the spec or the tenant does not name; says of simulated evidence that it is affirmed; takes a
//! key, a nonce or an audience that the report was not made over.
//! Source: docs/design/broker.md §6, docs/design/verification.md §5; RFC 9711, RFC 7800.

use coffer_policies::Policy;
use coffer_token::TokenKey;
use coffer_verifier::{
    Appraisal, UnixTime,
    abi::{ReportData, WorkloadDigest},
    ear::{EarClaims, Judged, Lifetime, NamedBinding, Terms, TokenId, TokenSigner as _, VerifierBuild, Word},
};

use crate::{
    asked::TokenAsked,
    store::{CertificateProfile, OpenKey},
};

/// A token.
pub struct Token {
    /// JWS compact serialisation.
    pub text: String,
    /// Its `jti`.
    pub id: String,
}

/// What a decision rests on, as far as its token says it.
pub struct Said<'a> {
    /// The evidence, judged: it holds the token's own report.
    pub appraisal: &'a Appraisal,
    /// The policy that allowed it.
    pub policy: &'a Policy,
    /// REPORT_DATA of the evidence that opened the connection.
    pub connection: &'a ReportData,
    /// Now.
    pub now: i64,
}

/// Makes a tenant's key of tokens. What others may see of it is its public half in PEM.
///
/// # Errors
/// In words: the random source fails.
pub fn make_key() -> Result<OpenKey, String> {
    let key = TokenKey::generate().map_err(|error| error.to_string())?;
    let secret = key.to_pkcs8().map_err(|error| error.to_string())?;
    Ok(OpenKey { public: key.public().to_pem().into_bytes(), key: secret })
}

/// Signs a token.
///
/// # Errors
/// In words, for the trail.
pub fn issue(
    key: &OpenKey,
    profile: &CertificateProfile,
    asked: &TokenAsked,
    said: &Said<'_>,
) -> Result<Token, String> {
    let tokens = profile.tokens.as_ref().ok_or("token: the profile has no audience")?;
    let key = TokenKey::from_pkcs8(&key.key).ok_or("token: the tenant's key of tokens is none")?;
    let verified = said.appraisal.verified().ok_or("token: the evidence was not verified")?;
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| "token: no random bytes".to_owned())?;
    let id = TokenId::new(random);
    let word = |text: &str| Word::parse(text).map_err(|error| format!("token: {error}"));
    let (workload, spki) = (WorkloadDigest::new(*verified.report().host_data().as_bytes()), asked.key.spki_digest());
    let binding = asked.binding(said.connection, &spki, &workload);
    let terms = Terms {
        issuer: &tokens.issuer,
        audience: &asked.audience,
        verifier: &VerifierBuild {
            developer: word("coffer")?,
            build: word(concat!("coffer-kbs/", env!("CARGO_PKG_VERSION")))?,
        },
        policy: &word(&profile.terms.policy)?,
        revision: &word(&format!("sha256:{}", hex::encode(said.policy.digest())))?,
        lifetime: Lifetime::from_secs(i64::from(profile.lifetime)).map_err(|error| format!("token: {error}"))?,
        request_nonce: None,
        id,
        now: UnixTime(said.now),
    };
    let named = NamedBinding::Token { binding: &binding, key: &asked.key };
    let claims = EarClaims::of(&Judged::from(said.appraisal), &named, &terms);
    let claims = claims.map_err(|error| format!("token: {}", coffer_rim::chain(&error)))?;
    let text = claims.sign(&key).map_err(|error| format!("token: {error}"))?;
    Ok(Token { text, id: id.to_string() })
}
