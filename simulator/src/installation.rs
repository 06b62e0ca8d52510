//! One installation of the simulator: a chip and its manufacturer's keys, made on first use and kept by the rim (mode 0600).

use aws_lc_rs::rand;
use coffer_verifier::abi::{ChipId, ProductLine, SpkiDigest, TcbVersion};
use p384::ecdsa::SigningKey;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::derive::ChipSecret;
use crate::endorsements::SimulatedEndorsements;
use crate::x509::{
    AuthorityKey, CrlTemplate, CryptoError, DerError, KeyKind, Name, Validity, ark_template, ask_template,
    asvk_template, ec_public_key, revoked, vcek_template, vlek_template,
};

/// Why an installation cannot be made, read or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallationError {
    /// The cryptographic library refused.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// A certificate cannot be written, as with a date before 1970.
    #[error("simulated certificate cannot be encoded: {0}")]
    Encode(#[from] DerError),
    /// The stored form is damaged or of another version.
    #[error("stored simulator installation is not readable: {0}")]
    Stored(String),
    /// Keys of this product were never made.
    #[error("simulator has no keys for {0} yet")]
    NoProduct(ProductLine),
}

/// Root of one product line, to be listed by whoever wants to believe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor<'a> {
    /// Product line.
    pub product: ProductLine,
    /// ARK certificate, DER.
    pub ark: &'a [u8],
    /// SHA-256 of its SubjectPublicKeyInfo: the anchor.
    pub spki: SpkiDigest,
}

/// Chip secret and, per product line used so far, the keys of ARK, ASK and ASVK.
pub struct Installation {
    chip: ChipSecret,
    created: u64,
    products: Vec<Product>,
}

pub(crate) struct Product {
    pub line: ProductLine,
    pub ark: Authority,
    pub ask: Authority,
    pub asvk: Option<Authority>,
}

pub(crate) struct Authority {
    pub key: AuthorityKey,
    pub certificate: Vec<u8>,
}

impl Installation {
    /// A chip with a fresh secret and no authority keys yet. `now`: Unix seconds.
    ///
    /// # Errors
    /// [`InstallationError::Crypto`] without randomness.
    pub fn create(now: u64) -> Result<Self, InstallationError> {
        Ok(Self { chip: fresh_chip()?, created: now, products: Vec::new() })
    }

    /// The same manufacturer's keys and another chip, with a fresh secret: a fleet has many.
    ///
    /// # Errors
    /// [`InstallationError`].
    pub fn with_another_chip(&self) -> Result<Self, InstallationError> {
        Ok(Self { chip: fresh_chip()?, ..Self::from_bytes(&self.to_bytes()?)? })
    }

    /// Makes ARK and ASK of `product` unless they exist; true if the installation changed and is to be stored again.
    /// Takes a few seconds the first time.
    ///
    /// # Errors
    /// [`InstallationError`]; nothing changed.
    pub fn ensure(&mut self, product: ProductLine, now: u64) -> Result<bool, InstallationError> {
        if self.product(product).is_ok() {
            return Ok(false);
        }
        let (ark_key, ask_key) = std::thread::scope(|scope| {
            let other = scope.spawn(AuthorityKey::generate);
            let ark = AuthorityKey::generate();
            (ark, other.join().unwrap_or(Err(CryptoError { what: "generate an RSA-4096 key" })))
        });
        let (ark_key, ask_key) = (ark_key?, ask_key?);
        let validity = authority_validity(now);
        let ark = ark_template(product, validity, ark_key.spki())?.sign(&ark_key)?;
        let ask = ask_template(product, validity, ask_key.spki(), ark_key.spki())?.sign(&ark_key)?;
        self.products.push(Product {
            line: product,
            ark: Authority { key: ark_key, certificate: ark },
            ask: Authority { key: ask_key, certificate: ask },
            asvk: None,
        });
        Ok(true)
    }

    /// Makes the ASVK of `product` too, for launches with a VLEK; true if the installation changed.
    ///
    /// # Errors
    /// [`InstallationError`].
    pub fn ensure_vlek(&mut self, product: ProductLine, now: u64) -> Result<bool, InstallationError> {
        self.ensure(product, now)?;
        let found = self.products.iter_mut().find(|found| found.line == product);
        let found = found.ok_or(InstallationError::NoProduct(product))?;
        if found.asvk.is_some() {
            return Ok(false);
        }
        let key = AuthorityKey::generate()?;
        let template = asvk_template(product, authority_validity(now), key.spki(), found.ark.key.spki())?;
        found.asvk = Some(Authority { certificate: template.sign(&found.ark.key)?, key });
        Ok(true)
    }

