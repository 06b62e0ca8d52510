//! Between the protocol's messages and the types we compute with; lengths are checked here, once.

use coffer_verifier::{Code, abi::REPORT_LEN, binding::EncryptionKey, evidence::Evidence};

use crate::{
    hpke::{AEAD, KDF, KEM, PUBLIC_KEY_LEN},
    proto,
    refusal::Refusal,
};

/// Longest certificate table taken.
pub const MAX_CERT_TABLE: usize = 64 * 1024;
/// Longest workload spec document taken.
pub const MAX_SPEC: usize = 256 * 1024;
/// Most revocation lists taken.
pub const MAX_CRLS: usize = 4;
/// Longest revocation list taken.
pub const MAX_CRL: usize = 64 * 1024;
/// Longest message of the attestation service: all of the above, and room for framing.
pub const MAX_MESSAGE: usize = MAX_CERT_TABLE + MAX_SPEC + MAX_CRLS * MAX_CRL + 16 * 1024;

pub(crate) fn to_wire(evidence: Evidence, key: EncryptionKey) -> proto::AttestedEvidence {
    proto::AttestedEvidence {
        evidence: Some(proto::Evidence {
            report: evidence.report,
            cert_table: evidence.cert_table,
            crls: evidence.crls,
            workload_spec: evidence.workload_spec,
        }),
        encryption_key: Some(proto::EncryptionKey {
            kem: key.kem.into(),
            kdf: key.kdf.into(),
            aead: key.aead.into(),
            public_key: key.public_key,
        }),
    }
}

pub(crate) fn from_wire(wire: proto::AttestedEvidence) -> Result<(Evidence, EncryptionKey), Refusal> {
    let malformed = |what: &str| Refusal::new(Code::EvidenceMalformed.as_str(), what.to_owned());
    let evidence = wire.evidence.ok_or_else(|| malformed("no evidence"))?;
    let key = wire.encryption_key.ok_or_else(|| malformed("no encryption key"))?;
    if evidence.report.len() != REPORT_LEN {
        return Err(malformed(&format!("report is {} bytes, expected {REPORT_LEN}", evidence.report.len())));
    }
    if evidence.cert_table.len() > MAX_CERT_TABLE {
        return Err(malformed(&format!("certificate table is {} bytes", evidence.cert_table.len())));
    }
    if evidence.workload_spec.is_empty() || evidence.workload_spec.len() > MAX_SPEC {
        return Err(malformed(&format!("workload spec is {} bytes", evidence.workload_spec.len())));
    }
    if evidence.crls.len() > MAX_CRLS || evidence.crls.iter().any(|crl| crl.len() > MAX_CRL) {
        return Err(malformed("too many or too long revocation lists"));
    }
    if (key.kem, key.kdf, key.aead) != (KEM.into(), KDF.into(), AEAD.into()) {
        return Err(malformed("encryption key of another suite"));
    }
    if key.public_key.len() != PUBLIC_KEY_LEN || key.public_key.first() != Some(&0x04) {
        return Err(malformed("encryption key is not an uncompressed P-384 point"));
    }
    let evidence = Evidence {
        report: evidence.report,
        cert_table: evidence.cert_table,
        crls: evidence.crls,
        workload_spec: evidence.workload_spec,
    };
    Ok((evidence, EncryptionKey { kem: KEM, kdf: KDF, aead: AEAD, public_key: key.public_key }))
}

pub(crate) fn challenge_from_wire(bytes: &[u8]) -> Result<[u8; 32], Refusal> {
    bytes.try_into().map_err(|_| Refusal {
        code: "malformed-challenge",
        detail: format!("challenge is {} bytes, expected 32", bytes.len()),
        claims: None,
    })
}
