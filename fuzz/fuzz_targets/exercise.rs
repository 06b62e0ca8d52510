#![allow(dead_code, reason = "each target uses its part")]
//! What each target does with its input; the stable replay of the corpora includes this file too.

use coffer_verifier::{
    CheckLine, Endorsements, Evidence, EvidencePolicy, HclBlob, ReportClaims, TsmReport,
    abi::{CertTable, ProductLine, Report},
    chain::{Certificate, Crl},
    ear::{Jwks, Token},
    manifest::{ReferenceManifest, SignedManifest},
    measure::{IdAuth, IdBlock},
};

/// A report: parsed, then read in every way.
pub fn report(data: &[u8]) {
    if let Ok(report) = Report::parse(data) {
        assert_eq!(report.as_bytes(), data);
        let _ = ReportClaims::of(&report);
        for product in ProductLine::ALL {
            if let Ok(tcbs) = report.tcbs(product) {
                assert_eq!(tcbs.reported.to_raw(), report.reported_tcb_raw());
            }
        }
    }
}

/// A certificate, DER or PEM.
pub fn certificate(data: &[u8]) {
    if let Ok(certificate) = Certificate::parse(data) {
        assert_eq!(certificate.der(), data);
    }
    if let Err(error) = Endorsements::new().add_certificates(data) {
        let _ = CheckLine::from(&error.reason());
    }
}

/// A revocation list, DER or PEM.
pub fn crl(data: &[u8]) {
    if let Ok(crl) = Crl::parse(data) {
        assert_eq!(crl.der(), data);
    }
    if let Err(error) = Endorsements::new().add_crl(data) {
        let _ = CheckLine::from(&error.reason());
    }
}

/// A certificate table.
pub fn cert_table(data: &[u8]) {
    if let Ok(table) = CertTable::parse(data) {
        let again = CertTable::write(table.entries());
        let read = CertTable::parse(&again).expect("our own table");
        assert_eq!(read.entries(), table.entries());
    }
    let _ = Endorsements::from_cert_table(data);
}

/// An HCL blob.
pub fn hcl(data: &[u8]) {
    if let Ok(blob) = HclBlob::parse(data) {
        let _ = (blob.expected_report_data(), blob.attestation_key());
        report(blob.report());
    }
}

/// A TSM report, in either spelling.
pub fn tsm(data: &[u8]) {
    if let Ok(envelope) = TsmReport::parse(data) {
        report(&envelope.outblob);
        cert_table(&envelope.auxblob);
    }
}

/// A CMW record.
pub fn cmw(data: &[u8]) {
    if let Ok(evidence) = Evidence::from_cmw(data) {
        let again = Evidence::from_cmw(&evidence.to_cmw()).expect("our own record");
        assert_eq!(again, evidence);
        let _ = Endorsements::from_evidence(&evidence);
    }
}

/// A policy file.
pub fn policy(data: &[u8]) {
    if let Ok(text) = core::str::from_utf8(data) {
        let _ = EvidencePolicy::from_toml(text);
    }
}

/// A signed reference manifest, and its payload alone.
pub fn manifest(data: &[u8]) {
    if let Ok(envelope) = SignedManifest::parse(data) {
        let again = SignedManifest::parse(envelope.to_json().as_bytes()).expect("our own envelope");
        assert_eq!(again, envelope);
        let _ = (envelope.unverified(), envelope.verify(&[]));
    }
    if let Ok(manifest) = ReferenceManifest::parse(data) {
        assert_eq!(ReferenceManifest::parse(&manifest.to_bytes()), Ok(manifest));
    }
}

/// A token, and a set of keys. What a token says is read without its signature, which no mutation keeps.
pub fn token(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    if let Ok(token) = Token::parse(text) {
        let _ = (token.kid(), token.unverified());
    }
    if let Ok(keys) = Jwks::parse(data) {
        assert_eq!(Jwks::parse(keys.to_json().as_bytes()), Ok(keys));
    }
}

/// An ID block, and behind it an ID authentication block.
pub fn id_block(data: &[u8]) {
    let (block, auth) = data.split_at(data.len().min(IdBlock::SIZE));
    if let Ok(block) = IdBlock::parse(block) {
        assert_eq!(block.to_bytes().as_slice(), &data[..IdBlock::SIZE]);
        if let Ok(auth) = IdAuth::parse(auth) {
            let _ = (auth.verify(&block), auth.id_key_digest(), auth.author_key_digest());
        }
    }
}
