//! The verifier beside the public-key operations it cannot avoid. `coffer bench verify` prints the same as one table.
#![allow(missing_docs)]

#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../tests/forge/mod.rs"]
mod forge;

use std::hint::black_box;

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, ParsedPublicKey, RSA_PSS_2048_8192_SHA384};
use coffer_verifier::{CrlPolicy, Endorsements, ExpectedReportData, VerifiedChain, abi::Report, verify};
use criterion::{Criterion, criterion_group, criterion_main};
use forge::World;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

fn all(c: &mut Criterion) {
    let world = World::new();
    let report = world.signed_report();
    let parsed = Report::parse(&report).unwrap();
    let endorsements = world.endorsements().unwrap();
    let (anchors, any) = (world.anchors(), ExpectedReportData::Any);
    let chain = VerifiedChain::verify(&parsed, &endorsements, &anchors, &CrlPolicy::Required, world.now).unwrap();
    let root = world.root.encode(&world.root_key);
    let leaf = world.leaf.encode(&world.ask_key);
    let ask = world.ask.encode(&world.root_key);
    let crl = world.list.as_ref().unwrap().encode(&world.root_key);
    let (_, leaf_x509) = X509Certificate::from_der(&leaf).unwrap();
    let (_, root_x509) = X509Certificate::from_der(&root).unwrap();
    let p384 = ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, &leaf_x509.public_key().subject_public_key.data).unwrap();
    let rsa = ParsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, &root_x509.public_key().subject_public_key.data).unwrap();
    let (r, s) = parsed.signature();
    let fixed: Vec<u8> = r.iter().rev().chain(s.iter().rev()).copied().collect();

    c.bench_function("raw P-384", |b| b.iter(|| p384.verify_sig(parsed.signed_bytes(), &fixed).unwrap()));
    c.bench_function("raw RSA-4096 PSS", |b| {
        b.iter(|| rsa.verify_sig(root_x509.tbs_certificate.as_ref(), &root_x509.signature_value.data).unwrap());
    });
    c.bench_function("parse", |b| b.iter(|| Report::parse(black_box(&report)).unwrap()));
    c.bench_function("report under a cached chain", |b| {
        b.iter(|| chain.verify_report(black_box(&report), &any, world.now).unwrap());
    });
    // What a cold chain takes beside its raw operations.
    c.bench_function("an RSA-4096 key read, and its first use", |b| {
        b.iter(|| {
            let key = &root_x509.public_key().subject_public_key.data;
            let rsa = ParsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, black_box(key)).unwrap();
            rsa.verify_sig(root_x509.tbs_certificate.as_ref(), &root_x509.signature_value.data).unwrap();
        });
    });
    c.bench_function("a P-384 key read", |b| {
        let key = &leaf_x509.public_key().subject_public_key.data;
        b.iter(|| ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, black_box(key)).unwrap());
    });
    c.bench_function("three certificates and a list read", |b| {
        b.iter(|| {
            let mut bag = Endorsements::new();
            for certificate in [&leaf, &ask, &root] {
                bag.add_certificates(black_box(certificate)).unwrap();
            }
            bag.add_crl(black_box(&crl)).unwrap();
            bag
        });
    });
    c.bench_function("chain and CRL cold, with report", |b| {
        b.iter(|| {
            let mut bag = Endorsements::new();
            for certificate in [&leaf, &ask, &root] {
                bag.add_certificates(certificate).unwrap();
            }
            bag.add_crl(&crl).unwrap();
            verify(&report, &bag, &anchors, &any, &CrlPolicy::Required, world.now).unwrap()
        });
    });
}

criterion_group!(benches, all);
criterion_main!(benches);