    /// Whether the keys of `product` exist, with `vlek` those of its ASVK too.
    pub fn has(&self, product: ProductLine, vlek: bool) -> bool {
        self.products.iter().any(|found| found.line == product && (!vlek || found.asvk.is_some()))
    }

    /// The anchor of `product`, if its keys exist.
    pub fn anchor(&self, product: ProductLine) -> Option<Anchor<'_>> {
        self.anchors().find(|anchor| anchor.product == product)
    }

    /// All anchors made so far.
    pub fn anchors(&self) -> impl Iterator<Item = Anchor<'_>> {
        self.products.iter().map(|product| Anchor {
            product: product.line,
            ark: &product.ark.certificate,
            spki: SpkiDigest::of(product.ark.key.spki()),
        })
    }

    /// CHIP_ID of the simulated chip as `product` states it.
    pub fn chip_id(&self, product: ProductLine) -> ChipId {
        self.chip.chip_id(product)
    }

    /// ASK certificate of `product`, DER.
    ///
    /// # Errors
    /// [`InstallationError::NoProduct`].
    pub fn ask(&self, product: ProductLine) -> Result<&[u8], InstallationError> {
        Ok(&self.product(product)?.ask.certificate)
    }

    /// ASVK certificate of `product`, DER, once [`Installation::ensure_vlek`] made it.
    ///
    /// # Errors
    /// [`InstallationError::NoProduct`].
    pub fn asvk(&self, product: ProductLine) -> Result<&[u8], InstallationError> {
        Ok(&self.asvk_authority(product)?.certificate)
    }

    /// VCEK certificate of this chip at `tcb`, as the KDS would issue it at `now`.
    ///
    /// # Errors
    /// [`InstallationError`].
    pub fn issue_vcek(&self, product: ProductLine, tcb: TcbVersion, now: u64) -> Result<Vec<u8>, InstallationError> {
        let spki = public_key(&self.chip.vcek(product, tcb))?;
        let validity = leaf_validity(now, VCEK_YEARS);
        let template = vcek_template(product, validity, &spki, tcb, &self.chip_id(product))?;
        Ok(template.sign(&self.product(product)?.ask.key)?)
    }

    /// VLEK certificate of `csp_id` at `tcb`.
    ///
    /// # Errors
    /// [`InstallationError`].
    pub fn issue_vlek(
        &self,
        product: ProductLine,
        csp_id: &str,
        tcb: TcbVersion,
        now: u64,
    ) -> Result<Vec<u8>, InstallationError> {
        let spki = public_key(&self.chip.vlek(product, csp_id, tcb))?;
        let template = vlek_template(product, leaf_validity(now, VLEK_YEARS), &spki, tcb, csp_id)?;
        Ok(template.sign(&self.asvk_authority(product)?.key)?)
    }

    /// CRL of the root of `product` at `now`: revoked is what AMD's list of that line has; valid for 45 days, its number grows daily.
    ///
    /// # Errors
    /// [`InstallationError`].
    pub fn crl(&self, product: ProductLine, now: u64) -> Result<Vec<u8>, InstallationError> {
        let ark = &self.product(product)?.ark.key;
        Ok(self.crl_template(product, now)?.sign(ark)?)
    }

    pub(crate) fn crl_template(&self, product: ProductLine, now: u64) -> Result<CrlTemplate, InstallationError> {
        Ok(CrlTemplate {
            issuer: Name::of(KeyKind::Ark, product),
            validity: Validity { from: now.saturating_sub(CLOCK_ALLOWANCE), to: now + 45 * DAY },
            number: now.saturating_sub(self.created) / DAY + 1,
            revoked: revoked(product),
            issuer_spki: self.product(product)?.ark.key.spki().to_vec(),
        })
    }

    /// Endorsements of reports at `tcb`; under the VLEK of a provider where one is named.
    pub(crate) fn endorse(
        &self,
        product: ProductLine,
        tcb: TcbVersion,
        vlek: Option<&str>,
        now: u64,
    ) -> Result<SimulatedEndorsements, InstallationError> {
        let (intermediate, leaf) = match vlek {
            Some(csp_id) => (self.asvk(product)?, self.issue_vlek(product, csp_id, tcb, now)?),
            None => (self.ask(product)?, self.issue_vcek(product, tcb, now)?),
        };
        Ok(SimulatedEndorsements {
            ark: self.product(product)?.ark.certificate.clone(),
            intermediate: intermediate.to_vec(),
            leaf,
            is_vlek: vlek.is_some(),
            crl: self.crl(product, now)?,
        })
    }

    pub(crate) fn chip(&self) -> &ChipSecret {
        &self.chip
    }

    pub(crate) fn product(&self, product: ProductLine) -> Result<&Product, InstallationError> {
        self.products.iter().find(|found| found.line == product).ok_or(InstallationError::NoProduct(product))
    }

    fn asvk_authority(&self, product: ProductLine) -> Result<&Authority, InstallationError> {
        self.product(product)?.asvk.as_ref().ok_or(InstallationError::NoProduct(product))
    }

    /// The stored form: JSON with private keys in it, for a file of mode 0600.
    ///
    /// # Errors
    /// [`InstallationError::Crypto`].
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, InstallationError> {
        let authority = |authority: &Authority| -> Result<StoredAuthority, CryptoError> {
            Ok(StoredAuthority {
                key: hex::encode(authority.key.to_pkcs8()?.as_slice()),
                certificate: hex::encode(&authority.certificate),
            })
        };
        let products = self.products.iter().map(|product| {
            Ok(StoredProduct {
                line: product.line,
                ark: authority(&product.ark)?,
                ask: authority(&product.ask)?,
                asvk: product.asvk.as_ref().map(authority).transpose()?,
            })
        });
        let stored = Stored {
            format: FORMAT.to_owned(),
            created: self.created,
            chip_secret: hex::encode(self.chip.expose()),
            products: products.collect::<Result<_, CryptoError>>()?,
        };
        let bytes = serde_json::to_vec(&stored).map_err(|error| InstallationError::Stored(error.to_string()))?;
        Ok(Zeroizing::new(bytes))
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`InstallationError::Stored`] or [`InstallationError::Crypto`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InstallationError> {
        let stored: Stored =
            serde_json::from_slice(bytes).map_err(|error| InstallationError::Stored(error.to_string()))?;
        if stored.format != FORMAT {
            return Err(InstallationError::Stored(format!("format is {:?}, expected {FORMAT:?}", stored.format)));
        }
        let unhex = |name: &str, text: &str| {
            hex::decode(text)
                .map(Zeroizing::new)
                .map_err(|_| InstallationError::Stored(format!("{name} is not hexadecimal")))
        };
        let secret = unhex("chip secret", &stored.chip_secret)?;
        let secret = Zeroizing::new(
            <[u8; 32]>::try_from(secret.as_slice())
                .map_err(|_| InstallationError::Stored("chip secret is not 32 bytes".to_owned()))?,
        );
        let authority = |stored: &StoredAuthority| -> Result<Authority, InstallationError> {
            let key = AuthorityKey::from_pkcs8(&unhex("authority key", &stored.key)?)?;
            Ok(Authority { key, certificate: unhex("certificate", &stored.certificate)?.to_vec() })
        };
        let mut products: Vec<Product> = Vec::new();
        for product in &stored.products {
            if products.iter().any(|found| found.line == product.line) {
                return Err(InstallationError::Stored(format!("{} stands twice", product.line)));
            }
            products.push(Product {
                line: product.line,
                ark: authority(&product.ark)?,
                ask: authority(&product.ask)?,
                asvk: product.asvk.as_ref().map(authority).transpose()?,
            });
        }
        Ok(Self { chip: ChipSecret::new(*secret), created: stored.created, products })
    }
}

