//! Everything that follows from the chip secret: chip id, VCEK and VLEK, keys derived for guests.
//!
//! HKDF-SHA384 over length-prefixed fields, first of them a label, so that no two uses share an output.

use coffer_verifier::abi::{ChipId, DerivedKey, ProductLine, TcbVersion};
use coffer_verifier::binding::length_prefixed;
use hkdf::Hkdf;
use p384::ecdsa::SigningKey;
use secrecy::{ExposeSecret, SecretBox};
use sha2::Sha384;
use zeroize::Zeroizing;

/// 32 random bytes fused into the simulated chip.
pub struct ChipSecret(SecretBox<[u8; 32]>);

impl ChipSecret {
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(SecretBox::new(Box::new(bytes)))
    }

    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose_secret()
    }

    /// 64 bytes, or 8 and zeros on Turin.
    pub fn chip_id(&self, product: ProductLine) -> ChipId {
        let mut id = [0; 64];
        self.expand(&[b"coffer/simulator/chip-id/v1", product.name().as_bytes()], &mut id[..product.hwid_len()]);
        ChipId::new(id)
    }

    pub fn vcek(&self, product: ProductLine, tcb: TcbVersion) -> SigningKey {
        self.signing_key(&[b"coffer/simulator/vcek/v1", product.name().as_bytes(), &tcb.to_raw().to_le_bytes()])
    }

    pub fn vlek(&self, product: ProductLine, csp_id: &str, tcb: TcbVersion) -> SigningKey {
        let tcb = tcb.to_raw().to_le_bytes();
        self.signing_key(&[b"coffer/simulator/vlek/v1", product.name().as_bytes(), csp_id.as_bytes(), &tcb])
    }

    /// Root of the keys derived for guests; the firmware keeps one per endorsement key.
    pub fn guest_root(&self, product: ProductLine, endorsement: &str) -> Self {
        let mut root = Zeroizing::new([0; 32]);
        let fields = [b"coffer/simulator/guest-root/v1", product.name().as_bytes(), endorsement.as_bytes()];
        self.expand(&fields, root.as_mut_slice());
        Self::new(*root)
    }

    /// A key for one guest; `fields` are those it selected, in a fixed order.
    pub fn guest_key(&self, fields: &[&[u8]]) -> DerivedKey {
        let mut key = Zeroizing::new([0; 32]);
        let mut labelled: Vec<&[u8]> = vec![b"coffer/simulator/guest-key/v1"];
        labelled.extend_from_slice(fields);
        self.expand(&labelled, key.as_mut_slice());
        DerivedKey::new(*key)
    }

    fn signing_key(&self, fields: &[&[u8]]) -> SigningKey {
        // A candidate is refused with probability 2^-190; the counter makes the loop total all the same.
        for counter in 0_u8..=u8::MAX {
            let mut scalar = Zeroizing::new([0; 48]);
            let mut numbered = fields.to_vec();
            let counter = [counter];
            numbered.push(&counter);
            self.expand(&numbered, scalar.as_mut_slice());
            if let Ok(key) = SigningKey::from_slice(scalar.as_slice()) {
                return key;
            }
        }
        unreachable!("256 independent candidates are not all outside the scalar field")
    }

    fn expand(&self, fields: &[&[u8]], out: &mut [u8]) {
        Hkdf::<Sha384>::new(None, self.expose())
            .expand(&length_prefixed(fields), out)
            .expect("at most 64 bytes are asked for");
    }
}
