//! The bag of certificates and lists: DER or PEM, bounded for strangers, searched by chip, and what is named as missing.

use crate::forge;
use crate::forge::World;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use coffer_verifier::{
    Code, CrlPolicy, EndorsementError, EndorsementKind, EndorsementRequest, Endorsements, Evidence, VerifyError,
    abi::{CertKind, CertTable, ProductLine, Report, SigningKey, report::offset},
    verify,
};

fn pem(label: &str, der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let lines: Vec<_> = base64.as_bytes().chunks(64).map(|line| core::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn ders() -> [Vec<u8>; 4] {
    let world = World::new();
    [
        world.leaf.encode(&world.ask_key),
        world.ask.encode(&world.root_key),
        world.root.encode(&world.root_key),
        world.list.as_ref().unwrap().encode(&world.root_key),
    ]
}

fn add(text: &str) -> Result<usize, EndorsementError> {
    let mut bag = Endorsements::new();
    bag.add_certificates(text.as_bytes()).map(|()| bag.certificates().len())
}

#[test]
fn pem_is_read_as_hosts_write_it_and_damaged_text_is_refused() {
    let [_, ask, ark, crl] = ders();
    let both = pem("CERTIFICATE", &ask) + &pem("CERTIFICATE", &ark);
    assert_eq!(add(&both), Ok(2));
    assert_eq!(add(&both.replace('\n', "\r\n")), Ok(2), "Turin's chain has CRLF");
    assert_eq!(add(&format!("\n  {both}\0")), Ok(2), "a buffer's terminating NUL");
    for damaged in [
        both.replacen("-----END CERTIFICATE-----", "", 2),
        both.replacen("CERTIFICATE", "X509 CRL", 4),
        both.replacen("BEGIN CERTIFICATE", "BEGIN CERTIFICATS", 1),
        both.replacen("MII", "M*I", 1),
        both.clone() + "more",
        pem("CERTIFICATE", &ask).replace("-----END CERTIFICATE-----", "-----END CERT-----"),
    ] {
        let error = add(&damaged).unwrap_err();
        assert!(error.is_malformed() && error.reason().code == Code::Pem, "{damaged}: {error}");
    }
    let mut bag = Endorsements::new();
    bag.add_crl(pem("X509 CRL", &crl).as_bytes()).unwrap();
    assert_eq!(bag.crls().len(), 1);
    let other = bag.add_crl(pem("CERTIFICATE", &crl).as_bytes()).unwrap_err();
    assert_eq!(other.to_string(), "a certificate where a revocation list is due");
    assert_eq!((other.reason().code, other.is_malformed()), (Code::Pem, true));
}

#[test]
fn what_is_brought_stands_beside_what_came_and_nothing_is_lost() {
    let [leaf, ask, ark, crl] = ders();
    let came = CertTable::write(&[(CertKind::Vcek, &root(7)), (CertKind::Ark, &ark), (CertKind::Crl, &list(3))]);
    let mut evidence = Evidence { report: vec![1], cert_table: came, workload_spec: vec![2], ..Evidence::default() };
    let (before, mut all) = (evidence.clone(), Endorsements::from_evidence(&evidence).unwrap());
    let mut others = Endorsements::new();
    for certificate in [&leaf, &ask, &ark] {
        others.add_certificates(certificate).unwrap();
    }
    others.add_crl(&crl).unwrap();
    evidence.bring(&others).unwrap();
    all.merge(&others);
    let ders = |bag: &Endorsements| {
        let certificates = bag.certificates().map(|one| one.der().to_vec());
        certificates.chain(bag.crls().map(|one| one.der().to_vec())).collect::<std::collections::BTreeSet<_>>()
    };
    let found = Endorsements::from_evidence(&evidence).unwrap();
    assert_eq!((ders(&found), ders(&found).len()), (ders(&all), 6));
    assert_eq!((&evidence.report, &evidence.workload_spec), (&before.report, &before.workload_spec));
    // Too many, or with what cannot be read: it is as it was.
    (0..16).for_each(|serial| others.add_certificates(&root(serial)).unwrap());
    evidence = before.clone();
    assert!(matches!(evidence.bring(&others), Err(EndorsementError::TooMany { .. })));
    assert_eq!(evidence, before);
    evidence.cert_table = vec![1; 30];
    let damaged = evidence.clone();
    assert!(evidence.bring(&Endorsements::new()).is_err());
    assert_eq!(evidence, damaged);
}

/// A root certificate that differs by its serial number alone.
fn root(serial: u8) -> Vec<u8> {
    let mut world = World::new();
    world.root.serial = vec![serial + 1];
    world.root.encode(&world.root_key)
}

/// A list that differs by its number alone.
fn list(number: u8) -> Vec<u8> {
    let mut world = World::new();
    world.list().extensions = vec![forge::Extension::new(forge::CRL_NUMBER, false, forge::integer(number))];
    world.list.as_ref().unwrap().encode(&world.root_key)
}

#[test]
fn what_a_stranger_sends_is_bounded_and_counted_once() {
    let roots = |count: u8| -> Vec<_> { (0..count).map(root).collect() };
    let sixteen = roots(16);
    let pem_twice: String = sixteen.iter().chain(&sixteen).map(|der| pem("CERTIFICATE", der)).collect();
    let twice = CertTable::write(&[(CertKind::Ark, pem_twice.as_bytes())]);
    assert_eq!(Endorsements::from_cert_table(&twice).unwrap().certificates().len(), 16, "duplicates count once");
    let pem_17: String = roots(17).iter().map(|der| pem("CERTIFICATE", der)).collect();
    let one_more = CertTable::write(&[(CertKind::Ark, pem_17.as_bytes())]);
    let error = Endorsements::from_cert_table(&one_more).unwrap_err();
    assert_eq!(error, EndorsementError::TooMany { what: "certificates", limit: 16 });

    let with = |crls: Vec<Vec<u8>>| Endorsements::from_evidence(&Evidence { crls, ..Evidence::default() });
    let eight: Vec<_> = (0..8).map(list).collect();
    assert_eq!(with([eight.clone(), eight].concat()).unwrap().crls().len(), 8, "duplicates count once");
    let error = with((0..9).map(list).collect()).unwrap_err();
    assert_eq!(error, EndorsementError::TooMany { what: "revocation lists", limit: 8 });
}

#[test]
fn what_an_operator_configures_is_not_bounded_and_held_once() {
    let mut bag = Endorsements::new();
    for serial in 0..20 {
        let (root, list) = (root(serial), list(serial));
        for _ in 0..2 {
            bag.add_certificates(&root).unwrap();
            bag.add_crl(&list).unwrap();
        }
    }
    assert_eq!((bag.certificates().len(), bag.crls().len()), (20, 20));
    let mut other = Endorsements::new();
    other.merge(&bag);
    other.merge(&bag);
    assert_eq!((other.certificates().len(), other.crls().len()), (20, 20));
}

#[test]
fn a_thousand_chips_can_be_configured_and_are_found_by_chip() {
    let mut world = World::new();
    let hwid = |chip: u16| -> Vec<u8> { [&chip.to_be_bytes()[..], &[0x33; 62]].concat() };
    let mut bag = Endorsements::new();
    let chips = [0, 1, 511, 999];
    world.leaf.set(forge::Extension::amd("04", hwid(0)));
    let of_chip_0 = world.leaf.encode(&world.ask_key);
    let at = of_chip_0.windows(64).position(|bytes| bytes == hwid(0)).unwrap();
    for chip in 0..1000 {
        // Those that are asked for are signed; to sign every one would take a while.
        let mut der = of_chip_0.clone();
        if chips.contains(&chip) {
            world.leaf.set(forge::Extension::amd("04", hwid(chip)));
            der = world.leaf.encode(&world.ask_key);
        } else {
            der[at..at + 64].copy_from_slice(&hwid(chip));
        }
        bag.add_certificates(&der).unwrap();
    }
    for der in &ders()[1..3] {
        bag.add_certificates(der).unwrap();
    }
    bag.add_crl(&ders()[3]).unwrap();
    let code = |world: &World| {
        verify(&world.signed_report(), &bag, &world.anchors(), &world.expected, &world.crl, world.now)
            .map_or_else(|error| error.reason().code.as_str(), |_| "accepted")
    };
    for chip in chips {
        world.patch(offset::CHIP_ID, &hwid(chip));
        assert_eq!(code(&world), "accepted", "chip {chip}");
    }
    world.patch(offset::CHIP_ID, &hwid(1000));
    assert_eq!(code(&world), "endorsement-missing", "a chip nobody configured");
}

#[test]
fn a_certificate_table_may_hold_der_pem_lists_and_things_nobody_knows() {
    let [leaf, ask, ark, crl] = ders();
    let ask = pem("CERTIFICATE", &ask).into_bytes();
    let table = CertTable::write(&[
        (CertKind::Vcek, &leaf),
        (CertKind::Ask, &ask),
        (CertKind::Ark, &ark),
        (CertKind::Crl, &crl),
        (CertKind::Other([7; 16]), b"not a certificate"),
        (CertKind::Vlek, b""),
    ]);
    let bag = Endorsements::from_cert_table(&table).unwrap();
    assert_eq!((bag.certificates().len(), bag.crls().len()), (3, 1));
    let bad = CertTable::write(&[(CertKind::Ark, b"not a certificate")]);
    let bad = Endorsements::from_cert_table(&bad).unwrap_err();
    assert_eq!(
        (bad.to_string().as_str(), bad.reason().code),
        ("a text where a certificate is due", Code::CertificateForm)
    );
}

#[test]
fn all_that_is_missing_is_named_at_once_and_typed() {
    let names = |world: &World, bag: &Endorsements| match verify(
        &world.signed_report(),
        bag,
        &world.anchors(),
        &world.expected,
        &world.crl,
        world.now,
    ) {
        Err(VerifyError::Missing(missing)) => {
            missing.requests.iter().map(|one| (one.kind.name(), one.products.clone(), one.simulated)).collect()
        }
        Err(other) => panic!("{other}"),
        Ok(_) => Vec::new(),
    };
    let [leaf, ask, ark, crl] = ders();
    let bag = |certificates: &[&Vec<u8>], lists: &[&Vec<u8>]| {
        let mut bag = Endorsements::new();
        for der in certificates {
            bag.add_certificates(der).unwrap();
        }
        for der in lists {
            bag.add_crl(der).unwrap();
        }
        bag
    };
    let milan = || vec![ProductLine::Milan];
    let (vcek, ask_name, ark_name, list) =
        ("VCEK certificate", "ASK certificate", "ARK certificate", "certificate revocation list");
    let mut world = World::new();
    assert_eq!(
        names(&world, &bag(&[], &[])),
        [vcek, ask_name, ark_name, list].map(|name| (name, milan(), false)),
        "nothing at hand"
    );
    let under_root = bag(&[&ask, &ark], &[]);
    assert_eq!(
        names(&world, &under_root),
        [vcek, list].map(|name| (name, milan(), true)),
        "a listed simulator's chain"
    );
    assert_eq!(names(&world, &bag(&[&leaf, &ark], &[&crl])), [(ask_name, milan(), true)]);
    assert_eq!(names(&world, &bag(&[&leaf, &ask], &[&crl])), [(ark_name, milan(), false)]);
    assert_eq!(names(&world, &bag(&[&leaf, &ask, &ark], &[])), [(list, milan(), true)]);
    world.crl = CrlPolicy::Waived;
    assert_eq!(names(&world, &bag(&[&ask, &ark], &[])), [(vcek, milan(), true)], "no list is wanted");
    world.patch(offset::VERSION, &[2]);
    world.patch(offset::CPUID, &[0; 3]);
    let either = vec![ProductLine::Milan, ProductLine::Genoa];
    assert_eq!(names(&world, &under_root), [(vcek, either, true)], "version 2 does not say which");
}

#[test]
fn a_request_names_chip_and_tcb_as_the_product_writes_them() {
    let request = |world: &World, product| {
        let report = Report::parse(&world.signed_report()).unwrap();
        EndorsementRequest::for_report(&report, EndorsementKind::Leaf(SigningKey::Vcek), product)
    };
    let mut world = World::new();
    let milan = request(&world, None);
    assert_eq!(milan.products, [ProductLine::Milan]);
    assert_eq!(milan.tcb(ProductLine::Milan).unwrap().snp, 0x18);
    assert!(milan.chip_id.is_some());
    let turin = request(&World::turin(), None);
    assert_eq!(turin.tcb(ProductLine::Turin).unwrap().fmc, Some(1));
    world.patch(offset::CHIP_ID, &[0; 64]);
    assert_eq!(request(&world, None).chip_id, None, "masked");
    let mut world = World::turin();
    world.patch(offset::VERSION, &[2]);
    world.patch(offset::CPUID, &[0; 3]);
    assert_eq!(request(&world, None).products, [ProductLine::Turin], "a chip of eight bytes says which");
}

#[test]
fn a_chain_of_the_wrong_product_says_what_was_given() {
    let world = World::new();
    let mut bag = Endorsements::new();
    let turin = World::turin();
    bag.add_certificates(&ders()[0]).unwrap();
    bag.add_certificates(&turin.ask.encode(&turin.root_key)).unwrap();
    bag.add_certificates(&turin.root.encode(&turin.root_key)).unwrap();
    let reason = verify(&world.signed_report(), &bag, &world.anchors(), &world.expected, &world.crl, world.now)
        .unwrap_err()
        .reason();
    assert_eq!(reason.code, "endorsement-missing");
    assert_eq!(reason.found, "1 ARK-Turin, 1 SEV-Turin, 1 SEV-VCEK");
    assert!(reason.expected.starts_with("ASK certificate for Milan"), "{}", reason.expected);
}
