//! The genuine vectors: `$COFFER_VECTORS`, or `shared/vectors` beside the repository. Where neither is, one Milan report and
//! AMD's roots inside crate `sev`'s package stand in.
#![allow(missing_docs)]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use coffer_verifier::{
    CrlPolicy, Endorsements, ExpectedReportData, TrustAnchors, UnixTime, VerifiedReport, VerifyError, verify,
};

/// When the revocation lists of the vectors are fresh.
pub const NOW: &str = "2026-09-20T00:00:00Z";

#[path = "../../../tests/vectors.rs"]
mod place;

pub fn root() -> Option<PathBuf> {
    place::folder("snp")
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

/// A genuine report with what endorses it.
pub struct Genuine {
    pub report: Vec<u8>,
    pub leaf: Vec<u8>,
    pub endorsements: Endorsements,
    pub crl: CrlPolicy,
}

/// A Milan report: of the vectors, or of crate `sev`'s package, which has no revocation list.
pub fn milan() -> Genuine {
    let Some(root) = root() else { return sev_milan() };
    let folder = root.join("milan-v2-kvm");
    Genuine {
        report: read(&folder, "report.bin"),
        leaf: read(&folder, "vcek.der"),
        endorsements: endorsements(&folder),
        crl: CrlPolicy::Required,
    }
}

/// The Milan report and its VCEK that crate `sev` tests itself with, under the roots it carries.
pub fn sev_milan() -> Genuine {
    let folder = sev_package();
    let hex_text = String::from_utf8(read(&folder, "tests/certs_data/report_milan.hex")).unwrap();
    let leaf = read(&folder, "tests/certs_data/vcek_milan.der");
    let mut endorsements = Endorsements::new();
    endorsements.add_certificates(&leaf).unwrap();
    for name in ["ask.pem", "ark.pem"] {
        endorsements.add_certificates(&read(&folder, &format!("src/certs/snp/builtin/milan/{name}"))).unwrap();
    }
    Genuine { report: hex::decode(hex_text.trim()).unwrap(), leaf, endorsements, crl: CrlPolicy::Waived }
}

/// Where cargo keeps the sources of crate `sev`. The platform is named because cargo has fetched the crates of this one only.
pub fn sev_package() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--offline", "--locked", "--filter-platform", &platform])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let sev = metadata["packages"].as_array().unwrap().iter().find(|package| package["name"] == "sev").unwrap();
    Path::new(sev["manifest_path"].as_str().unwrap()).parent().unwrap().to_owned()
}
