//! Every genuine vector ends as its manifest says.

use crate::vectors::{NOW, at, endorsements, read, root, verify_amd};
use coffer_verifier::{
    CrlPolicy, CrlStatus, Endorsements, Evidence, EvidencePolicy, ExpectedReportData, HclBlob, ReportBinding,
    TrustAnchors, abi::ProductLine, appraise, verify,
};

/// Its output is shown on success too (`.config/nextest.toml`), so that a skip is seen.
#[test]
fn genuine_vectors_are_here_or_the_skip_is_printed() {
    if let Some(root) = root() {
        println!("genuine vectors: {}", root.display());
    }
}

#[test]
fn every_vector_ends_as_its_manifest_says() {
    let Some(root) = root() else { return };
    let manifest: serde_json::Value = serde_json::from_slice(&read(&root, "MANIFEST.json")).unwrap();
    let mut runs = 0;
    for vector in manifest.as_array().unwrap() {
        let name = vector["name"].as_str().unwrap();
        let folder = root.join(name);
        for run in vector["cli"].as_array().into_iter().flatten() {
            let crl = match run["flags"].as_array().unwrap().as_slice() {
                [] => CrlPolicy::Required,
                [flag] if flag == "--no-crl" => CrlPolicy::Waived,
                other => panic!("{name}: flags {other:?}"),
            };
            let verified = verify(
                &read(&folder, "report.bin"),
                &endorsements(&folder),
                &TrustAnchors::amd(),
                &ExpectedReportData::Any,
                &crl,
                at(run["at"].as_str().unwrap()),
            );
            let (exit, why) = match &verified {
                Err(error) => (5, error.reason().to_string()),
                Ok(verified) => match appraise(verified, &EvidencePolicy::default_floor()) {
                    Err(rejection) => (6, rejection.to_string()),
                    Ok(result) => {
                        assert!(!result.simulated(), "{name}");
                        assert!(
                            result.checks().iter().all(|check| check.outcome != coffer_verifier::Outcome::Failed),
                            "{name}"
                        );
                        (0, String::new())
                    }
                },
            };
            let allowed = run["exit"].as_array().unwrap();
            assert!(allowed.iter().any(|code| code == exit), "{name}: {exit} ({why}), allowed {allowed:?}");
            runs += 1;
        }
    }
    assert!(runs >= 14, "{runs}");
}

#[test]
fn claims_agree_with_the_manifest() {
    let Some(root) = root() else { return };
    let manifest: serde_json::Value = serde_json::from_slice(&read(&root, "MANIFEST.json")).unwrap();
    let mut seen = 0;
    for vector in manifest.as_array().unwrap() {
        let name = vector["name"].as_str().unwrap();
        let folder = root.join(name);
        if name.starts_with("neg-") || vector["leaf"] != "vcek" || !folder.join("report.bin").is_file() {
            continue;
        }
        let verified = verify_amd(&read(&folder, "report.bin"), &endorsements(&folder)).unwrap();
        let claims = serde_json::to_value(verified.claims()).unwrap();
        assert_eq!(claims["product"], vector["product"], "{name}");
        assert_eq!(claims["report"]["version"], vector["report_version"], "{name}");
        assert_eq!(claims["report"]["policy"]["raw"], vector["policy"], "{name}");
        assert_eq!(claims["report"]["platform_info"]["raw"], vector["platform_info"], "{name}");
        assert_eq!(claims["report"]["guest_svn"], vector["guest_svn"], "{name}");
        assert_eq!(claims["report"]["current_firmware"], vector["current_version"], "{name}");
        for (ours, theirs) in [("bootloader", "bl"), ("tee", "tee"), ("snp", "snp"), ("microcode", "ucode")] {
            assert_eq!(claims["tcb"]["reported"][ours], vector["leaf_tcb"][theirs], "{name} {ours}");
        }
        for field in ["current", "reported", "committed", "launch"] {
            let tcbs = verified.tcbs();
            let tcb = match field {
                "current" => tcbs.current,
                "reported" => tcbs.reported,
                "committed" => tcbs.committed,
                _ => tcbs.launch,
            };
            let expected = vector[format!("{field}_tcb")].as_str().unwrap();
            assert_eq!(hex::encode(tcb.to_raw().to_le_bytes()), expected, "{name} {field}");
        }
        seen += 1;
    }
    assert!(seen >= 10, "{seen}");
}

