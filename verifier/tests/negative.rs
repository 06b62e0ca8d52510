//! The negative kit: a world that is accepted, with exactly one defect each time, is refused for that defect.

use crate::forge;
use crate::forge::{
    BASIC, CRL_NUMBER, DELTA, Extension, PARTITION, PSS_SALT_32, PSS_TRAILER, USAGE, World, hexed, integer, leaf_key,
    leaf_spki, rsa_spki, spoiled, tlv,
};
use coffer_verifier::{
    CrlPolicy, ExpectedReportData,
    abi::{ReportData, report::offset},
    chain::CertificateRole,
};

#[test]
fn a_world_without_defect_is_accepted_and_called_simulated() {
    let verified = World::new().verify().unwrap();
    assert!(verified.simulated());
    assert!(verified.claims().simulated);
}

#[test]
fn a_chain_with_amds_names_needs_a_listed_root() {
    assert_eq!(spoiled(|w| w.anchored = false), "untrusted-root");
}

#[test]
fn both_encodings_of_amds_pss_parameters_are_read_and_no_other() {
    assert_eq!(
        spoiled(|w| for cert in [&mut w.root, &mut w.ask, &mut w.leaf] {
            cert.inner_algorithm = PSS_TRAILER.into();
            cert.outer_algorithm = PSS_TRAILER.into();
        }),
        "accepted"
    );
    assert_eq!(spoiled(|w| w.leaf.outer_algorithm = PSS_TRAILER.into()), "certificate-form", "inner and outer differ");
    assert_eq!(
        spoiled(|w| {
            w.leaf.inner_algorithm = PSS_SALT_32.into();
            w.leaf.outer_algorithm = PSS_SALT_32.into();
        }),
        "certificate-form"
    );
    assert_eq!(spoiled(|w| w.list().outer_algorithm = PSS_TRAILER.into()), "crl-form", "inner and outer differ");
    assert_eq!(
        spoiled(|w| {
            w.list().inner_algorithm = PSS_SALT_32.into();
            w.list().outer_algorithm = PSS_SALT_32.into();
        }),
        "crl-form"
    );
}

#[test]
fn every_signature_of_the_chain_counts() {
    assert_eq!(spoiled(|w| w.root.spoil_signature = true), "certificate-signature");
    assert_eq!(spoiled(|w| w.ask.spoil_signature = true), "certificate-signature");
    assert_eq!(spoiled(|w| w.leaf.spoil_signature = true), "certificate-signature");
    assert_eq!(spoiled(|w| w.wrong_issuer.0 = true), "certificate-signature", "ASK by itself");
    assert_eq!(spoiled(|w| w.wrong_issuer.1 = true), "certificate-signature", "leaf by the ARK");
}

#[test]
fn names_must_chain() {
    assert_eq!(spoiled(|w| w.leaf.issuer = "SEV-Genoa".into()), "endorsement-missing");
    assert_eq!(spoiled(|w| w.ask.issuer = "ARK-Genoa".into()), "endorsement-missing");
    assert_eq!(spoiled(|w| w.root.issuer = "ARK-Genoa".into()), "endorsement-missing", "root not self-issued");
    for subject in ["SEV-Rome", "sev-milan", "SEV-", "ARK"] {
        assert_eq!(spoiled(|w| w.ask.subject = subject.into()), "certificate-form", "{subject}");
    }
    let two_names = |w: &mut World| {
        w.ask.subject = "SEV-Milan|ARK-Milan".into();
        w.leaf.issuer = "SEV-Milan|ARK-Milan".into();
    };
    assert_eq!(spoiled(two_names), "certificate-form", "two common names");
}

#[test]
fn products_of_report_leaf_and_chain_must_be_one() {
    assert_eq!(spoiled(|w| w.leaf.set(Extension::amd("02", tlv(0x16, b"Genoa")))), "product");
    // A Genoa leaf and report under Milan's ASK.
    assert_eq!(
        spoiled(|w| {
            w.leaf.set(Extension::amd("02", tlv(0x16, b"Genoa")));
            w.patch(offset::CPUID, &[0x19, 0x11, 1]);
        }),
        "issuer"
    );
    // A Milan ASK under Genoa's root.
    assert_eq!(
        spoiled(|w| {
            w.root.subject = "ARK-Genoa".into();
            w.root.issuer = "ARK-Genoa".into();
            w.ask.issuer = "ARK-Genoa".into();
        }),
        "untrusted-root"
    );
    assert_eq!(spoiled(|w| w.patch(offset::CPUID, &[0x19, 0x20, 1])), "product-unknown");
    assert_eq!(spoiled(|w| w.leaf.set(Extension::amd("02", tlv(0x16, b"Rome")))), "certificate-form");
    assert_eq!(spoiled(|w| w.leaf.set(Extension::amd("02", tlv(0x0c, b"Milan")))), "certificate-form", "no IA5String");
}

