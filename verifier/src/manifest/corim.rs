//! A reference manifest as CoRIM, for verifiers that are not ours: what it admits, in exact values.
//!
//! One CoMID per launch, with its measurement for reports under a VCEK and under a VLEK; the manifest's times as the CoRIM's validity; its
//! sequence as the version of each tag. The same manifest gives the same bytes: definite and minimal lengths, keys in order (RFC 8949 §4.2.1).
//! Never: reads one, says a minimum, says that a manifest is believed. What the form has no place for stands in [`UNSAID`].
//! Source: draft-ietf-rats-corim-11; draft-deeglaze-amd-sev-snp-corim-profile (editor's copy of 21 June 2025); RFC 9052 §4.4; RFC 9090.

use super::{MeasuredLaunch, ReferenceManifest, document::Contents};
use crate::cbor::{ARRAY, MAP, NEGATIVE, TAG, UNSIGNED, write_bytes as bytes, write_head as head, write_text as text};
use crate::{P384PublicKey, SIGNATURE_SIZE, UnixTime, abi::Measurement};

/// The profile that the fields are named by.
pub const CORIM_PROFILE: &str = "tag:amd.com,2025:snp-corim-profile";

/// What a manifest says and its CoRIM does not: a word, and why or what follows.
pub const UNSAID: [(&str, &str); 4] = [
    (
        "guest_policy",
        "MEASUREMENT does not cover POLICY: whoever judges by the CoRIM must refuse DEBUG and a migration agent by itself, or a debug guest of the same MEASUREMENT, whose memory its host reads, passes",
    ),
    (
        "workload_digest",
        "the profile contradicts itself about HOST_DATA; each measurement covers the workload by its command line",
    ),
    ("components", "the profile has no place for what a measurement was computed from"),
    ("launch", "form, processors and their type stand in the tags' names alone, which nothing is compared with"),
];

/// A manifest written as CoRIM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corim {
    id: String,
    tags: usize,
    validity: (UnixTime, UnixTime),
    unsigned: Vec<u8>,
}

impl Corim {
    /// Writes what a manifest says. Whether anybody signed it is the caller's to know.
    pub fn of(manifest: &ReferenceManifest) -> Self {
        let Contents { name, sequence, created, expires, measurements, .. } = manifest.contents();
        let id = format!("coffer:{name}:{sequence}");
        let validity = (*created, *expires);
        let mut out = Vec::new();
        head(&mut out, TAG, TAG_CORIM);
        head(&mut out, MAP, 4);
        number(&mut out, 0);
        text(&mut out, &id);
        number(&mut out, 1);
        head(&mut out, ARRAY, measurements.len() as u64);
        for launch in measurements {
            head(&mut out, TAG, TAG_COMID);
            bytes(&mut out, &comid(name, *sequence, launch));
        }
        number(&mut out, 3);
        head(&mut out, TAG, TAG_URI);
        text(&mut out, CORIM_PROFILE);
        number(&mut out, 4);
        write_validity(&mut out, validity);
        Self { id, tags: measurements.len(), validity, unsigned: out }
    }

    /// `coffer:NAME:SEQUENCE`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How many CoMIDs it has: one per launch.
    pub fn tags(&self) -> usize {
        self.tags
    }

    /// The CoRIM, unsigned (tag 501).
    pub fn unsigned(&self) -> &[u8] {
        &self.unsigned
    }

    /// What a key signs, ES384: COSE's `Sig_structure`. It begins otherwise than a manifest's signing input, so neither signature is one
    /// of the other.
    pub fn signing_input(&self, key: &P384PublicKey) -> Vec<u8> {
        let mut out = Vec::new();
        head(&mut out, ARRAY, 4);
        text(&mut out, "Signature1");
        bytes(&mut out, &self.protected(key));
        bytes(&mut out, &[]);
        bytes(&mut out, &self.unsigned);
        out
    }

    /// The signed CoRIM (COSE_Sign1, tag 18), given the key's signature over [`Self::signing_input`].
    pub fn signed(&self, key: &P384PublicKey, signature: &[u8; SIGNATURE_SIZE]) -> Vec<u8> {
        let mut out = Vec::new();
        head(&mut out, TAG, TAG_SIGN1);
        head(&mut out, ARRAY, 4);
        bytes(&mut out, &self.protected(key));
        head(&mut out, MAP, 0);
        bytes(&mut out, &self.unsigned);
        bytes(&mut out, signature);
        out
    }

    /// `protected-corim-header-map-inline`; the key is named by its SPKI digest, as everywhere in Coffer.
    fn protected(&self, key: &P384PublicKey) -> Vec<u8> {
        let digest = key.spki_digest();
        let mut meta = Vec::new();
        head(&mut meta, MAP, 2);
        number(&mut meta, 0);
        head(&mut meta, MAP, 1);
        number(&mut meta, 0);
        text(&mut meta, &digest.to_string());
        number(&mut meta, 1);
        write_validity(&mut meta, self.validity);
        let mut out = Vec::new();
        head(&mut out, MAP, 4);
        number(&mut out, 1);
        head(&mut out, NEGATIVE, ES384);
        number(&mut out, 3);
        text(&mut out, "application/rim+cbor");
        number(&mut out, 4);
        bytes(&mut out, digest.as_bytes());
        number(&mut out, 8);
        bytes(&mut out, &meta);
        out
    }
}

