//! An owner at the agent of a box: the owner's key, what the guest must prove, and the connection on which it proved it.
//!
//! Trusts: the owner's key file, the anchors and the policy the caller lists. Believes nothing the host says about the box.
//! Never: writes a secret to a guest before its evidence for this connection was admitted.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use coffer_guest_proto::ports;
use coffer_ratls::{
    Appraiser, AttestedConnection, ConnectError, Identity, IdentityError, Purpose, Refusal, connect_and_verify,
};
use coffer_rim::{Class, Failure};
use coffer_verifier::{
    AttestationResult, CheckLine, Claims, CrlPolicy, Endorsements, EvidencePolicy, ExpectedReportData, Reason,
    TrustAnchors, UnixTime, abi::ReportData, appraise, evidence::Evidence, verify,
};

use crate::hybrid::{self, HybridError};

impl From<OwnerKeyError> for Failure {
    fn from(error: OwnerKeyError) -> Self {
        let failure = Self::caused(Class::Config, &error);
        match error {
            OwnerKeyError::Exists(_) => {
                failure.hint("`coffer owner show` prints it; a key that is removed is lost, and with it all it may do")
            }
            OwnerKeyError::Missing(_) => failure.hint("make one with `coffer owner init`"),
            _ => failure,
        }
    }
}

/// Why there is no owner's key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnerKeyError {
    /// There is one already; it is never overwritten.
    #[error("{0} is there already")]
    Exists(PathBuf),
    /// None was made.
    #[error("no owner's key at {0}")]
    Missing(PathBuf),
    /// A file cannot be read or written.
    #[error("{path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What lies there is no identity.
    #[error("{path} is no owner's key")]
    Identity {
        /// Which.
        path: PathBuf,
        /// Why.
        source: IdentityError,
    },
}

/// Makes an owner's key in `folder`: `key.pem` (0600) and `cert.pem`.
///
/// # Errors
/// [`OwnerKeyError::Exists`] if there is one.
pub fn init(folder: &Path) -> Result<Identity, OwnerKeyError> {
    let (key, certificate) = (folder.join("key.pem"), folder.join("cert.pem"));
    let of_folder = |source| OwnerKeyError::File { path: folder.into(), source };
    crate::home::private_folder(folder).map_err(|error| of_folder(io::Error::other(error.to_string())))?;
    // Two first uses at once would pair the key of one with the certificate of the other.
    let lock = fs::File::open(folder).map_err(of_folder)?;
    lock.lock().map_err(of_folder)?;
    if key.exists() {
        return Err(OwnerKeyError::Exists(key));
    }
    let identity =
        Identity::generate("coffer owner").map_err(|source| OwnerKeyError::Identity { path: key.clone(), source })?;
    let pem = identity.to_pem();
    // The certificate first: a folder with a key is complete.
    let write = |path: &Path, bytes: &str| {
        let file = |source| OwnerKeyError::File { path: path.into(), source };
        coffer_rim::file::write_private(path, bytes.as_bytes()).map_err(file)
    };
    write(&certificate, &pem.certificate)?;
    write(&key, &pem.key)?;
    Ok(identity)
}

/// Reads the owner's key of `folder`.
///
/// # Errors
/// [`OwnerKeyError::Missing`] if none was made.
pub fn load(folder: &Path) -> Result<Identity, OwnerKeyError> {
    let (key, certificate) = (folder.join("key.pem"), folder.join("cert.pem"));
    if !key.exists() {
        return Err(OwnerKeyError::Missing(key));
    }
    let read =
        |path: &Path| fs::read_to_string(path).map_err(|source| OwnerKeyError::File { path: path.into(), source });
    let secret = zeroize::Zeroizing::new(read(&key)?);
    Identity::from_pem(&read(&certificate)?, &secret).map_err(|source| OwnerKeyError::Identity { path: key, source })
}

/// The owner's key of `folder`, made on first use.
///
/// # Errors
/// [`OwnerKeyError`].
pub fn load_or_init(folder: &Path) -> Result<Identity, OwnerKeyError> {
    match init(folder) {
        Err(OwnerKeyError::Exists(_)) => load(folder),
        other => other,
    }
}

/// How an appraisal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Authentic and wanted.
    Accepted,
    /// Not what AMD, or a listed anchor, signed for this connection.
    NotAuthentic,
    /// Authentic, and not what is wanted.
    Refused,
}

/// What the appraisal of a guest found, for people.
#[derive(Clone, Debug)]
pub struct Findings {
    /// How it ended.
    pub verdict: Verdict,
    /// What an authentic report says, and the root it rests on; none if it is not authentic.
    pub claims: Option<Claims>,
    /// Every check, in order.
    pub checks: Vec<CheckLine>,
    /// Every reason against it.
    pub reasons: Vec<Reason>,
    /// The evidence that was judged.
    pub evidence: Evidence,
}