#[test]
fn the_milan_kvm_report_is_accepted_and_refused_with_one_bit_flipped() {
    let Some(root) = root() else { return };
    let folder = root.join("milan-v2-kvm");
    let mut report = read(&folder, "report.bin");
    let endorsements = endorsements(&folder);
    let verified = verify_amd(&report, &endorsements).unwrap();
    assert_eq!(verified.product(), ProductLine::Milan);
    assert!(matches!(verified.crl(), CrlStatus::Checked { number: 11, .. }));
    report[0x90] ^= 1;
    assert_eq!(verify_amd(&report, &endorsements).unwrap_err().reason().code, "signature");
}

#[test]
fn both_certificates_of_one_key_verify() {
    let Some(root) = root() else { return };
    let folder = root.join("milan-v3");
    let mut spkis = Vec::new();
    for leaf in ["vcek.der", "vcek_alt.der"] {
        let mut all = Endorsements::new();
        for name in [leaf, "ask.der", "ark.der"] {
            all.add_certificates(&read(&folder, name)).unwrap();
        }
        all.add_crl(&read(&folder, "crl.der")).unwrap();
        spkis.push(verify_amd(&read(&folder, "report.bin"), &all).unwrap().leaf_spki());
    }
    assert_eq!(spkis[0], spkis[1]);
}

#[test]
fn a_genuine_pem_certificate_table_endorses_its_report() {
    let Some(root) = root() else { return };
    let folder = root.join("genoa-v3-certtable");
    let mut all = Endorsements::from_cert_table(&read(&folder, "certs.bin")).unwrap();
    assert_eq!(all.certificates().len(), 3);
    let report = read(&folder, "report.bin");
    let missing = verify_amd(&report, &all).unwrap_err().reason();
    assert_eq!(missing.code, "endorsement-missing");
    assert_eq!(missing.expected, "certificate revocation list for Genoa");
    assert_eq!(missing.found, "1 ARK-Genoa, 1 SEV-Genoa, 1 SEV-VCEK");
    all.add_crl(&read(&folder, "crl.der")).unwrap();
    verify_amd(&report, &all).unwrap();
}

#[test]
fn the_certificate_only_vectors_parse_and_only_genuine_ones_chain() {
    let Some(root) = root() else { return };
    for (name, hwid_len) in [("turin-vcek-only", 8), ("neg-vcek-new", 64), ("neg-vcek-legacy", 64)] {
        let bag = endorsements(&root.join(name));
        let leaf = bag.certificates().find_map(|c| c.leaf()).unwrap();
        assert_eq!(leaf.hwid.as_ref().unwrap().len(), hwid_len, "{name}");
        // A report that fits the leaf, so that only the chain decides.
        let template = if name.starts_with("turin") { "turin-v5" } else { "milan-v2-kvm" };
        let mut report = read(&root.join(template), "report.bin");
        report[0x180..0x188].copy_from_slice(&leaf.tcb.to_raw().to_le_bytes());
        report[0x1a0..0x1a0 + hwid_len].copy_from_slice(leaf.hwid.as_ref().unwrap());
        let code = verify_amd(&report, &bag).unwrap_err().reason().code;
        assert_eq!(code, if name.starts_with("neg") { "certificate-signature" } else { "signature" }, "{name}");
    }
}

#[test]
fn the_vlek_chain_holds_while_its_leaf_is_valid() {
    let Some(root) = root() else { return };
    let folder = root.join("milan-v3-vlek-vmpl1");
    let all = endorsements(&folder);
    let report = read(&folder, "report.bin");
    let verify =
        |now| verify(&report, &all, &TrustAnchors::amd(), &ExpectedReportData::Any, &CrlPolicy::Waived, at(now));
    let verified = verify("2025-06-01T00:00:00Z").unwrap();
    assert_eq!(verified.leaf().csp_id.as_deref(), Some("CN=cc-us-east-2.amazonaws.com"));
    assert_eq!(verified.crl(), CrlStatus::Waived);
    assert_eq!(verify(NOW).unwrap_err().reason().code, "certificate-dates");
    let rejection = appraise(&verified, &EvidencePolicy::default_floor()).unwrap_err();
    assert_eq!(rejection.reasons().iter().map(|reason| reason.code).collect::<Vec<_>>(), ["vmpl"]);
}

