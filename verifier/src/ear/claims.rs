//! The claims of a token, made of what the judge said.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};

use super::{
    PROFILE,
    issuer::Issuer,
    jwk::thumbprint,
    named::{NamedBinding, NotShown, Shown},
    vector::{Status, TrustVector},
    words::{Lifetime, Nonce, TokenId, Word},
};
use crate::{
    Appraisal, AttestationResult, CheckLine, P384PublicKey, Reason, Rejection, SIGNATURE_SIZE, UnixTime, Verdict,
    VerifiedReport, abi::SpkiDigest,
};

/// What the judge said, accepted or not. Made of what only the judge makes.
#[derive(Clone, Debug)]
pub struct Judged<'a> {
    verdict: Verdict,
    verified: Option<&'a VerifiedReport>,
    checks: Vec<Cow<'a, CheckLine>>,
    reasons: &'a [Reason],
}

impl<'a> From<&'a Appraisal> for Judged<'a> {
    fn from(appraisal: &'a Appraisal) -> Self {
        match appraisal.result() {
            Some(result) => result.into(),
            None => Self {
                verdict: appraisal.verdict(),
                verified: appraisal.verified(),
                checks: appraisal.lines(),
                reasons: appraisal.reasons(),
            },
        }
    }
}

/// One that was downgraded is refused.
impl<'a> From<&'a AttestationResult> for Judged<'a> {
    fn from(result: &'a AttestationResult) -> Self {
        Self {
            verdict: if result.is_affirming() { Verdict::Accepted } else { Verdict::Refused },
            verified: Some(result.verified()),
            checks: result.lines().collect(),
            reasons: result.downgrades(),
        }
    }
}

impl<'a> Judged<'a> {
    /// An authentic report that was refused.
    pub fn rejected(verified: &'a VerifiedReport, rejection: &'a Rejection) -> Self {
        Self {
            verdict: Verdict::Refused,
            verified: Some(verified),
            checks: rejection.checks().iter().map(Cow::Borrowed).collect(),
            reasons: rejection.reasons(),
        }
    }
}

/// Which program judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierBuild {
    /// Who made it.
    pub developer: Word,
    /// Its name and version.
    pub build: Word,
}

