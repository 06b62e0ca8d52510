//! A token, read: signature first, then what it says, then whether that will do.
//!
//! The algorithm is ours to say and the key is the relying party's: a header that names another algorithm, brings a key or has any
//! member but `alg`, `kid` and `typ` is refused. One text is one token, but for ECDSA itself: where (r, s) verifies, (r, n-s)
//! does as well, so that a token seen before is known by `jti` and never by its bytes.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde_json::{Map, Value};

use super::{
    PROFILE,
    claims::{ALGORITHM, Claims, TYPE},
    demands::{Demands, IssuerRule, KeyRule, NonceRule, PolicyRule, Refusal, SimulatedRule, TokenReason, WarningRule},
    jwk::{GuestKey, JwksError},
    once,
    vector::{StatedStatus, Status, TrustVector},
    words::{Lifetime, Nonce},
};
use crate::{SIGNATURE_SIZE, UnixTime, Verdict, abi::SpkiDigest};

/// A token, taken apart; nobody believes it yet.
#[derive(Clone, Debug)]
pub struct Token<'a> {
    /// What is signed.
    signed: &'a str,
    kid: String,
    payload: Vec<u8>,
    signature: [u8; SIGNATURE_SIZE],
}

/// A token that a listed key signed, and that is what was demanded. Only [`Token::verify`] makes one.
#[derive(Clone, Debug)]
pub struct VerifiedToken {
    claims: Claims,
    nonce: Option<Nonce>,
    request_nonce: Option<Nonce>,
    key: Option<GuestKey>,
}

/// Why a token does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Longer than any token.
    #[error("token of {found} bytes is longer than {MAX_TOKEN}")]
    TooLong {
        /// Bytes given.
        found: usize,
    },
    /// Not three parts.
    #[error("token is not three parts with dots between")]
    Parts,
    /// A part is not base64url without padding.
    #[error("{part} of the token is not base64url without padding")]
    Base64 {
        /// Which.
        part: &'static str,
    },
    /// A part is not the JSON expected.
    #[error("{part} of the token: {message}")]
    Json {
        /// Which.
        part: &'static str,
        /// The parser's words.
        message: String,
    },
    /// Another algorithm.
    #[error("token has algorithm {found:?}, expected \"ES384\"")]
    Algorithm {
        /// As stated.
        found: String,
    },
    /// Another type.
    #[error("token has type {found:?}, expected \"eat+jwt\"")]
    Type {
        /// As stated.
        found: String,
    },
    /// A member that no token of ours has: keys, certificates, `crit` and all others.
    #[error("header of the token has a member {name:?}")]
    Header {
        /// Its name.
        name: String,
    },
    /// By a key that is not listed.
    #[error("token is signed by key {kid:?}, which is not in the key set")]
    UnknownKey {
        /// As stated.
        kid: String,
    },
    /// The signature is wrong.
    #[error("signature of the token does not verify under key {kid}")]
    Signature {
        /// Which key.
        kid: String,
    },
    /// Another profile: its claims may mean something else.
    #[error("token has profile {found:?}, expected {PROFILE:?}")]
    Profile {
        /// As stated.
        found: String,
    },
    /// A nonce that is none.
    #[error("{claim} of the token is no nonce")]
    Nonce {
        /// Which.
        claim: &'static str,
    },
    /// A key that is none.
    #[error("cnf of the token is no public key")]
    Key(#[source] JwksError),
    /// Signed by the issuer, and not what was demanded.
    #[error("refused: {0}")]
    Refused(Refusal),
}