#[test]
fn every_certificate_must_be_valid_now() {
    for which in 0..3 {
        let spoil = |from: Option<&str>, to: Option<&str>| {
            spoiled(|w| {
                let cert = match which {
                    0 => &mut w.root,
                    1 => &mut w.ask,
                    _ => &mut w.leaf,
                };
                cert.from = from.unwrap_or(&cert.from).to_owned();
                cert.to = to.unwrap_or(&cert.to).to_owned();
            })
        };
        assert_eq!(spoil(None, Some("260919235959Z")), "certificate-dates", "expired {which}");
        assert_eq!(spoil(Some("260920000001Z"), None), "certificate-dates", "not yet {which}");
        assert_eq!(spoil(Some("260920000000Z"), Some("260920000000Z")), "accepted", "to the second {which}");
    }
}

#[test]
fn revocation_needs_a_fresh_complete_list_by_the_root() {
    assert_eq!(spoiled(|w| w.list = None), "endorsement-missing");
    assert_eq!(spoiled(|w| w.list().issuer = "ARK-Genoa".into()), "endorsement-missing", "foreign");
    assert_eq!(spoiled(|w| w.list().spoil_signature = true), "crl-signature");
    assert_eq!(spoiled(|w| w.wrong_issuer.2 = true), "crl-signature", "by the ASK under the root's name");
    assert_eq!(spoiled(|w| w.list().to = Some("260919235959Z".into())), "crl-dates", "stale");
    assert_eq!(spoiled(|w| w.list().from = "260920000001Z".into()), "crl-dates", "from the future");
    assert_eq!(spoiled(|w| w.list().to = None), "crl-form");
    assert_eq!(spoiled(|w| w.list().version = 0), "crl-form");
    assert_eq!(spoiled(|w| w.list().trailing = vec![0]), "crl-form");
    let with = |extension: Extension| spoiled(|w| w.list().extensions.push(extension));
    assert_eq!(with(Extension::new(DELTA, true, integer(1))), "crl-form");
    assert_eq!(with(Extension::new(DELTA, false, integer(1))), "crl-form");
    assert_eq!(with(Extension::new(PARTITION, true, hexed("3000"))), "crl-form");
    assert_eq!(with(Extension::new(PARTITION, false, hexed("3000"))), "crl-form");
    assert_eq!(with(Extension::new("2a0304", true, vec![5, 0])), "crl-form", "unknown and critical");
    assert_eq!(with(Extension::new("2a0304", false, vec![5, 0])), "accepted", "unknown");
    assert_eq!(with(Extension::new(CRL_NUMBER, false, integer(8))), "crl-form", "two numbers");
    assert_eq!(spoiled(|w| w.list().extensions.clear()), "crl-form", "no number");
    let number = |value: Vec<u8>| spoiled(|w| w.list().extensions = vec![Extension::new(CRL_NUMBER, false, value)]);
    assert_eq!(number(tlv(2, &[&[1][..], &[0; 8]].concat())), "crl-form", "a number beyond 64 bits");
    // As long as our DER reader takes, and longer than any list may be.
    let mut world = World::new();
    let padded = |world: &mut World, length: usize| {
        world.list().extensions.truncate(1);
        world.list().extensions.push(Extension::new("2a0304", false, tlv(4, &vec![0; length])));
        world.list.as_ref().unwrap().encode(&world.root_key).len()
    };
    let rest = padded(&mut world, 60_000) - 60_000;
    assert_eq!(padded(&mut world, 65_535 - rest), 65_535);
    assert_eq!(world.code(), "accepted");
    assert_eq!(padded(&mut world, 65_536 - rest), 65_536);
    assert_eq!(world.code(), "crl-form", "too long");
    assert_eq!(
        spoiled(|w| {
            w.list().revoked = vec![vec![9]];
            w.list().entry_extensions = vec![Extension::new("551d1d", true, hexed("3000"))];
        }),
        "crl-form",
        "an entry with a critical extension speaks of another issuer's certificates"
    );
}

