//! What is asked, read once: a call that exists, with every parameter it has and no other.

use coffer_seal::SealPolicy;
use coffer_spec::SecretPath;
use coffer_verifier::{
    abi::ReportData,
    ear::{Nonce, Word},
};
use http::{Method, StatusCode, Uri};

use super::{limits::PLAIN, refusal::Refusal};
use crate::sealing::HEAD;

/// Longest data that evidence is made over.
const DATA: usize = 4096;
/// Longest signing request.
const CSR: usize = 16 * 1024;
/// Longest label of a sealed file.
const CONTEXT: usize = 128;
/// Longest name of a certificate profile.
const PROFILE: usize = 64;

/// One of the calls there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// A secret of the broker's, as it is now or in one version.
    Secret { path: SecretPath, version: Option<u64> },
    /// The body, or what of it stands behind the file that it replaces, sealed.
    Seal { policy: SealPolicy, context: Vec<u8>, counted: Counted },
    /// The body, opened.
    Unseal { context: Vec<u8> },
    /// The body, opened and sealed anew.
    Reseal { policy: Option<SealPolicy>, context: Vec<u8> },
    /// Evidence over the body.
    Evidence,
    /// A certificate for the key of the body's signing request.
    Certificate { profile: String },
    /// A token for the key of the body's signing request.
    Token { audience: Word, nonce: Option<Nonce> },
    /// Evidence over REPORT_DATA that has no label, in another form.
    CocoEvidence(ReportData),
    /// A token for a key that the agent makes.
    CocoToken,
}

/// Whether an older file in the place of a sealed one is to be noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// No.
    No,
    /// Yes: it is the first of its line.
    First,
    /// Yes: it takes the place of the file that begins with so many bytes of the body.
    Replaces(usize),
}

/// Method and path of each call; the OpenAPI file has the same.
pub const CALLS: [(&str, &str); 7] = [
    ("GET", "/v1/secrets/{repository}/{type}/{tag}"),
    ("POST", "/v1/seal"),
    ("POST", "/v1/unseal"),
    ("POST", "/v1/reseal"),
    ("POST", "/v1/evidence"),
    ("POST", "/v1/certificate"),
    ("POST", "/v1/token"),
];

impl Call {
    pub fn read(method: &Method, uri: &Uri) -> Result<Self, Refusal> {
        // The method before whatever else is wrong with it.
        if CALLS.iter().any(|(_, path)| *path == uri.path()) {
            only(method, &Method::POST)?;
        }
        let mut asked = Parameters::read(uri.query().unwrap_or_default())?;
        let call = match uri.path() {
            "/v1/seal" => {
                let policy = asked.policy()?.unwrap_or(SealPolicy::MeasurementAndChip);
                Self::Seal { policy, context: asked.context()?, counted: asked.counted()? }
            }
            "/v1/unseal" => Self::Unseal { context: asked.context()? },
            "/v1/reseal" => Self::Reseal { policy: asked.policy()?, context: asked.context()? },
            "/v1/evidence" => Self::Evidence,
            "/v1/certificate" => Self::Certificate { profile: asked.profile()? },
            "/v1/token" => Self::Token { audience: asked.audience()?, nonce: asked.nonce()? },
            path => {
                let path = secret_path(path.strip_prefix("/v1/secrets/").ok_or_else(nowhere)?)?;
                only(method, &Method::GET)?;
                Self::Secret { path, version: asked.version()? }
            }
        };
        asked.end()?;
        Ok(call)
    }

    /// Bytes of its body at most.
    pub const fn longest_body(&self) -> usize {
        match self {
            Self::Secret { .. } | Self::CocoEvidence(_) | Self::CocoToken => 0,
            Self::Seal { counted: Counted::Replaces(head), .. } => PLAIN + *head,
            Self::Seal { .. } => PLAIN,
            // A sealed file is longer than what it holds by its header and 16 bytes for each 64 KiB.
            Self::Unseal { .. } | Self::Reseal { .. } => PLAIN + 4096,
            Self::Evidence => DATA,
            Self::Certificate { .. } | Self::Token { .. } => CSR,
        }
    }
}

