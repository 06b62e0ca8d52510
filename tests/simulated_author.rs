//! A simulator's installation of today, keys whose private numbers everybody knows, and launches that their holders sign. Included by the
//! tests of several crates.
#![allow(dead_code, reason = "each uses its part")]

use std::path::Path;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use coffer_simulator::{IdEvidence, Installation};
use coffer_verifier::P384PublicKey;
use coffer_verifier::abi::{FamilyId, ImageId, KeyDigest, Measurement, ProductLine};
use coffer_verifier::measure::{IdAuth, IdBlock, Signed, key_digest, key_structure};

pub fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// One installation for all tests: its RSA keys are the slow part. It lives in the build folder and signs nothing else.
pub fn installation() -> &'static Installation {
    static ONE: OnceLock<Installation> = OnceLock::new();
    ONE.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("simulated-installation");
        if let Some(found) = std::fs::read(&path).ok().and_then(|bytes| Installation::from_bytes(&bytes).ok()) {
            return found;
        }
        let mut made = Installation::create(unix()).unwrap();
        made.ensure(ProductLine::Milan, unix()).unwrap();
        let fresh = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        std::fs::write(fresh.path(), made.to_bytes().unwrap().as_slice()).unwrap();
        // Whoever comes first wins: all processes must use one root.
        let _ = fresh.persist_noclobber(&path);
        Installation::from_bytes(&std::fs::read(&path).unwrap()).unwrap()
    })
}

/// A P-384 key whose private number everybody knows.
pub struct Key {
    secret: p384::ecdsa::SigningKey,
    pub public: P384PublicKey,
}

impl Key {
    pub fn new(seed: u8) -> Self {
        let secret = p384::ecdsa::SigningKey::from_slice(&[seed; 48]).unwrap();
        let public = P384PublicKey::from_sec1(secret.verifying_key().to_sec1_point(false).as_bytes()).unwrap();
        Self { secret, public }
    }

    pub fn sign(&self, message: &[u8]) -> [u8; 96] {
        use p384::ecdsa::{Signature, signature::Signer as _};
        let signature: Signature = self.secret.sign(message);
        signature.to_bytes().into()
    }

    pub fn author_digest(&self) -> KeyDigest {
        key_digest(&key_structure(&self.public))
    }
}

/// Who signs a launch, and under which names.
#[derive(Clone)]
pub struct Author {
    pub key: u8,
    pub key_enabled: bool,
    pub family_id: [u8; 16],
    pub image_id: [u8; 16],
    pub guest_svn: u32,
}

impl Default for Author {
    fn default() -> Self {
        Self { key: 0x21, key_enabled: true, family_id: [1; 16], image_id: [2; 16], guest_svn: 5 }
    }
}

impl Author {
    pub fn sign(&self, measurement: Measurement, policy: u64) -> IdEvidence {
        let Self { family_id, image_id, guest_svn, .. } = *self;
        let (family_id, image_id) = (FamilyId::new(family_id), ImageId::new(image_id));
        let block = IdBlock { measurement, family_id, image_id, guest_svn, policy };
        let (id, author) = (Key::new(0x20), Key::new(self.key));
        let (over_block, over_key) = (id.sign(&block.to_bytes()), author.sign(&key_structure(&id.public)));
        let auth = IdAuth::new(
            Signed { key: &id.public, signature: &over_block },
            Some(Signed { key: &author.public, signature: &over_key }),
        );
        IdEvidence { block, auth: auth.unwrap(), author_key_enabled: self.key_enabled }
    }
}
