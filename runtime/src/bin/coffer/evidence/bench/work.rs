//! Public-key operations that nobody who attests can avoid, with the libraries that both ends use.

use std::hint::black_box;
use std::time::Instant;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, ParsedPublicKey,
    RSA_PSS_2048_8192_SHA384,
};
use coffer_simulator::attack::{Scene, genuine};
use coffer_verifier::abi::ProductLine;
use p384::ecdsa::{Signature, SigningKey, signature::Signer as _};
use rustls::crypto::aws_lc_rs::{hpke::DH_KEM_P384_HKDF_SHA384_AES_256 as HPKE, kx_group::X25519MLKEM768};
use rustls::crypto::hpke::Hpke as _;
use serde_json::{Value, json};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::figures::{broken, median, micros};
use super::guest::{Platform, now};
use crate::error::{Class, Classify as _, CliError};

/// One kind of operation, as often as what is measured takes it.
pub struct Operation {
    pub end: &'static str,
    pub name: &'static str,
    pub count: f64,
    /// Microseconds.
    pub each: f64,
    samples: Vec<f64>,
}

impl Operation {
    pub fn to_json(&self) -> Value {
        let Self { end, name, count, each, samples } = self;
        json!({ "end": end, "operation": name, "count": count, "each_us": each, "samples_us": samples })
    }
}

/// The operations, and how long each took.
pub struct PublicKeys {
    signer: EcdsaKeyPair,
    verifier: ParsedPublicKey,
    signature: Vec<u8>,
    processor: SigningKey,
    root: ParsedPublicKey,
    certificate: Vec<u8>,
    times: [Vec<f64>; 10],
}

const START: usize = 0;
const ANSWER: usize = 1;
const COMPLETE: usize = 2;
const SIGN: usize = 3;
const VERIFY: usize = 4;
const RSA: usize = 5;
const REPORT: usize = 6;
const KEY_PAIR: usize = 7;
const ENCAPSULATE: usize = 8;
const DECAPSULATE: usize = 9;

const MESSAGE: [u8; 0x2a0] = [7; 0x2a0];