/// Everything in a token that is not the judge's.
#[derive(Clone, Debug)]
pub struct Terms<'a> {
    /// Who issues.
    pub issuer: &'a Issuer,
    /// For whom alone it is.
    pub audience: &'a Word,
    /// The program.
    pub verifier: &'a VerifierBuild,
    /// The policy that was asked.
    pub policy: &'a Word,
    /// Which text of it: a digest or a bundle's revision.
    pub revision: &'a Word,
    /// How long it is good, at most.
    pub lifetime: Lifetime,
    /// What the caller wants repeated. It shows that the token is fresh, and nothing of the evidence.
    pub request_nonce: Option<&'a Nonce>,
    /// Its name.
    pub id: TokenId,
    /// Now.
    pub now: UnixTime,
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EarError {
    /// The binding named is not the report's.
    #[error("the binding is not inside the report")]
    NotShown(#[source] NotShown),
    /// Judged too long ago, or later than now.
    #[error("evidence was judged at {judged}, and it is {now}: a token is issued within {MAX_AGE} s")]
    Age {
        /// When it was judged.
        judged: UnixTime,
        /// The caller's time.
        now: UnixTime,
    },
    /// A certificate or the list has run out.
    #[error("what the evidence rests on was valid until {until}, and it is {now}")]
    Outlived {
        /// The first of its dates.
        until: UnixTime,
        /// The caller's time.
        now: UnixTime,
    },
}

/// Seconds from judgement to token.
const MAX_AGE: i64 = 300;

/// The claims of one token. Only [`EarClaims::of`] makes one.
#[derive(Clone, Debug)]
pub struct EarClaims(Claims<Option<crate::Claims>>);

/// Signs tokens with ES384. Implemented where private keys are.
pub trait TokenSigner {
    /// Why it could not sign.
    type Error;

    /// The public half.
    fn public(&self) -> &P384PublicKey;

    /// ECDSA with SHA-384: R, then S, big endian.
    ///
    /// # Errors
    /// Its own.
    fn sign(&self, message: &[u8]) -> Result<[u8; SIGNATURE_SIZE], Self::Error>;
}

impl EarClaims {
    /// Makes the claims. A token ends with the first date of what the evidence rests on, if that is sooner than its lifetime.
    ///
    /// # Errors
    /// [`EarError`].
    pub fn of(judged: &Judged<'_>, binding: &NamedBinding<'_>, terms: &Terms<'_>) -> Result<Self, EarError> {
        let now = terms.now;
        let mut expires = UnixTime(now.0.saturating_add(terms.lifetime.as_secs()));
        let (shown, vector) = match judged.verified {
            None => (Shown::nothing(), TrustVector::not_authentic()),
            Some(verified) => {
                let (at, (_, until)) = (verified.verified_at(), verified.validity());
                if now < at || now.0 > at.0.saturating_add(MAX_AGE) {
                    return Err(EarError::Age { judged: at, now });
                }
                if until <= now {
                    return Err(EarError::Outlived { until, now });
                }
                expires = expires.min(until);
                let shown = Shown::inside(verified, binding).map_err(EarError::NotShown)?;
                (shown, TrustVector::of(verified, &judged.checks))
            }
        };
        let cpu0 = Submodule {
            status: vector.status(judged.verdict),
            vector,
            policy: terms.policy.to_string(),
            revision: terms.revision.to_string(),
            verdict: judged.verdict.as_str().to_owned(),
            binding: shown.name().to_owned(),
            anchor: judged.verified.map(|verified| verified.anchor().spki_sha256),
            reasons: judged.reasons.iter().map(|reason| serde_json::to_value(reason).expect("words")).collect(),
            claims: judged.verified.map(VerifiedReport::claims),
        };
        Ok(Self(Claims {
            profile: PROFILE.to_owned(),
            issuer: terms.issuer.to_string(),
            audience: terms.audience.to_string(),
            issued: now.0,
            expires: expires.0,
            not_before: None,
            id: terms.id.to_string(),
            simulated: judged.verified.is_some_and(VerifiedReport::simulated),
            nonce: shown.nonce().map(ToString::to_string),
            confirmation: shown.key().map(|key| Confirmation { jwk: key.to_jwk() }),
            request_nonce: terms.request_nonce.map(ToString::to_string),
            verifier: Build {
                developer: terms.verifier.developer.to_string(),
                build: terms.verifier.build.to_string(),
            },
            submodules: Submodules { cpu0 },
        }))
    }

    /// The token: JWS compact serialisation.
    ///
    /// # Errors
    /// The signer's.
    pub fn sign<S: TokenSigner>(&self, signer: &S) -> Result<String, S::Error> {
        let header = Header { algorithm: ALGORITHM.into(), key: thumbprint(signer.public()), kind: TYPE.into() };
        let part = |value: Vec<u8>| BASE64URL.encode(value);
        let header = part(serde_json::to_vec(&header).expect("strings are JSON"));
        let mut token = format!("{header}.{}", part(serde_json::to_vec(&self.0).expect("named fields are JSON")));
        let signature = signer.sign(token.as_bytes())?;
        token.push('.');
        token.push_str(&BASE64URL.encode(signature));
        Ok(token)
    }
}

/// The one algorithm.
pub(super) const ALGORITHM: &str = "ES384";
/// The one type: an EAT as a JWT (RFC 9711 §7).
pub(super) const TYPE: &str = "eat+jwt";

/// The protected header; nothing else may stand in it.
#[derive(Serialize)]
struct Header {
    #[serde(rename = "alg")]
    algorithm: String,
    #[serde(rename = "kid")]
    key: String,
    #[serde(rename = "typ")]
    kind: String,
}

/// Claims as they travel. What we do not know is passed over, as RFC 7519 §4 has it. `C`: those of the report, which are written as
/// what they are, and read as whatever stands there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Claims<C = Value> {
    #[serde(rename = "eat_profile")]
    pub profile: String,
    #[serde(rename = "iss")]
    pub issuer: String,
    #[serde(rename = "aud")]
    pub audience: String,
    #[serde(rename = "iat")]
    pub issued: i64,
    #[serde(rename = "exp")]
    pub expires: i64,
    /// Never ours. One of another program's is kept to (RFC 7519 §4.1.5).
    #[serde(rename = "nbf", default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<i64>,
    #[serde(rename = "jti")]
    pub id: String,
    pub simulated: bool,
    #[serde(rename = "eat_nonce", default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    #[serde(rename = "cnf", default, skip_serializing_if = "Option::is_none")]
    pub confirmation: Option<Confirmation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_nonce: Option<String>,
    #[serde(rename = "ear.verifier-id")]
    pub verifier: Build,
    #[serde(rename = "submods")]
    pub submodules: Submodules<C>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Confirmation {
    pub jwk: Value,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Build {
    pub developer: String,
    pub build: String,
}

/// One guest, one submodule: of another nobody here could say whether it is good.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Submodules<C> {
    pub cpu0: Submodule<C>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Submodule<C> {
    #[serde(rename = "ear.status")]
    pub status: Status,
    #[serde(rename = "ear.trustworthiness-vector")]
    pub vector: TrustVector,
    #[serde(rename = "ear.appraisal-policy-id")]
    pub policy: String,
    #[serde(rename = "ear.coffer.policy-revision")]
    pub revision: String,
    #[serde(rename = "ear.coffer.verdict")]
    pub verdict: String,
    #[serde(rename = "ear.coffer.binding")]
    pub binding: String,
    #[serde(rename = "ear.coffer.anchor")]
    pub anchor: Option<SpkiDigest>,
    #[serde(rename = "ear.coffer.reasons")]
    pub reasons: Vec<Value>,
    #[serde(rename = "ear.coffer.claims")]
    pub claims: C,
}