impl TokenError {
    /// Whether a listed key signed it, so that it is refused for what it says.
    pub const fn is_authentic(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

const MAX_TOKEN: usize = 64 * 1024;

impl<'a> Token<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// [`TokenError`] about its form.
    pub fn parse(text: &'a str) -> Result<Self, TokenError> {
        if text.len() > MAX_TOKEN {
            return Err(TokenError::TooLong { found: text.len() });
        }
        let mut parts = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Parts);
        };
        let decoded = |part, text| BASE64URL.decode(text).map_err(|_| TokenError::Base64 { part });
        let kid = key_named_by(&decoded("header", header)?)?;
        let signature_bytes = decoded("signature", signature)?;
        let signature = signature_bytes.try_into().map_err(|_| TokenError::Base64 { part: "signature" })?;
        let signed = &text[..header.len() + 1 + payload.len()];
        Ok(Self { signed, kid, payload: decoded("payload", payload)?, signature })
    }

    /// The name of the key that is said to have signed it.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// What it says, for people, and for whoever picks a key set by its issuer. Nobody may act on it.
    ///
    /// # Errors
    /// [`TokenError`] if that is not what a token of ours says.
    pub fn unverified(&self) -> Result<Value, TokenError> {
        let token = VerifiedToken::read(&self.payload)?;
        Ok(serde_json::to_value(&token.claims).expect("named fields are JSON"))
    }

    /// Believes it, if a listed key signed it and it is what is demanded.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn verify(&self, demands: &Demands<'_>, now: UnixTime) -> Result<VerifiedToken, TokenError> {
        let key = demands.keys.find(&self.kid).ok_or_else(|| TokenError::UnknownKey { kid: short(&self.kid) })?;
        if !key.verifies(self.signed.as_bytes(), &self.signature) {
            return Err(TokenError::Signature { kid: self.kid.clone() });
        }
        let token = VerifiedToken::read(&self.payload)?;
        let reasons = demands.against(&token, now);
        if reasons.is_empty() { Ok(token) } else { Err(TokenError::Refused(Refusal { reasons })) }
    }
}

/// The header has three members, and two of them one value each.
fn key_named_by(header: &[u8]) -> Result<String, TokenError> {
    let json = |error: serde_json::Error| TokenError::Json { part: "header", message: error.to_string() };
    once::check(header).map_err(json)?;
    let mut header: Map<String, Value> = serde_json::from_slice(header).map_err(json)?;
    let mut take = |name: &str| match header.remove(name) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(TokenError::Json { part: "header", message: format!("{name} is no string") }),
        None => Err(TokenError::Json { part: "header", message: format!("{name} is missing") }),
    };
    let (algorithm, kind, kid) = (take("alg")?, take("typ")?, take("kid")?);
    if algorithm != ALGORITHM {
        return Err(TokenError::Algorithm { found: short(&algorithm) });
    }
    if kind != TYPE {
        return Err(TokenError::Type { found: short(&kind) });
    }
    match header.keys().next() {
        Some(name) => Err(TokenError::Header { name: short(name) }),
        None => Ok(kid),
    }
}

/// Enough of somebody's text to recognise it.
fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

impl VerifiedToken {
    /// Reads claims, wherever they are from.
    fn read(payload: &[u8]) -> Result<Self, TokenError> {
        let json = |error: serde_json::Error| TokenError::Json { part: "payload", message: error.to_string() };
        once::check(payload).map_err(json)?;
        let claims: Claims = serde_json::from_slice(payload).map_err(json)?;
        if claims.profile != PROFILE {
            return Err(TokenError::Profile { found: short(&claims.profile) });
        }
        let nonce = |claim, text: Option<&String>| {
            text.map(|text| Nonce::parse(text).map_err(|_| TokenError::Nonce { claim })).transpose()
        };
        let key = claims.confirmation.as_ref().map(|cnf| GuestKey::from_jwk(&cnf.jwk)).transpose();
        Ok(Self {
            nonce: nonce("eat_nonce", claims.nonce.as_ref())?,
            request_nonce: nonce("request_nonce", claims.request_nonce.as_ref())?,
            key: key.map_err(TokenError::Key)?,
            claims,
        })
    }

    /// Who issued it.
    pub fn issuer(&self) -> &str {
        &self.claims.issuer
    }

    /// For whom it is.
    pub fn audience(&self) -> &str {
        &self.claims.audience
    }

    /// When it was issued.
    pub const fn issued(&self) -> UnixTime {
        UnixTime(self.claims.issued)
    }

    /// When it ends.
    pub const fn expires(&self) -> UnixTime {
        UnixTime(self.claims.expires)
    }

    /// Its name: what tells a token seen before.
    pub fn id(&self) -> &str {
        &self.claims.id
    }

    /// The evidence is a simulator's.
    pub const fn simulated(&self) -> bool {
        self.claims.simulated
    }

    /// The nonce inside the evidence.
    pub const fn nonce(&self) -> Option<&Nonce> {
        self.nonce.as_ref()
    }

    /// The nonce of whoever asked for the token.
    pub const fn request_nonce(&self) -> Option<&Nonce> {
        self.request_nonce.as_ref()
    }

    /// The key inside the evidence.
    pub const fn key(&self) -> Option<&GuestKey> {
        self.key.as_ref()
    }

    /// The tier it states.
    pub const fn status(&self) -> Status {
        self.claims.submodules.cpu0.status
    }

