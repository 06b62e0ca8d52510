//! Results for others: an entity attestation token (EAR) that says what the judge said, and the other end that reads one.
//!
//! [`EarClaims::of`] makes the claims of a [`Judged`] outcome; [`Token::parse`] and [`Token::verify`] are a relying party's.
//! A nonce or a key of the guest stands in a token only if a [`NamedBinding`] is shown to be inside its REPORT_DATA; there is no
//! other way to put one in. What a caller wants repeated stands apart, as `request_nonce`.
//! Trusts: the judge's outcome, and what a relying party demands. Believes nothing a token says before its signature holds.
//! Never: signs (that is [`TokenSigner`], at the rim), reads a clock, draws randomness, takes a key or an algorithm from a token.
//! Source: draft-ietf-rats-ear; draft-ietf-rats-ar4si; RFC 9711 (EAT), 7515 (JWS), 7517 (JWK), 7519 (JWT), 7638, 7800, 8725.

mod claims;
mod demands;
mod issuer;
mod jwk;
mod named;
mod once;
mod token;
mod vector;
mod words;

pub use claims::{EarClaims, EarError, Judged, Terms, TokenSigner, VerifierBuild};
pub use demands::{
    Demands, IssuerRule, KeyRule, NonceRule, PolicyRule, Refusal, SimulatedRule, Skew, TokenReason, WarningRule,
};
pub use issuer::{Issuer, IssuerError};
pub use jwk::{GuestKey, Jwks, JwksError, thumbprint};
pub use named::{NamedBinding, NotShown};
pub use token::{Token, TokenError, VerifiedToken};
pub use vector::{StatedStatus, Status, TrustVector};
pub use words::{Lifetime, Nonce, TokenId, Word, WordError};

/// The profile of our tokens: EAR as Veraison defines it, which its consumers look for.
pub const PROFILE: &str = "tag:github.com,2023:veraison/ear";