impl PublicKeys {
    pub fn new(platform: &Platform) -> Result<Self, CliError> {
        let set = genuine(&platform.installation, &Scene::new(ProductLine::Milan, now())).class(Class::Internal)?;
        let (_, root) = X509Certificate::from_der(&set.ark).map_err(|_| broken("certificate"))?;
        let key = ParsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, &root.public_key().subject_public_key.data);
        let signer = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).map_err(|_| broken("key"))?;
        let signature = signer.sign(&SystemRandom::new(), &MESSAGE).map_err(|_| broken("signature"))?;
        Ok(Self {
            verifier: ParsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, signer.public_key().as_ref())
                .map_err(|_| broken("key"))?,
            signature: signature.as_ref().to_vec(),
            signer,
            processor: SigningKey::from_slice(&[7; 48]).map_err(|_| broken("key"))?,
            root: key.map_err(|_| broken("root key"))?,
            certificate: set.ark.clone(),
            times: Default::default(),
        })
    }

    /// Each of them once.
    pub fn round(&mut self) -> Result<(), CliError> {
        let Self { signer, verifier, signature, processor, root, certificate, times } = self;
        let mut timed = Timed(times);
        let client = timed.run(START, || X25519MLKEM768.start()).class(Class::Internal)?;
        let server =
            timed.run(ANSWER, || X25519MLKEM768.start_and_complete(client.pub_key())).class(Class::Internal)?;
        black_box(timed.run(COMPLETE, || client.complete(&server.pub_key)).class(Class::Internal)?);
        black_box(timed.run(SIGN, || signer.sign(&SystemRandom::new(), &MESSAGE)).map_err(|_| broken("signature"))?);
        timed.run(VERIFY, || verifier.verify_sig(&MESSAGE, signature)).map_err(|_| broken("signature"))?;
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| broken("certificate"))?;
        let signed = parsed.tbs_certificate.as_ref();
        let verified = timed.run(RSA, || root.verify_sig(signed, &parsed.signature_value.data));
        verified.map_err(|_| broken("certificate"))?;
        black_box::<Signature>(timed.run(REPORT, || processor.sign(black_box(&MESSAGE))));
        let (public, private) = timed.run(KEY_PAIR, || HPKE.generate_key_pair()).class(Class::Internal)?;
        let (enc, sealed) =
            timed.run(ENCAPSULATE, || HPKE.seal(b"info", b"aad", &MESSAGE[..32], &public)).class(Class::Internal)?;
        let opened = timed.run(DECAPSULATE, || HPKE.open(&enc, b"info", b"aad", &sealed, &private));
        black_box(opened.class(Class::Internal)?);
        Ok(())
    }

    /// How long each HPKE encapsulation took.
    pub fn encapsulations(&self) -> &[f64] {
        &self.times[ENCAPSULATE]
    }

    /// What a first secret takes. `rsa`, `ecdsa`: verifications of its evidence, as the broker counts them.
    pub fn work(&self, rsa: f64, ecdsa: f64) -> Vec<Operation> {
        [
            ("guest", "X25519 + ML-KEM-768 key pair", 1.0, START),
            ("broker", "X25519 + ML-KEM-768 key pair and encapsulation", 1.0, ANSWER),
            ("guest", "X25519 + ML-KEM-768 decapsulation", 1.0, COMPLETE),
            ("broker", "P-384 signature of CertificateVerify", 1.0, SIGN),
            ("guest", "P-384 verification of CertificateVerify", 1.0, VERIFY),
            ("guest", "P-384 signature of CertificateVerify", 1.0, SIGN),
            ("broker", "P-384 verification of CertificateVerify", 1.0, VERIFY),
            ("guest", "HPKE P-384 key pair", 1.0, KEY_PAIR),
            ("guest", "P-384 signature of the report (simulated)", 1.0, REPORT),
            ("broker", "RSA-4096 PSS verification of the chain", rsa, RSA),
            ("broker", "P-384 verification of the report", ecdsa, VERIFY),
            ("broker", "HPKE P-384 encapsulation", 1.0, ENCAPSULATE),
            ("guest", "HPKE P-384 decapsulation", 1.0, DECAPSULATE),
        ]
        .map(|(end, name, count, at)| self.operation(end, name, count, at))
        .into()
    }

    /// What a client takes to believe a guest on a new connection, and the guest to be believed: TLS, one challenge, one report with
    /// its whole chain and revocation list.
    pub fn of_a_connection(&self) -> Vec<Operation> {
        [
            ("client", "X25519 + ML-KEM-768 key pair", 1.0, START),
            ("guest", "X25519 + ML-KEM-768 key pair and encapsulation", 1.0, ANSWER),
            ("client", "X25519 + ML-KEM-768 decapsulation", 1.0, COMPLETE),
            ("guest", "P-384 signature of CertificateVerify", 1.0, SIGN),
            ("client", "P-384 verification of CertificateVerify", 1.0, VERIFY),
            ("client", "P-384 signature of CertificateVerify", 1.0, SIGN),
            ("guest", "P-384 verification of CertificateVerify", 1.0, VERIFY),
            ("guest", "HPKE P-384 key pair", 1.0, KEY_PAIR),
            ("guest", "P-384 signature of the report (simulated)", 1.0, REPORT),
            ("client", "RSA-4096 PSS verification of chain and revocation list", 4.0, RSA),
            ("client", "P-384 verification of the report", 1.0, VERIFY),
        ]
        .map(|(end, name, count, at)| self.operation(end, name, count, at))
        .into()
    }

    fn operation(&self, end: &'static str, name: &'static str, count: f64, at: usize) -> Operation {
        let samples = self.times[at].clone();
        Operation { end, name, count, each: median(samples.clone()), samples }
    }
}

struct Timed<'a>(&'a mut [Vec<f64>; 10]);

impl Timed<'_> {
    fn run<T>(&mut self, index: usize, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        self.0[index].push(micros(start.elapsed()));
        done
    }
}