    /// Its status as it is held against demands, and told.
    pub fn stated_status(&self) -> StatedStatus {
        let vector = self.vector();
        // Simulated evidence has a bad status for its hardware, which is asked about by itself; nothing else is forgiven it.
        let but_for_hardware = self.simulated().then(|| vector.worst_but_hardware());
        StatedStatus { stated: self.status().max(vector.worst()), but_for_hardware }
    }

    /// Its claims in AR4SI's words.
    pub const fn vector(&self) -> &TrustVector {
        &self.claims.submodules.cpu0.vector
    }

    /// The verifier's verdict, as a word.
    pub fn verdict(&self) -> &str {
        &self.claims.submodules.cpu0.verdict
    }

    /// The policy.
    pub fn policy(&self) -> &str {
        &self.claims.submodules.cpu0.policy
    }

    /// The text of the policy.
    pub fn revision(&self) -> &str {
        &self.claims.submodules.cpu0.revision
    }

    /// The root; none if the evidence was not authentic.
    pub const fn anchor(&self) -> Option<SpkiDigest> {
        self.claims.submodules.cpu0.anchor
    }

    /// The report's fields, as [`crate::Claims`] names them; null if the evidence was not authentic.
    pub const fn claims(&self) -> &Value {
        &self.claims.submodules.cpu0.claims
    }

    /// All it says.
    pub fn to_json(&self) -> Value {
        serde_json::to_value(&self.claims).expect("named fields are JSON")
    }
}

impl Demands<'_> {
    /// What is against a token that a listed key signed.
    fn against(&self, token: &VerifiedToken, now: UnixTime) -> Vec<TokenReason> {
        use TokenReason as R;
        let mut reasons = Vec::new();
        let skew = self.skew.as_secs();
        if let IssuerRule::Exactly(expected) = &self.issuer
            && token.issuer() != expected.as_str()
        {
            reasons.push(R::Issuer { found: token.issuer().to_owned(), expected: expected.clone() });
        }
        if token.audience() != self.audience.as_str() {
            reasons.push(R::Audience { found: token.audience().to_owned(), expected: self.audience.clone() });
        }
        let (issued, expires) = (token.issued(), token.expires());
        if expires.0.saturating_add(skew) <= now.0 {
            reasons.push(R::Expired { at: expires, now });
        }
        if issued.0.saturating_sub(skew) > now.0 {
            reasons.push(R::FromTheFuture { at: issued, now });
        }
        if let Some(at) = token.claims.not_before.filter(|at| at.saturating_sub(skew) > now.0) {
            reasons.push(R::NotYet { at: UnixTime(at), now });
        }
        let found = expires.0.saturating_sub(issued.0);
        if Lifetime::from_secs(found).is_err() {
            reasons.push(R::Lifetime { found });
        }
        if let NonceRule::Exactly(expected) = &self.nonce
            && token.nonce() != Some(expected)
        {
            reasons.push(R::Nonce { found: token.nonce().cloned(), expected: expected.clone() });
        }
        if let NonceRule::Exactly(expected) = &self.request_nonce
            && token.request_nonce() != Some(expected)
        {
            reasons.push(R::RequestNonce { found: token.request_nonce().cloned(), expected: expected.clone() });
        }
        if let KeyRule::Exactly(expected) = &self.key
            && token.key() != Some(expected)
        {
            reasons.push(R::Key { found: token.key().cloned(), expected: expected.clone() });
        }
        if let PolicyRule::Exactly { policy, revision } = &self.policy {
            if token.policy() != policy.as_str() {
                reasons.push(R::Policy { found: token.policy().to_owned(), expected: policy.clone() });
            }
            if let Some(expected) = revision.as_ref().filter(|revision| token.revision() != revision.as_str()) {
                reasons.push(R::Revision { found: token.revision().to_owned(), expected: expected.clone() });
            }
        }
        self.against_the_guest(token, &mut reasons);
        reasons
    }

    fn against_the_guest(&self, token: &VerifiedToken, reasons: &mut Vec<TokenReason>) {
        use TokenReason as R;
        if token.simulated() && self.simulated == SimulatedRule::Refused {
            reasons.push(R::Simulated);
        }
        if token.verdict() != Verdict::Accepted.as_str() {
            reasons.push(R::Verdict { found: token.verdict().to_owned() });
        }
        let found = token.stated_status();
        let (expected, good) = match self.warnings {
            WarningRule::Refused => (Status::Affirming, found.counted() == Status::Affirming),
            WarningRule::Accepted => (Status::Warning, matches!(found.counted(), Status::Affirming | Status::Warning)),
        };
        if !good {
            reasons.push(R::Status { found, expected });
        }
    }
}
