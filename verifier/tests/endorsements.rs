//! The bag of certificates and lists: DER or PEM, bounded, and what it names as missing.

mod forge;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coffer_verifier::{
    EndorsementError, EndorsementKind, EndorsementRequest, Endorsements,
    abi::{CertKind, CertTable, Report, SigningKey, report::offset},
};
use forge::World;

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
        assert_eq!(add(&damaged), Err(EndorsementError::Pem), "{damaged}");
    }
    let mut bag = Endorsements::new();
    bag.add_crl(pem("X509 CRL", &crl).as_bytes()).unwrap();
    assert_eq!(bag.crls().len(), 1);
    assert_eq!(bag.add_crl(pem("CERTIFICATE", &crl).as_bytes()), Err(EndorsementError::Pem));
}

#[test]
fn a_bag_is_bounded_and_holds_everything_once() {
    let mut world = World::new();
    let mut bag = Endorsements::new();
    for serial in 0..16 {
        world.root.serial = vec![serial + 1];
        let der = world.root.encode(&world.root_key);
        bag.add_certificates(&der).unwrap();
        if serial == 0 {
            bag.add_certificates(&der).unwrap();
            assert_eq!(bag.certificates().len(), 1);
        }
    }
    world.root.serial = vec![99];
    let too_many = bag.add_certificates(&world.root.encode(&world.root_key)).unwrap_err();
    assert_eq!(too_many, EndorsementError::TooMany { what: "certificates", limit: 16 });
    for number in 0..8 {
        world.list().extensions = vec![forge::Extension::new(forge::CRL_NUMBER, false, forge::integer(number))];
        let der = world.list.as_ref().unwrap().encode(&world.root_key);
        bag.add_crl(&der).unwrap();
        if number == 0 {
            bag.add_crl(&der).unwrap();
            assert_eq!(bag.crls().len(), 1);
        }
    }
    world.list().extensions = vec![forge::Extension::new(forge::CRL_NUMBER, false, forge::integer(9))];
    let too_many = bag.add_crl(&world.list.as_ref().unwrap().encode(&world.root_key)).unwrap_err();
    assert_eq!(too_many, EndorsementError::TooMany { what: "revocation lists", limit: 8 });
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
    assert!(matches!(Endorsements::from_cert_table(&bad), Err(EndorsementError::Certificate { .. })));
}

#[test]
fn what_is_missing_is_named_with_where_amd_has_it() {
    let urls = |world: &World, kind| {
        let report = Report::parse(&world.signed_report()).unwrap();
        EndorsementRequest::for_report(&report, kind, None).urls
    };
    let vcek = EndorsementKind::Leaf(SigningKey::Vcek);
    let hwid = hex::encode((1..=64).collect::<Vec<u8>>());
    let kds = "https://kdsintf.amd.com";
    let mut world = World::new();
    let milan = format!("{kds}/vcek/v1/Milan/{hwid}?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219");
    assert_eq!(urls(&world, vcek), [milan.as_str()]);
    assert_eq!(
        urls(&World::turin(), vcek),
        [format!("{kds}/vcek/v1/Turin/0102030405060708?fmcSPL=01&blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219")]
    );
    assert_eq!(
        urls(&world, EndorsementKind::Intermediate(SigningKey::Vlek)),
        [format!("{kds}/vlek/v1/Milan/cert_chain")]
    );
    assert_eq!(urls(&world, EndorsementKind::Root(SigningKey::Vcek)), [format!("{kds}/vcek/v1/Milan/cert_chain")]);
    assert_eq!(urls(&world, EndorsementKind::Crl(SigningKey::Vlek)), [format!("{kds}/vlek/v1/Milan/crl")]);
    assert_eq!(urls(&world, EndorsementKind::Leaf(SigningKey::Vlek)), [""; 0], "only the provider has it");

    world.patch(offset::VERSION, &[2]);
    world.patch(offset::CPUID, &[0; 3]);
    let genoa = milan.replace("Milan", "Genoa");
    assert_eq!(urls(&world, vcek), [milan.as_str(), &genoa], "version 2 does not say which");
    world.patch(offset::CHIP_ID, &[0; 64]);
    assert_eq!(urls(&world, vcek), [""; 0], "a masked chip has no address");
    let mut turin = World::turin();
    turin.patch(offset::VERSION, &[2]);
    turin.patch(offset::CPUID, &[0; 3]);
    assert_eq!(urls(&turin, vcek), urls(&World::turin(), vcek), "a chip of eight bytes does");
}