/// Judges a guest as its owner would: the anchors listed, a fresh CRL, the policy.
pub struct GuestAppraiser {
    anchors: TrustAnchors,
    policy: EvidencePolicy,
    findings: Mutex<Option<Findings>>,
}

impl GuestAppraiser {
    /// Judges by these.
    pub fn new(anchors: TrustAnchors, policy: EvidencePolicy) -> Self {
        Self { anchors, policy, findings: Mutex::new(None) }
    }

    /// What the last appraisal found; none if no evidence came that was made for the connection.
    pub fn findings(&self) -> Option<Findings> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn judge(&self, evidence: &Evidence, expected: &ReportData) -> (Findings, Option<AttestationResult>) {
        let findings = |verdict, claims, checks, reasons| Findings {
            verdict,
            claims,
            checks,
            reasons,
            evidence: evidence.clone(),
        };
        let not_authentic = |reason: Reason| {
            (findings(Verdict::NotAuthentic, None, vec![CheckLine::from(&reason)], vec![reason]), None)
        };
        let endorsements = match Endorsements::from_evidence(evidence) {
            Ok(endorsements) => endorsements,
            Err(error) => {
                let hint = "the host supplies the certificate table; ask it for AMD's";
                return not_authentic(Reason::new("endorsements-malformed", error, "AMD's certificates", hint));
            }
        };
        let verified = verify(
            &evidence.report,
            &endorsements,
            &self.anchors,
            &ExpectedReportData::Exactly(*expected),
            &CrlPolicy::Required,
            UnixTime::from(SystemTime::now()),
        );
        let verified = match verified {
            Ok(verified) => verified,
            Err(error) => return not_authentic(error.reason()),
        };
        match appraise(&verified, &self.policy) {
            Ok(result) => {
                (findings(Verdict::Accepted, Some(result.claims()), result.checks(), Vec::new()), Some(result))
            }
            Err(rejection) => {
                let mut checks = verified.checks();
                checks.extend_from_slice(rejection.checks());
                (findings(Verdict::Refused, Some(verified.claims()), checks, rejection.reasons().to_vec()), None)
            }
        }
    }
}

impl Appraiser for GuestAppraiser {
    type Admitted = AttestationResult;

    fn appraise(&self, evidence: &Evidence, expected: &ReportData) -> Result<AttestationResult, Refusal> {
        let (findings, result) = self.judge(evidence, expected);
        let code = if findings.verdict == Verdict::Refused { "refused" } else { "not-authentic" };
        let detail = findings.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        *self.findings.lock().unwrap_or_else(PoisonError::into_inner) = Some(findings);
        result.ok_or(Refusal { code, detail })
    }
}

/// Why an owner has no connection to a guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnerError {
    /// The guest's port was not reached.
    #[error(transparent)]
    Line(#[from] HybridError),
    /// TLS, the attestation call, or the guest's evidence.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// A connection to an agent whose guest was admitted.
pub type OwnerConnection = AttestedConnection<AttestationResult>;

/// Connects to the agent of the box in `folder` and has its evidence judged. What was found stays in `appraiser`.
///
/// # Errors
/// [`OwnerError`]; nothing was sent to the guest but a challenge.
pub async fn connect(
    folder: &Path,
    identity: &Identity,
    appraiser: Arc<GuestAppraiser>,
) -> Result<OwnerConnection, OwnerError> {
    let stream = hybrid::connect(folder, ports::RA_TLS).await?;
    Ok(connect_and_verify(stream, identity, Purpose::Control, appraiser).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn an_owners_key_is_private_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("owner");
        assert!(matches!(load(&folder), Err(OwnerKeyError::Missing(_))));
        let made = init(&folder).unwrap();
        assert_eq!(load(&folder).unwrap().spki(), made.spki());
        assert!(matches!(init(&folder), Err(OwnerKeyError::Exists(_))));
        assert_eq!(load_or_init(&folder).unwrap().spki(), made.spki());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("key.pem"))), (0o700, 0o600));
    }

    #[test]
    fn evidence_that_is_no_report_is_not_authentic() {
        let appraiser = GuestAppraiser::new(TrustAnchors::amd(), EvidencePolicy::default_floor());
        let refusal = appraiser.appraise(&Evidence::default(), &ReportData::new([0; 64])).unwrap_err();
        assert_eq!(refusal.code, "not-authentic");
        assert_eq!(appraiser.findings().unwrap().verdict, Verdict::NotAuthentic);
    }
}