#[test]
fn a_revoked_root_or_intermediate_is_found_without_a_report() {
    let revoked = |serials: Vec<Vec<u8>>| {
        let mut world = World::new();
        world.root.serial = vec![9];
        world.list().revoked = serials;
        coffer_verifier::revoked_issuers(&world.endorsements().unwrap())
    };
    assert_eq!(revoked(vec![vec![5]]), []);
    let intermediate = revoked(vec![vec![5], vec![1, 0, 1]]);
    assert!(matches!(intermediate[..], [(CertificateRole::Intermediate(..), _)]), "{intermediate:?}");
    assert!(matches!(revoked(vec![vec![9]])[..], [(CertificateRole::Root(_), _)]));
    // A list of another issuer says nothing of these.
    let mut world = World::new();
    world.list().revoked = vec![vec![1, 0, 1]];
    world.list().issuer = "ARK-Genoa".to_owned();
    assert_eq!(coffer_verifier::revoked_issuers(&world.endorsements().unwrap()), []);
}

#[test]
fn revoked_certificates_are_refused() {
    assert_eq!(spoiled(|w| w.list().revoked = vec![vec![5], vec![1, 0, 1]]), "revoked", "ASK");
    assert_eq!(spoiled(|w| w.list().revoked = vec![vec![1, 0, 2]]), "accepted");
    assert_eq!(
        spoiled(|w| {
            w.root.serial = vec![9];
            w.list().revoked = vec![vec![9]];
        }),
        "revoked",
        "ARK"
    );
    assert_eq!(
        spoiled(|w| {
            w.leaf.serial = vec![7];
            w.list().revoked = vec![vec![7]];
        }),
        "revoked",
        "leaf, if a list could name one"
    );
    assert_eq!(
        spoiled(|w| {
            w.ask.serial = vec![0, 0x81];
            w.list().revoked = vec![vec![0x81]];
        }),
        "revoked",
        "the same number, written shorter"
    );
}

#[test]
fn a_list_older_than_one_seen_is_refused_and_a_waiver_shows() {
    assert_eq!(spoiled(|w| w.crl = CrlPolicy::AtLeast(7)), "accepted");
    assert_eq!(spoiled(|w| w.crl = CrlPolicy::AtLeast(8)), "crl-number");
    let mut world = World::new();
    world.list = None;
    world.crl = CrlPolicy::Waived;
    assert_eq!(world.verify().unwrap().crl(), coffer_verifier::CrlStatus::Waived);
}

#[test]
fn authorities_need_their_bits() {
    let basic = |hex: &str| Extension::new(BASIC, true, hexed(hex));
    let usage = |bits: u8| Extension::new(USAGE, true, vec![3, 2, 1, bits]);
    assert_eq!(spoiled(|w| w.ask.remove(BASIC)), "certificate-form");
    assert_eq!(spoiled(|w| w.root.remove(BASIC)), "certificate-form");
    assert_eq!(spoiled(|w| w.ask.set(basic("3000"))), "certificate-form", "no CA");
    assert_eq!(spoiled(|w| w.root.set(basic("3000"))), "certificate-form", "no CA");
    assert_eq!(spoiled(|w| w.ask.set(basic("30030101ff"))), "certificate-form", "no path length");
    assert_eq!(spoiled(|w| w.ask.set(basic("30060101ff020101"))), "certificate-form", "path length 1");
    assert_eq!(
        spoiled(|w| w.ask.set(Extension::new(BASIC, false, hexed("30060101ff020100")))),
        "certificate-form",
        "not critical"
    );
    assert_eq!(spoiled(|w| w.ask.remove(USAGE)), "certificate-form");
    assert_eq!(spoiled(|w| w.ask.set(usage(0x80))), "certificate-form", "may not sign certificates");
    assert_eq!(spoiled(|w| w.root.set(usage(0x04))), "certificate-form", "may not sign lists");
    assert_eq!(spoiled(|w| w.leaf.set(basic("30030101ff"))), "certificate-form", "a leaf that is a CA");
}