#[test]
fn hcl_blobs_bind_their_runtime_data_and_name_the_key_that_signed_the_quote() {
    let Some(root) = root() else { return };
    for name in ["milan-v2-azure-hcl", "genoa-v3-azure-hcl"] {
        let folder = root.join(name);
        let bytes = read(&folder, "hcl.bin");
        let blob = HclBlob::parse(&bytes).unwrap();
        assert_eq!(blob.report(), read(&folder, "report.bin"), "{name}");
        let check = |expected| {
            let all = endorsements(&folder);
            verify(blob.report(), &all, &TrustAnchors::amd(), &expected, &CrlPolicy::Required, at(NOW))
        };
        let verified = check(blob.expected_report_data()).unwrap();
        // The blob binds its own attachment, which shows nothing about when and for whom.
        assert_eq!((verified.binding(), verified.is_bound()), (ReportBinding::Attachment, false), "{name}");

        let mut other = bytes.clone();
        let at = other.windows(6).position(|window| window == b"vmUniq").unwrap();
        other[at] = b'w';
        let expected = HclBlob::parse(&other).unwrap().expected_report_data();
        assert_eq!(check(expected).unwrap_err().reason().code, "runtime-data", "{name}");
    }
    let folder = root.join("genoa-v3-azure-hcl");
    let bytes = read(&folder, "hcl.bin");
    let blob = HclBlob::parse(&bytes).unwrap();
    let key = blob.attestation_key().unwrap();
    let key = aws_lc_rs::signature::RsaPublicKeyComponents { n: &key.modulus, e: &key.exponent };
    let quote: serde_json::Value = serde_json::from_slice(&read(&folder, "tpm-quote.json")).unwrap();
    let field = |name| -> Vec<u8> { serde_json::from_value(quote[name as &str].clone()).unwrap() };
    let algorithm = &aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256;
    key.verify(algorithm, &field("message"), &field("signature")).unwrap();
}

/// Nothing signs the words around the report: its length, kind and state, and of the runtime data its length, kind and hash.
#[test]
fn what_an_hcl_blob_says_unsigned_is_refused_when_it_is_altered_or_shown_to_nobody() {
    let Some(root) = root() else { return };
    for name in ["milan-v2-azure-hcl", "genoa-v3-azure-hcl"] {
        let folder = root.join(name);
        let bytes = read(&folder, "hcl.bin");
        let blob = HclBlob::parse(&bytes).unwrap();
        let all = endorsements(&folder);
        // Words of the header, and of the runtime data's.
        for byte in (0..0x20).chain(0x4c0..0x4d4) {
            for bit in 0..8 {
                let mut other = bytes.clone();
                other[byte] ^= 1 << bit;
                let Ok(altered) = HclBlob::parse(&other) else { continue };
                let expected = altered.expected_report_data();
                if altered != blob {
                    let refused =
                        verify(altered.report(), &all, &TrustAnchors::amd(), &expected, &CrlPolicy::Required, at(NOW));
                    assert_eq!(
                        refused.unwrap_err().reason().code,
                        "runtime-data",
                        "{name}: bit {bit} of byte {byte:#x}"
                    );
                    assert!((0x4cc..0x4d0).contains(&byte), "{name}: bit {bit} of byte {byte:#x} is shown");
                }
            }
        }
        // Behind the runtime data there is room, which says nothing.
        let mut other = bytes.clone();
        *other.last_mut().unwrap() = 1;
        assert!(HclBlob::parse(&other).is_err(), "{name}");
    }
}

#[test]
fn evidence_survives_a_cmw_record() {
    let Some(root) = root() else { return };
    let folder = root.join("genoa-v3-certtable");
    let evidence = Evidence {
        report: read(&folder, "report.bin"),
        cert_table: read(&folder, "certs.bin"),
        crls: vec![read(&folder, "crl.der")],
        workload_spec: Vec::new(),
    };
    let read_back = Evidence::from_cmw(&evidence.to_cmw()).unwrap();
    assert_eq!(read_back, evidence);
    verify_amd(&read_back.report, &Endorsements::from_evidence(&read_back).unwrap()).unwrap();
}