/// Refuses every method but one.
pub fn only(method: &Method, expected: &Method) -> Result<(), Refusal> {
    if method == expected {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method", format!("method: expected {expected}")))
}

/// A secret's path, as the rest of a call's.
pub fn secret_path(rest: &str) -> Result<SecretPath, Refusal> {
    let expected = "repository/type/tag, each of A-Z a-z 0-9 . _ -";
    format!("kbs:///{rest}").parse().map_err(|_| Refusal::field("path", expected))
}

fn nowhere() -> Refusal {
    let calls = CALLS.map(|(method, path)| format!("{method} {path}")).join(", ");
    Refusal::new(StatusCode::NOT_FOUND, "no-such-call", format!("there is no such call, but {calls}"))
}

/// The query: each name once, and none that nobody asks for.
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub fn read(query: &str) -> Result<Self, Refusal> {
        let mut all: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if all.iter().any(|(known, _)| *known == name) {
                return Err(Refusal::field("query", "each parameter once"));
            }
            all.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(all))
    }

    pub fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }

    fn policy(&mut self) -> Result<Option<SealPolicy>, Refusal> {
        let expected = "measurement-and-chip, chip, measurement, workload or signer";
        let parsed = self.take("policy").map(|name| name.parse());
        parsed.transpose().map_err(|_| Refusal::field("policy", expected))
    }

    fn context(&mut self) -> Result<Vec<u8>, Refusal> {
        match self.take("context") {
            Some(context) if (1..=CONTEXT).contains(&context.len()) => Ok(context.into_bytes()),
            _ => Err(Refusal::field("context", "1 to 128 bytes, what the file is for")),
        }
    }

    fn profile(&mut self) -> Result<String, Refusal> {
        match self.take("profile") {
            Some(profile) if (1..=PROFILE).contains(&profile.len()) => Ok(profile),
            _ => Err(Refusal::field("profile", "the name of a certificate profile of the broker's")),
        }
    }

    fn version(&mut self) -> Result<Option<u64>, Refusal> {
        let parsed = self.take("version").map(|version| version.parse());
        parsed.transpose().map_err(|_| Refusal::field("version", "a number"))
    }

    fn counted(&mut self) -> Result<Counted, Refusal> {
        let first = match self.take("counted").as_deref() {
            None => false,
            Some("true") => true,
            Some(_) => return Err(Refusal::field("counted", "true, or nothing")),
        };
        let expected = "how many bytes of the body are the file replaced: 1 to 65668 of its first, without `counted`";
        match self.take("replaces").map(|length| length.parse()) {
            None if first => Ok(Counted::First),
            None => Ok(Counted::No),
            Some(Ok(length)) if !first && (1..=HEAD).contains(&length) => Ok(Counted::Replaces(length)),
            Some(_) => Err(Refusal::field("replaces", expected)),
        }
    }

    fn audience(&mut self) -> Result<Word, Refusal> {
        let parsed = self.take("audience").map(|audience| Word::parse(&audience));
        parsed.and_then(Result::ok).ok_or_else(|| Refusal::field("audience", "one of the workload spec"))
    }

    fn nonce(&mut self) -> Result<Option<Nonce>, Refusal> {
        let parsed = self.take("nonce").map(|nonce| Nonce::parse(&nonce));
        parsed.transpose().map_err(|_| Refusal::field("nonce", "8 to 64 bytes, base64url without padding"))
    }

    pub fn end(self) -> Result<(), Refusal> {
        if self.0.is_empty() { Ok(()) } else { Err(Refusal::field("query", "no parameter but those of this call")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &str, uri: &str) -> Result<Call, Refusal> {
        Call::read(&method.parse().unwrap(), &uri.parse().unwrap())
    }

    #[test]
    fn each_call_is_read_with_what_it_takes() {
        let secret = |version| Call::Secret { path: "kbs:///app/db/password".parse().unwrap(), version };
        assert_eq!(read("GET", "/v1/secrets/app/db/password").unwrap(), secret(None));
        assert_eq!(read("GET", "/v1/secrets/app/db/password?version=3").unwrap(), secret(Some(3)));
        let context = b"a b".to_vec();
        let policy = SealPolicy::MeasurementAndChip;
        for (query, counted) in [
            ("", Counted::No),
            ("&counted=true", Counted::First),
            ("&replaces=1", Counted::Replaces(1)),
            ("&replaces=65668", Counted::Replaces(HEAD)),
        ] {
            let call = read("POST", &format!("/v1/seal?context=a%20b{query}")).unwrap();
            assert_eq!(call, Call::Seal { policy, context: context.clone(), counted });
        }
        let policy = Some(SealPolicy::Signer);
        assert_eq!(
            read("POST", "/v1/reseal?policy=signer&context=a+b").unwrap(),
            Call::Reseal { policy, context: context.clone() }
        );
        assert_eq!(read("POST", "/v1/unseal?context=a+b").unwrap(), Call::Unseal { context });
        assert_eq!(read("POST", "/v1/evidence").unwrap(), Call::Evidence);
        let audience = || Word::parse("https://a.example").unwrap();
        let token = |nonce| Call::Token { audience: audience(), nonce };
        assert_eq!(read("POST", "/v1/token?audience=https://a.example").unwrap(), token(None));
        let nonce = Some(Nonce::new(b"12345678").unwrap());
        assert_eq!(read("POST", "/v1/token?audience=https://a.example&nonce=MTIzNDU2Nzg").unwrap(), token(nonce));
        let profile = "server".to_owned();
        assert_eq!(read("POST", "/v1/certificate?profile=server").unwrap(), Call::Certificate { profile });
    }

    #[test]
    fn what_is_wrong_is_named_and_not_repeated() {
        for (method, uri, word) in [
            ("GET", "/", "no-such-call"),
            ("GET", "/v2/secrets/a/b/c", "no-such-call"),
            ("POST", "/v1/secrets/a/b/c", "method"),
            ("GET", "/v1/seal?context=canary", "method"),
            ("DELETE", "/v1/seal", "method"),
            ("GET", "/v1/secrets/a/b", "path"),
            ("GET", "/v1/secrets/a/b/../canary", "path"),
            ("GET", "/v1/secrets/a/b/c%2fcanary", "path"),
            ("GET", "/v1/secrets/a/b/c?version=canary", "version"),
            ("GET", "/v1/secrets/a/b/c?version=1&version=2", "query"),
            ("GET", "/v1/secrets/a/b/c?canary=1", "query"),
            ("POST", "/v1/seal", "context"),
            ("POST", "/v1/seal?context=", "context"),
            ("POST", "/v1/seal?context=x&policy=canary", "policy"),
            ("POST", "/v1/seal?context=x&counted=canary", "counted"),
            ("POST", "/v1/seal?context=x&counted=true&replaces=1", "replaces"),
            ("POST", "/v1/seal?context=x&replaces=0", "replaces"),
            ("POST", "/v1/seal?context=x&replaces=65669", "replaces"),
            ("POST", "/v1/seal?context=x&replaces=canary", "replaces"),
            ("POST", "/v1/unseal?context=x&counted=true", "query"),
            ("POST", "/v1/certificate", "profile"),
            ("POST", "/v1/token", "audience"),
            ("POST", "/v1/token?audience=a%20canary", "audience"),
            ("POST", "/v1/token?audience=a&nonce=canary", "nonce"),
            ("GET", "/v1/token?audience=a", "method"),
            ("GET", "/aa/token?token_type=kbs", "no-such-call"),
            ("POST", "/v1/evidence?data=canary", "query"),
        ] {
            let refusal = format!("{:?}", read(method, uri).expect_err(uri));
            assert!(refusal.contains(&format!("{word:?}")), "{uri}: {refusal}");
            assert!(!refusal.contains("canary"), "{uri}: {refusal}");
        }
        assert!(read("GET", "/v1/secrets/Demo/App/Pass").is_ok(), "as `coffer run --secret` takes it");
        assert!(format!("{:?}", read("GET", "/v1/secrets/a/b/%20").unwrap_err()).contains("A-Z a-z 0-9"));
        let long = format!("/v1/seal?context={}", "x".repeat(CONTEXT + 1));
        assert!(format!("{:?}", read("POST", &long).unwrap_err()).contains("context"));
    }
}