fn fresh_chip() -> Result<ChipSecret, CryptoError> {
    let mut secret = Zeroizing::new([0; 32]);
    rand::fill(secret.as_mut_slice()).map_err(|_| CryptoError { what: "draw randomness" })?;
    Ok(ChipSecret::new(*secret))
}

/// DER SubjectPublicKeyInfo of an endorsement key.
pub(crate) fn public_key(key: &SigningKey) -> Result<Vec<u8>, DerError> {
    ec_public_key(key.verifying_key().to_sec1_point(false).as_bytes())
}

/// 20 years: simulated roots stay within UTCTime.
pub(crate) fn authority_validity(now: u64) -> Validity {
    Validity { from: now.saturating_sub(DAY), to: now + 20 * YEAR }
}

pub(crate) fn leaf_validity(now: u64, years: u64) -> Validity {
    Validity { from: now.saturating_sub(CLOCK_ALLOWANCE), to: now + years * YEAR }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: String,
    created: u64,
    chip_secret: String,
    products: Vec<StoredProduct>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredProduct {
    line: ProductLine,
    ark: StoredAuthority,
    ask: StoredAuthority,
    asvk: Option<StoredAuthority>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredAuthority {
    key: String,
    certificate: String,
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.chip_secret.zeroize();
    }
}

impl Drop for StoredAuthority {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

const FORMAT: &str = "coffer-simulator/1";
const DAY: u64 = 86_400;
const YEAR: u64 = 365 * DAY;
/// Guests may read a clock that lags the host's.
const CLOCK_ALLOWANCE: u64 = 3_600;
pub(crate) const VCEK_YEARS: u64 = 7;
pub(crate) const VLEK_YEARS: u64 = 1;
