//! An owner at the agent of a box: the owner's key, what the guest must prove, and the connection on which it proved it.
//!
//! Trusts: the owner's key file, the anchors and the policy the caller lists. Believes nothing the host says about the box.
//! Never: writes a secret to a guest before its evidence for this connection was admitted.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use coffer_guest_proto::ports;
use coffer_ratls::{
    Appraiser, AttestedConnection, ConnectError, Identity, IdentityError, Lapsed, Purpose, Refusal, connect_and_verify,
};
use coffer_rim::{Class, Failure};
use coffer_verifier::{
    Appraisal, AttestationResult, ConnectionChain, CrlPolicy, Endorsements, EvidencePolicy, Expected, ExpectedGuest,
    ExpectedReportData, TrustAnchors, UnixTime, Verifier, abi::ReportData, evidence::Evidence,
};

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::endpoint::Address;
use crate::monitor::lent;
use crate::monitor::vsock::VsockError;

impl From<OwnerKeyError> for Failure {
    fn from(error: OwnerKeyError) -> Self {
        let failure = Self::caused(Class::Config, &error);
        match error {
            OwnerKeyError::Exists(_) => {
                failure.hint(
                    "it was made before, by `coffer owner init` or with the first simulated box, and is the key to use: `coffer owner \
                     show` prints it; one that is removed is lost, and with it all it may do",
                )
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

/// Evidence that was made for a connection, and what the judge said of it.
#[derive(Clone, Debug)]
pub struct Findings {
    /// What was judged.
    pub evidence: Evidence,
    /// Verdict, reasons and every check.
    pub appraisal: Appraisal,
}

/// Judges a guest as its owner would: the anchors listed, a fresh CRL, the guest that is expected, and a policy on top,
/// which can only narrow it.
pub struct GuestAppraiser {
    verifier: Verifier,
    guest: ExpectedGuest,
    /// Of the connection, which challenges again and again.
    chain: ConnectionChain,
    findings: Mutex<Option<Findings>>,
}

impl GuestAppraiser {
    /// Expects this guest. No policy makes another one acceptable.
    pub fn new(anchors: TrustAnchors, policy: EvidencePolicy, guest: ExpectedGuest) -> Self {
        let verifier = Verifier { anchors, crl: CrlPolicy::Required, policy };
        Self { verifier, guest, chain: ConnectionChain::new(), findings: Mutex::new(None) }
    }

    /// What the last appraisal found; none if no evidence came that was made for the connection.
    pub fn findings(&self) -> Option<Findings> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Appraiser for GuestAppraiser {
    type Admitted = AttestationResult;

    fn appraise(&self, evidence: &Evidence, expected: &ReportData) -> Result<AttestationResult, Refusal> {
        let expected = Expected { report_data: ExpectedReportData::Exactly(*expected), guest: self.guest.clone() };
        let now = UnixTime::from(SystemTime::now());
        let appraisal = self.verifier.judge_soonest(&self.chain, evidence, &Endorsements::new(), &expected, now);
        let findings = Findings { evidence: evidence.clone(), appraisal: appraisal.clone() };
        *self.findings.lock().unwrap_or_else(PoisonError::into_inner) = Some(findings);
        appraisal.into_result().map_err(|refused| Refusal::new(refused.verdict().as_str(), refused.why()))
    }
}

/// An owner's policy asks for more than the built-in floor, never for less.
pub fn only_narrows(policy: &EvidencePolicy) -> Result<(), Failure> {
    let wider = policy.wider_than_floor();
    if wider.is_empty() {
        return Ok(());
    }
    let message = format!("the policy accepts what the built-in floor refuses: {}", wider.join(", "));
    Err(Failure::new(Class::Config, message)
        .hint("leave these keys out, or tighten them: what an owner asks for is asked on top of it"))
}

/// Why an owner has no connection to a guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnerError {
    /// The guest's port was not reached.
    #[error(transparent)]
    Line(#[from] VsockError),
    /// There is no such name.
    #[error("no address of that name is known here")]
    Name(#[source] io::Error),
    /// Nobody answers at its address.
    #[error("nobody answers there")]
    Dial(#[source] io::Error),
    /// TLS, the attestation call, or the guest's evidence.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// A connection to an agent whose guest was admitted.
pub type OwnerConnection = AttestedConnection<AttestationResult>;

/// Where an agent is.
#[derive(Clone, Debug)]
pub enum Place {
    /// In the box of this folder.
    Box(PathBuf),
    /// Behind an address.
    Elsewhere(Address),
}

/// How long each address of a name may take to answer, and the name to be found.
const PATIENCE: Duration = Duration::from_secs(10);

/// The first address that answers.
async fn dial(address: &Address) -> Result<TcpStream, OwnerError> {
    let late = |_| Err(io::ErrorKind::TimedOut.into());
    let all = timeout(PATIENCE, address.resolved()).await.unwrap_or_else(late).map_err(OwnerError::Name)?;
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for one in all {
        match timeout(PATIENCE, TcpStream::connect(one)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(OwnerError::Dial(last))
}

/// Connects to an agent and has its guest's evidence judged. What was found stays in `appraiser`.
///
/// # Errors
/// [`OwnerError`]; nothing was sent to the guest but a challenge.
pub async fn connect(
    place: &Place,
    identity: &Identity,
    appraiser: Arc<GuestAppraiser>,
) -> Result<OwnerConnection, OwnerError> {
    Ok(match place {
        Place::Box(folder) => {
            let stream = lent::connect(folder, ports::RA_TLS).await?;
            connect_and_verify(stream, identity, Purpose::Control, appraiser).await?
        }
        Place::Elsewhere(address) => {
            connect_and_verify(dial(address).await?, identity, Purpose::Control, appraiser).await?
        }
    })
}

/// What it means that a call ended because the guest, challenged again, did not prove itself once more.
pub fn lapsed(lapsed: &Lapsed) -> Failure {
    let class = match &*lapsed.0 {
        ConnectError::Rejected(_) => Class::NotAuthentic,
        _ => Class::Unreachable,
    };
    Failure::caused(class, lapsed)
        .hint("nothing from the guest is believed after this; `coffer attest` shows its evidence")
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_verifier::{
        Pair, Verdict,
        abi::{HostData, Measurement},
    };
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn an_owners_key_is_private_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("owner");
        assert!(matches!(load(&folder), Err(OwnerKeyError::Missing(_))));
        let made = init(&folder).unwrap();
        assert_eq!(load(&folder).unwrap().spki(), made.spki());
        let exists = init(&folder).err().unwrap();
        assert!(matches!(exists, OwnerKeyError::Exists(_)));
        let hint = Failure::from(exists).hint.unwrap();
        assert!(hint.contains("the first simulated box") && hint.contains("coffer owner show"), "{hint}");
        assert_eq!(load_or_init(&folder).unwrap().spki(), made.spki());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("key.pem"))), (0o700, 0o600));
    }

    #[test]
    fn evidence_that_is_no_report_is_not_authentic() {
        let guest = Pair { measurement: Measurement::new([1; 48]), host_data: HostData::new([2; 32]) };
        let (floor, guest) = (EvidencePolicy::default_floor(), ExpectedGuest::Exactly(guest));
        let appraiser = GuestAppraiser::new(TrustAnchors::amd(), floor, guest);
        let refusal = appraiser.appraise(&Evidence::default(), &ReportData::new([0; 64])).unwrap_err();
        assert_eq!(refusal.code, "not-authentic");
        let findings = appraiser.findings().unwrap();
        assert_eq!(findings.appraisal.verdict(), Verdict::NotAuthentic);
        assert_eq!(findings.appraisal.reasons()[0].code, "report-malformed");
    }

    #[test]
    fn a_policy_that_opens_the_floor_is_refused_by_the_name_of_its_key() {
        let read =
            |text: &str| only_narrows(&EvidencePolicy::from_toml(&format!("measurements = \"any\"\n{text}")).unwrap());
        assert!(read("denied_products = [\"Milan\"]").is_ok());
        for (text, key) in [("vmpls = [0, 3]", "vmpls"), ("[guest_policy]\ndebug = \"any\"", "guest_policy.debug")] {
            let failure = read(text).unwrap_err();
            assert_eq!(failure.class, Class::Config);
            assert!(failure.message.ends_with(key), "{}", failure.message);
        }
    }
}