/// `concise-mid-tag`. Its name stays the same from sequence to sequence, and its version grows.
fn comid(name: &str, sequence: u64, launch: &MeasuredLaunch) -> Vec<u8> {
    let MeasuredLaunch { launch, vcpus, vcpu_type, measurement } = launch;
    let mut out = Vec::new();
    head(&mut out, MAP, 2);
    number(&mut out, 1);
    head(&mut out, MAP, 2);
    number(&mut out, 0);
    text(&mut out, &format!("coffer:{name}:{launch}:{vcpus}:{vcpu_type}"));
    number(&mut out, 1);
    number(&mut out, sequence);
    number(&mut out, 4);
    head(&mut out, MAP, 1);
    number(&mut out, 0);
    head(&mut out, ARRAY, CLASSES.len() as u64);
    for class in &CLASSES {
        reference_triple(&mut out, class, measurement);
    }
    out
}

/// `reference-triple-record`: what runs under this class has this MEASUREMENT.
fn reference_triple(out: &mut Vec<u8>, class: &[u8], measurement: &Measurement) {
    head(out, ARRAY, 2);
    // environment-map { class: class-map { class-id: OID } }
    head(out, MAP, 1);
    number(out, 0);
    head(out, MAP, 1);
    number(out, 0);
    head(out, TAG, TAG_OID);
    bytes(out, class);
    // measurement-map { mkey, mval: measurement-values-map { digests: [[alg, val]] } }
    head(out, ARRAY, 1);
    head(out, MAP, 2);
    number(out, 0);
    number(out, MKEY_MEASUREMENT);
    number(out, 1);
    head(out, MAP, 1);
    number(out, 2);
    head(out, ARRAY, 1);
    head(out, ARRAY, 2);
    number(out, SHA384);
    bytes(out, measurement.as_bytes());
}

/// `validity-map`.
fn write_validity(out: &mut Vec<u8>, (from, until): (UnixTime, UnixTime)) {
    head(out, MAP, 2);
    for (key, time) in [(0, from), (1, until)] {
        number(out, key);
        head(out, TAG, TAG_TIME);
        // A manifest has no time before 1970.
        number(out, time.0.unsigned_abs());
    }
}

fn number(out: &mut Vec<u8>, number: u64) {
    head(out, UNSIGNED, number);
}

const TAG_TIME: u64 = 1;
const TAG_SIGN1: u64 = 18;
const TAG_URI: u64 = 32;
const TAG_OID: u64 = 111;
const TAG_CORIM: u64 = 501;
const TAG_COMID: u64 = 506;
/// -35 (RFC 9053 §2.1).
const ES384: u64 = 34;
/// Named Information Hash Algorithm Registry.
const SHA384: u64 = 7;
/// MEASUREMENT's bit in the report.
const MKEY_MEASUREMENT: u64 = 641;
/// 1.3.6.1.4.1.3704.3.1, reports under a VCEK, and .3.2, under a VLEK. The profile prints them with their DER header in front; of tag 111
/// (RFC 9090 §3) the content alone is the OID, and a header would make another one of it.
const CLASSES: [[u8; 9]; 2] =
    [[0x2b, 0x06, 0x01, 0x04, 0x01, 0x9c, 0x78, 0x03, 0x01], [0x2b, 0x06, 0x01, 0x04, 0x01, 0x9c, 0x78, 0x03, 0x02]];

#[cfg(test)]
mod tests {
    use super::super::document::tests::contents;
    use super::*;

    #[test]
    fn a_manifest_of_one_launch_is_these_bytes() {
        let mut contents = contents();
        contents.measurements.truncate(1);
        let corim = Corim::of(&ReferenceManifest::new(contents).unwrap());
        let triple = |class: &str| {
            let digest = "03".repeat(48);
            format!("82a100a100d86f492b06010401 9c7803{class} 81a200190281 01a1028182075830{digest}")
        };
        let name = hex::encode("coffer:registry.example/web:1:reset-vector:1:EPYC-Milan");
        let comid = format!("a201a2007837{name}0107 04a10082{}{}", triple("01"), triple("02"));
        let comid = hex::decode(comid.replace(' ', "")).unwrap();
        let id = hex::encode("coffer:registry.example/web:1:7");
        let profile = hex::encode(CORIM_PROFILE);
        let expected = format!(
            "d901f5a400781f{id}0181d901fa58e1{}03d8207822{profile}04a200c11903e801c11907d0",
            hex::encode(comid)
        );
        assert_eq!(hex::encode(corim.unsigned()), expected);
        assert_eq!((corim.id(), corim.tags()), ("coffer:registry.example/web:1:7", 1));
    }

    #[test]
    fn a_signature_of_one_form_is_none_of_the_other() {
        let manifest = ReferenceManifest::new(contents()).unwrap();
        let key = p384::ecdsa::SigningKey::from_slice(&[5; 48]).unwrap();
        let key = P384PublicKey::from_sec1(key.verifying_key().to_sec1_point(false).as_bytes()).unwrap();
        let input = Corim::of(&manifest).signing_input(&key);
        assert!(input.starts_with(b"\x84\x6aSignature1"));
        assert!(!super::super::signing_input(&manifest.to_bytes()).starts_with(&input[..1]));
        // Another key is another header, and so another input.
        let other = p384::ecdsa::SigningKey::from_slice(&[6; 48]).unwrap();
        let other = P384PublicKey::from_sec1(other.verifying_key().to_sec1_point(false).as_bytes()).unwrap();
        assert_ne!(Corim::of(&manifest).signing_input(&other), input);
    }
}
