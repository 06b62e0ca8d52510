//! The genuine vectors: `$COFFER_VECTORS`, or `shared/vectors` beside the repository.
#![allow(dead_code, missing_docs)]

use std::path::{Path, PathBuf};

use coffer_verifier::{
    CrlPolicy, Endorsements, ExpectedReportData, TrustAnchors, UnixTime, VerifiedReport, VerifyError, verify,
};

/// When the revocation lists of the vectors are fresh.
pub const NOW: &str = "2026-09-20T00:00:00Z";

pub fn root() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors");
    let root = std::env::var_os("COFFER_VECTORS").map_or(beside, PathBuf::from).join("snp");
    if root.join("MANIFEST.json").is_file() {
        return Some(root);
    }
    println!("SKIPPED: no vectors at {}; set COFFER_VECTORS", root.display());
    None
}

pub fn at(text: &str) -> UnixTime {
    UnixTime::parse(text).unwrap()
}

pub fn read(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{}/{name}: {error}", folder.display()))
}

/// Everything in a vector's folder that endorses.
pub fn endorsements(folder: &Path) -> Endorsements {
    let mut all = Endorsements::new();
    for name in ["vcek.der", "vlek.der", "ask.der", "asvk.der", "ark.der"] {
        if folder.join(name).is_file() {
            all.add_certificates(&read(folder, name)).unwrap();
        }
    }
    if folder.join("crl.der").is_file() {
        all.add_crl(&read(folder, "crl.der")).unwrap();
    }
    all
}

/// Verifies against AMD's roots with a revocation list required.
pub fn verify_amd(report: &[u8], endorsements: &Endorsements) -> Result<VerifiedReport, VerifyError> {
    verify(report, endorsements, &TrustAnchors::amd(), &ExpectedReportData::Any, &CrlPolicy::Required, at(NOW))
}