#[test]
fn certificate_extensions_are_unique_and_known_if_critical() {
    for (name, twice) in [("structVersion", "01"), ("blSPL", "0301"), ("hwID", "04")] {
        assert_eq!(
            spoiled(|w| {
                let oid = hexed(&format!("{}{twice}", forge::AMD));
                let again = w.leaf.extensions.iter().find(|e| e.oid == oid).unwrap().clone();
                w.leaf.extensions.push(again);
            }),
            "certificate-form",
            "{name} twice"
        );
    }
    let unknown = |critical| Extension::new("2a0304", critical, vec![5, 0]);
    assert_eq!(spoiled(|w| w.leaf.set(unknown(true))), "certificate-form");
    assert_eq!(spoiled(|w| w.ask.set(unknown(true))), "certificate-form");
    assert_eq!(spoiled(|w| w.leaf.set(unknown(false))), "accepted");
    let long = |length| Extension::new("2a0304", false, tlv(4, &vec![0; length]));
    assert_eq!(spoiled(|w| w.leaf.set(long(6000))), "accepted");
    assert_eq!(spoiled(|w| w.leaf.set(long(9000))), "certificate-form", "too long");
}

#[test]
fn amds_extensions_are_there_and_in_range() {
    for tail in ["01", "02", "0301", "0302", "0303", "0308", "04"] {
        assert_eq!(spoiled(|w| w.leaf.remove(&format!("{}{tail}", forge::AMD))), "certificate-form", "no {tail}");
    }
    for tail in ["01", "0301", "0302", "0303", "0308"] {
        for (value, why) in [
            (vec![2, 2, 1, 0], "256"),
            (vec![2, 1, 0xff], "negative"),
            (vec![2, 2, 0, 4], "not minimal"),
            (vec![2, 1, 4, 0], "trailing byte"),
            (vec![4, 1, 4], "no INTEGER"),
            (vec![], "empty"),
        ] {
            let code = spoiled(|w| w.leaf.set(Extension::amd(tail, value)));
            assert_eq!(code, "certificate-form", "{tail} {why}");
        }
    }
    for tail in ["0304", "0305", "0306", "0307"] {
        assert_eq!(spoiled(|w| w.leaf.set(Extension::amd(tail, integer(1)))), "certificate-form", "{tail} is reserved");
    }
    assert_eq!(spoiled(|w| w.leaf.set(Extension::amd("0309", integer(0)))), "certificate-form", "FMC is Turin's");
    assert_eq!(spoiled(|w| w.leaf.set(Extension::amd("01", integer(1)))), "certificate-form", "structVersion 1");
    assert_eq!(spoiled(|w| w.leaf.set(Extension::amd("04", vec![1; 63]))), "certificate-form", "hwID of 63 bytes");
    let wrapped = |length| spoiled(|w| w.leaf.set(Extension::amd("04", tlv(4, &(1..=length).collect::<Vec<u8>>()))));
    assert_eq!(wrapped(64), "accepted", "hwID wrapped");
    assert_eq!(wrapped(63), "certificate-form", "hwID of 63 bytes, wrapped");
    assert_eq!(wrapped(65), "certificate-form", "hwID of 65 bytes, wrapped");
}

#[test]
fn keys_are_of_their_kind() {
    assert_eq!(spoiled(|w| w.leaf.spki = rsa_spki(&w.ask_key)), "certificate-form", "RSA leaf");
    assert_eq!(spoiled(|w| w.ask.spki = leaf_spki(&leaf_key(9))), "certificate-form", "P-384 ASK");
    assert_eq!(
        spoiled(|w| {
            let last = w.ask.spki.len() - 1;
            w.ask.spki[last] = 3;
        }),
        "certificate-form",
        "exponent 65539"
    );
    assert_eq!(spoiled(|w| w.ask.spki[33] &= 0x7f), "certificate-form", "a modulus below 4096 bits");
    assert_eq!(
        spoiled(|w| {
            let last = w.leaf.spki.len() - 1;
            w.leaf.spki[last] ^= 1;
        }),
        "certificate-key",
        "a point off the curve"
    );
}

