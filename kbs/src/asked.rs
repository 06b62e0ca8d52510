//! What a guest asks for, as far as it can be understood. What cannot is refused and recorded like anything else.

use coffer_kbs_client::{ResourcePath, SealingName, kbs::v1 as wire};
use coffer_verifier::{
    P384PublicKey,
    abi::{REPORT_LEN, ReportData, SpkiDigest, WorkloadDigest},
    binding::TokenBinding,
    ear::{Nonce, Word},
};

use crate::{certificate::Requested, store::AuditEntry};

/// One question.
pub enum Asked {
    /// A secret: one version of it, or the current one.
    Secret {
        /// Where.
        path: ResourcePath,
        /// Which.
        version: Option<u64>,
    },
    /// A sealing key.
    SealingKey(SealingName),
    /// A counter, and where it is to go.
    Generation {
        /// Of what is sealed under this name.
        name: SealingName,
        /// Which.
        counter: [u8; 16],
        /// From where to where; nothing: it is read.
        step: Option<(u64, u64)>,
    },
    /// A certificate.
    Certificate {
        /// What it is to say.
        profile: String,
        /// For whom.
        key: Requested,
    },
    /// A token.
    Token(Box<TokenAsked>),
}

/// What a token is to say, and the report that shows that the guest wants it to.
pub struct TokenAsked {
    /// To whom.
    pub audience: Word,
    /// What is to be repeated, if anything.
    pub nonce: Option<Nonce>,
    /// Whose it is.
    pub key: P384PublicKey,
    /// The guest's report, as it came.
    pub report: Vec<u8>,
}

impl TokenAsked {
    /// What the report must be made over, on a connection whose evidence has this REPORT_DATA. `key`: digest of its key.
    pub fn binding<'a>(
        &'a self,
        connection: &'a ReportData,
        key: &'a SpkiDigest,
        workload: &'a WorkloadDigest,
    ) -> TokenBinding<'a> {
        let nonce = self.nonce.as_ref().map(Nonce::as_bytes).unwrap_or_default();
        TokenBinding { connection, key, audience: self.audience.as_str(), nonce, workload }
    }
}

impl Asked {
    /// What kind of thing it is, as policies see it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Secret { .. } => "secret",
            Self::SealingKey(_) => "sealing-key",
            Self::Generation { .. } => "generation",
            Self::Certificate { .. } => "certificate",
            Self::Token(_) => "token",
        }
    }

    /// What it is called, as policies see it.
    pub fn name(&self) -> String {
        match self {
            Self::Secret { path, .. } => path.to_string(),
            Self::SealingKey(name) | Self::Generation { name, .. } => name.to_string(),
            Self::Certificate { profile, .. } => profile.clone(),
            Self::Token(token) => token.audience.to_string(),
        }
    }
}

/// A question, with what the trail says of it where it cannot be understood.
pub struct Question {
    /// Word of the trail.
    pub event: &'static str,
    /// What is asked, or why that is not clear.
    pub asked: Result<Asked, String>,
}

impl From<wire::GetSecretRequest> for Question {
    fn from(request: wire::GetSecretRequest) -> Self {
        let asked = match (request.path.parse(), request.version) {
            (Err(_), _) => Err("path: not kbs:///repository/type/tag".to_owned()),
            (Ok(_), Some(0)) => Err("version: there is no version 0".to_owned()),
            (Ok(path), version) => Ok(Asked::Secret { path, version }),
        };
        Self { event: "secret.release", asked }
    }
}

impl From<wire::GetSealingKeyRequest> for Question {
    fn from(request: wire::GetSealingKeyRequest) -> Self {
        Self { event: "sealing-key.release", asked: name(request.name).map(Asked::SealingKey) }
    }
}

impl From<wire::GenerationRequest> for Question {
    fn from(request: wire::GenerationRequest) -> Self {
        let event = if request.step.is_some() { "generation.set" } else { "generation.read" };
        let asked = name(request.name).and_then(|name| {
            let counter =
                request.counter_id.as_slice().try_into().map_err(|_| "counter_id: not 16 bytes".to_owned())?;
            if counter == [0; 16] {
                return Err("counter_id: is zero".to_owned());
            }
            let step = request.step.map(|step| (step.expected, step.next));
            match step {
                Some((expected, next)) if next <= expected => {
                    Err(format!("step: found next {next}, expected more than {expected}"))
                }
                step => Ok(Asked::Generation { name, counter, step }),
            }
        });
        Self { event, asked }
    }
}

impl From<wire::IssueCertificateRequest> for Question {
    fn from(request: wire::IssueCertificateRequest) -> Self {
        let asked = match Requested::parse(&request.csr) {
            _ if request.profile.parse::<coffer_spec::Name>().is_err() => Err("profile: not a name".to_owned()),
            Ok(key) => Ok(Asked::Certificate { profile: request.profile, key }),
            Err(error) => Err(error.to_string()),
        };
        Self { event: "certificate.issue", asked }
    }
}

impl From<wire::IssueTokenRequest> for Question {
    fn from(request: wire::IssueTokenRequest) -> Self {
        Self { event: "token.issue", asked: token(request).map(|token| Asked::Token(Box::new(token))) }
    }
}

fn token(request: wire::IssueTokenRequest) -> Result<TokenAsked, String> {
    let audience = Word::parse(&request.audience).map_err(|error| format!("audience: {error}"))?;
    let requested = Requested::parse(&request.csr).map_err(|error| error.to_string())?;
    let key = requested.p384().ok_or("csr: its key is not ECDSA on P-384, as that of a token is")?;
    let nonce = request.nonce.map(|nonce| Nonce::new(&nonce)).transpose();
    let nonce = nonce.map_err(|_| "nonce: expected 8 to 64 bytes, or none")?;
    if request.report.len() != REPORT_LEN {
        return Err(format!("report: {} bytes, expected {REPORT_LEN}", request.report.len()));
    }
    Ok(TokenAsked { audience, nonce, key, report: request.report })
}

fn name(wire: Option<wire::SealingName>) -> Result<SealingName, String> {
    let wire = wire.ok_or("name: none was given")?;
    if wire.context.is_empty() || wire.context.len() > SealingName::CONTEXT {
        return Err(format!("context: {} bytes, expected 1 to {}", wire.context.len(), SealingName::CONTEXT));
    }
    Ok(SealingName {
        policy: wire.policy.parse().map_err(|error| format!("policy: {error}"))?,
        scope: wire.scope.parse().map_err(|error| format!("scope: {error}"))?,
        context: wire.context,
        minimum_svn: wire.minimum_svn,
    })
}

impl Question {
    /// What the trail says about it.
    pub fn entry(&self) -> AuditEntry {
        let entry = AuditEntry { event: self.event, ..AuditEntry::default() };
        match &self.asked {
            Ok(Asked::Secret { path, version }) => {
                AuditEntry { path: Some(path.to_string()), version: *version, ..entry }
            }
            Ok(Asked::SealingKey(name)) => AuditEntry { name: Some(name.to_string()), ..entry },
            Ok(Asked::Generation { name, counter, .. }) => {
                AuditEntry { name: Some(name.to_string()), counter: Some(hex::encode(counter)), ..entry }
            }
            Ok(Asked::Certificate { profile, key }) => {
                AuditEntry { name: Some(profile.clone()), key: Some(key.spki.to_string()), ..entry }
            }
            Ok(Asked::Token(token)) => AuditEntry {
                name: Some(token.audience.to_string()),
                key: Some(token.key.spki_digest().to_string()),
                ..entry
            },
            Err(_) => entry,
        }
    }
}
