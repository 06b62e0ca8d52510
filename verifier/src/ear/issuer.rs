//! Who issues tokens, and where its documents are.
//!
//! Source: OpenID Connect Discovery 1.0 §3, §4; RFC 8414 §2.

use serde_json::json;

/// The address of an issuer: what stands in `iss`, and in front of `/.well-known/…`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Issuer(String);

/// Text is no issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected https://HOST, with port and path if need be, and nothing behind: no slash at the end, no query")]
pub struct IssuerError;

impl Issuer {
    /// From text.
    ///
    /// # Errors
    /// [`IssuerError`]: no https, no host, a slash at the end, user, query or fragment.
    pub fn parse(text: &str) -> Result<Self, IssuerError> {
        let rest = text.strip_prefix("https://").ok_or(IssuerError)?;
        let host = rest.split('/').next().unwrap_or_default();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/[]%".contains(&byte);
        let good = text.len() <= 256 && !host.is_empty() && !rest.ends_with('/') && rest.bytes().all(plain);
        if good { Ok(Self(text.to_owned())) } else { Err(IssuerError) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where its keys are.
    pub fn jwks_uri(&self) -> String {
        format!("{}/.well-known/jwks.json", self.0)
    }

    /// The document at `/.well-known/openid-configuration`.
    pub fn configuration(&self) -> String {
        let document = json!({
            "issuer": self.0,
            "jwks_uri": self.jwks_uri(),
            "id_token_signing_alg_values_supported": ["ES384"],
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "scopes_supported": ["openid"],
            "claims_supported": ["aud", "cnf", "eat_nonce", "eat_profile", "exp", "iat", "iss", "jti", "request_nonce", "simulated", "submods"],
        });
        format!("{document:#}\n")
    }
}

impl core::fmt::Display for Issuer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_an_address_and_its_documents_say_so() {
        for bad in [
            "",
            "http://a",
            "https://",
            "https://a/",
            "https://a?b",
            "https://a#b",
            "https://u@a",
            "https://a b",
            "https:///a",
        ] {
            assert_eq!(Issuer::parse(bad), Err(IssuerError), "{bad}");
        }
        let issuer = Issuer::parse("https://verifier.example:8443/eu").unwrap();
        let document: serde_json::Value = serde_json::from_str(&issuer.configuration()).unwrap();
        assert_eq!(document["issuer"], "https://verifier.example:8443/eu");
        assert_eq!(document["jwks_uri"], "https://verifier.example:8443/eu/.well-known/jwks.json");
    }
}