#[test]
fn certificates_are_version_3_and_end_where_they_end() {
    assert_eq!(spoiled(|w| w.leaf.version = 0), "certificate-form");
    assert_eq!(spoiled(|w| w.leaf.version = 1), "certificate-form");
    assert_eq!(spoiled(|w| w.leaf.trailing = vec![0]), "certificate-form");
    assert_eq!(spoiled(|w| w.leaf.extensions.clear()), "certificate-form");
}

#[test]
fn a_vlek_passes_for_no_vcek() {
    // A VLEK under the ASK, for a report that says VCEK, and for one that says VLEK.
    let as_vlek = |w: &mut World| {
        w.leaf.subject = "SEV-VLEK".into();
        w.leaf.remove(&format!("{}04", forge::AMD));
        w.leaf.set(Extension::amd("05", tlv(0x16, b"CN=cloud.example")));
    };
    assert_eq!(spoiled(as_vlek), "endorsement-missing");
    let vlek_report = |w: &mut World| w.patch(offset::KEY_INFO, &[4]);
    assert_eq!(
        spoiled(|w| {
            as_vlek(w);
            vlek_report(w);
        }),
        "endorsement-missing",
        "VLEKs are the ASVK's to sign"
    );
    let under_asvk = |w: &mut World| {
        as_vlek(w);
        vlek_report(w);
        w.leaf.issuer = "SEV-VLEK-Milan".into();
        w.ask.subject = "SEV-VLEK-Milan".into();
    };
    assert_eq!(spoiled(under_asvk), "accepted");
    assert_eq!(
        spoiled(|w| {
            under_asvk(w);
            w.leaf.remove(&format!("{}05", forge::AMD));
        }),
        "certificate-form",
        "a VLEK names its provider"
    );
    let csp = |value: Vec<u8>| {
        spoiled(|w| {
            under_asvk(w);
            w.leaf.set(Extension::amd("05", value));
        })
    };
    assert_eq!(csp(tlv(0x16, b"CN=cloud\n.example")), "certificate-form", "a name that would break a line");
    assert_eq!(csp(tlv(0x0c, b"CN=cloud.example")), "certificate-form", "no IA5String");
    assert_eq!(
        spoiled(|w| {
            under_asvk(w);
            w.leaf.set(Extension::amd("04", (1..=64).collect()));
        }),
        "certificate-form",
        "a VLEK is of no chip"
    );
    let csp_id = Extension::amd("05", tlv(0x16, b"CN=cloud.example"));
    assert_eq!(spoiled(|w| w.leaf.set(csp_id)), "certificate-form", "a VCEK is of no provider");
    assert_eq!(spoiled(vlek_report), "endorsement-missing", "a VCEK for a report that says VLEK");
    assert_eq!(
        spoiled(|w| {
            w.leaf.issuer = "SEV-VLEK-Milan".into();
            w.ask.subject = "SEV-VLEK-Milan".into();
        }),
        "endorsement-missing",
        "a VCEK under the ASVK"
    );
}

#[test]
fn the_leaf_must_be_certified_for_this_tcb_and_chip() {
    for tail in ["0301", "0302", "0303", "0308"] {
        assert_eq!(spoiled(|w| w.leaf.set(Extension::amd(tail, integer(1)))), "tcb", "{tail}");
    }
    assert_eq!(spoiled(|w| w.patch(offset::CHIP_ID, &[0xff])), "chip-id");
    assert_eq!(spoiled(|w| w.patch(offset::CHIP_ID + 63, &[0xff])), "chip-id");
    assert_eq!(spoiled(|w| w.patch(offset::CHIP_ID, &[0; 64])), "accepted", "masked: the signature ties it");
    let version_2 = |w: &mut World| {
        w.patch(offset::VERSION, &[2]);
        w.patch(offset::CPUID, &[0; 3]);
    };
    assert_eq!(spoiled(version_2), "accepted", "its product is the leaf's");
    assert_eq!(
        spoiled(|w| {
            version_2(w);
            w.patch(offset::LAUNCH_TCB + 3, &[1]);
        }),
        "report-malformed",
        "reserved bytes of a TCB, once the product is known"
    );
}

#[test]
fn reports_by_the_host_and_unsigned_ones_are_refused() {
    assert_eq!(spoiled(|w| w.patch(offset::VMPL, &[0xff; 4])), "host-requested");
    assert_eq!(spoiled(|w| w.patch(offset::KEY_INFO, &[7 << 2])), "not-signed");
    assert_eq!(spoiled(|w| w.patch(offset::KEY_INFO, &[2])), "not-signed", "masked chip key");
}

#[test]
fn report_data_must_be_exactly_the_expected() {
    let exactly = |byte| ExpectedReportData::Exactly(ReportData::new([byte; 64]));
    assert_eq!(spoiled(|w| w.expected = exactly(0x5a)), "accepted");
    assert_eq!(spoiled(|w| w.expected = exactly(0)), "report-data");
    assert_eq!(
        spoiled(|w| {
            w.expected = exactly(0x5a);
            w.patch(offset::REPORT_DATA + 63, &[0]);
        }),
        "report-data"
    );
}

#[test]
fn fields_outside_their_range_make_no_report() {
    for version in [0, 1, 6, 0xff] {
        assert_eq!(spoiled(|w| w.patch(offset::VERSION, &[version])), "report-malformed", "version {version}");
    }
    for algo in [0, 2] {
        assert_eq!(spoiled(|w| w.patch(offset::SIGNATURE_ALGO, &[algo])), "report-malformed");
    }
    assert_eq!(spoiled(|w| w.patch(offset::VMPL, &[4])), "report-malformed");
    assert_eq!(spoiled(|w| w.patch(offset::KEY_INFO, &[2 << 2])), "report-malformed");
    assert_eq!(spoiled(|w| w.patch(offset::POLICY + 3, &[4])), "report-malformed", "POLICY bit 26");
    assert_eq!(spoiled(|w| w.patch(offset::POLICY + 2, &[1])), "report-malformed", "POLICY bit 17 zero");
}

#[test]
fn every_reserved_byte_must_be_zero_in_every_version() {
    let cases: [(u8, &[(usize, usize)]); 4] = [
        (2, &[(0x188, 0x1a0), (0x1f8, 0x2a0)]),
        (3, &[(0x18b, 0x1a0), (0x1f8, 0x2a0)]),
        (4, &[(0x18b, 0x1a0), (0x1f8, 0x2a0)]),
        (5, &[(0x18b, 0x1a0), (0x208, 0x2a0)]),
    ];
    let always = [(0x4c, 0x50), (0x1eb, 0x1ec), (0x1ef, 0x1f0), (0x2d0, 0x2e8), (0x318, 0x4a0)];
    for (version, ranges) in cases {
        let mut world = World::new();
        world.patch(offset::VERSION, &[version]);
        if version == 2 {
            world.patch(offset::CPUID, &[0; 3]);
        }
        let report = world.signed_report();
        coffer_verifier::abi::Report::parse(&report).unwrap();
        for at in ranges.iter().chain(&always).flat_map(|(from, to)| *from..*to) {
            let mut spoiled = report.clone();
            spoiled[at] = 1;
            assert!(coffer_verifier::abi::Report::parse(&spoiled).is_err(), "version {version} byte {at:#x}");
        }
        // TCB_VERSION, all four of them, where the product is known.
        if version > 2 {
            for at in [offset::CURRENT_TCB, offset::REPORTED_TCB, offset::COMMITTED_TCB, offset::LAUNCH_TCB] {
                let mut spoiled = report.clone();
                spoiled[at + 3] = 1;
                assert!(coffer_verifier::abi::Report::parse(&spoiled).is_err(), "version {version} TCB {at:#x}");
            }
        }
    }
}

#[test]
fn a_report_has_1184_bytes() {
    let report = World::new().signed_report();
    let parse = coffer_verifier::abi::Report::parse;
    assert!(parse(&report[..1183]).is_err());
    assert!(parse(&[report.as_slice(), &[0]].concat()).is_err());
    assert!(parse(&[]).is_err());
}

#[test]
fn a_pinned_root_of_another_product_is_no_anchor() {
    // The same key pinned for one line says nothing about another: the forged root carries Genoa's name.
    let mut world = World::new();
    world.anchored = true;
    assert_eq!(world.code(), "accepted");
    world.root.subject = "ARK-Turin".into();
    world.root.issuer = "ARK-Turin".into();
    world.ask.issuer = "ARK-Turin".into();
    world.list().issuer = "ARK-Turin".into();
    assert_eq!(world.code(), "untrusted-root");
}
