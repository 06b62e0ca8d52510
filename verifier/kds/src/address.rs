//! What the KDS has, and where.
//!
//! Never: names an address for a chain that is not AMD's, unless the caller named the service.
//! Source: AMD 57230, "VCEK certificate request" and "Certificate chain request".

use core::fmt;
use std::net::IpAddr;

use coffer_verifier::abi::{ChipId, ProductLine, SigningKey, TcbVersion};
use coffer_verifier::{Appraisal, EndorsementKind, EndorsementRequest};
use reqwest::Url;

const AMD: &str = "https://kdsintf.amd.com";

/// A service that answers AMD's paths: AMD's own, or a mirror of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base(String);

/// Why an address is no base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BaseError {
    /// No URL.
    #[error("not a URL such as https://mirror.example/amd")]
    Url,
    /// Anything but https, or http to this machine itself.
    #[error("a mirror is spoken to in https; http is for this machine's own addresses")]
    Scheme,
    /// User, password, query or fragment.
    #[error("a mirror's URL has a host and a path, and nothing else")]
    Parts,
}

impl Base {
    /// AMD's.
    pub fn amd() -> Self {
        Self(AMD.to_owned())
    }

    /// A mirror; paths are appended to its own.
    ///
    /// # Errors
    /// [`BaseError`].
    pub fn parse(text: &str) -> Result<Self, BaseError> {
        let url = Url::parse(text).map_err(|_| BaseError::Url)?;
        let host = url.host_str().ok_or(BaseError::Url)?;
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let here = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
        if url.scheme() != "https" && !(url.scheme() == "http" && here) {
            return Err(BaseError::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(BaseError::Parts);
        }
        Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
    }

    /// True if it is AMD's own.
    pub fn is_amd(&self) -> bool {
        self.0 == AMD
    }

    /// True if it is this machine, spoken to in the clear.
    pub(crate) fn is_plain(&self) -> bool {
        self.0.starts_with("http://")
    }

    /// Where it has `item`, if anybody serves that.
    pub fn url(&self, item: &Item) -> Option<String> {
        item.path().map(|path| format!("{}{path}", self.0))
    }
}

impl core::str::FromStr for Base {
    type Err = BaseError;
    fn from_str(text: &str) -> Result<Self, BaseError> {
        Self::parse(text)
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One thing that endorses reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Item {
    /// The leaf of a chip at a TCB.
    Vcek {
        /// Product line.
        product: ProductLine,
        /// The chip; none is masked here.
        chip: ChipId,
        /// What it certifies.
        tcb: TcbVersion,
    },
    /// The leaf of a cloud provider at a TCB. No service has it: it is carried, or imported.
    Vlek {
        /// Product line.
        product: ProductLine,
        /// What it certifies.
        tcb: TcbVersion,
    },
    /// Intermediate and root.
    Chain {
        /// Product line.
        product: ProductLine,
        /// Kind of leaf.
        key: SigningKey,
    },
    /// Revocation list.
    Crl {
        /// Product line.
        product: ProductLine,
        /// Kind of leaf.
        key: SigningKey,
    },
}

impl Item {
    /// What `request` asks for; several if the product line is not known, none if its chip is masked.
    pub fn of(request: &EndorsementRequest) -> Vec<Self> {
        let of = |product: ProductLine| match request.kind {
            EndorsementKind::Leaf(SigningKey::Vcek) => {
                let (chip, tcb) = (request.chip_id.filter(|chip| !chip.is_zero())?, request.tcb(product)?);
                // Bytes that name no chip of this line name nobody's certificate.
                let rest = chip.as_bytes().get(product.hwid_len()..)?;
                rest.iter().all(|byte| *byte == 0).then_some(Self::Vcek { product, chip, tcb })
            }
            EndorsementKind::Leaf(SigningKey::Vlek) => Some(Self::Vlek { product, tcb: request.tcb(product)? }),
            EndorsementKind::Leaf(SigningKey::None) => None,
            EndorsementKind::Intermediate(key) | EndorsementKind::Root(key) => Some(Self::Chain { product, key }),
            EndorsementKind::Crl(key) => Some(Self::Crl { product, key }),
        };
        request.products.iter().filter_map(|product| of(*product)).collect()
    }

    /// Product line.
    pub const fn product(&self) -> ProductLine {
        match self {
            Self::Vcek { product, .. }
            | Self::Vlek { product, .. }
            | Self::Chain { product, .. }
            | Self::Crl { product, .. } => *product,
        }
    }

    /// In whose chain it stands.
    pub const fn key(&self) -> SigningKey {
        match self {
            Self::Vcek { .. } => SigningKey::Vcek,
            Self::Vlek { .. } => SigningKey::Vlek,
            Self::Chain { key, .. } | Self::Crl { key, .. } => *key,
        }
    }

    /// True of what endorses a report itself.
    pub(crate) const fn is_leaf(&self) -> bool {
        matches!(self, Self::Vcek { .. } | Self::Vlek { .. })
    }

    /// The first part of its path.
    pub(crate) const fn kind(&self) -> &'static str {
        match self.key() {
            SigningKey::Vlek => "vlek",
            SigningKey::Vcek | SigningKey::None => "vcek",
        }
    }

    /// The bytes that name its chip, in hexadecimal.
    pub(crate) fn hwid(product: ProductLine, chip: &ChipId) -> String {
        hex::encode(&chip.as_bytes()[..product.hwid_len()])
    }

    /// Path and query.
    pub fn path(&self) -> Option<String> {
        let kind = self.kind();
        match self {
            Self::Vcek { product, chip, tcb } => {
                let fmc = tcb.fmc.map(|fmc| format!("fmcSPL={fmc:02}&")).unwrap_or_default();
                Some(format!(
                    "/vcek/v1/{product}/{}?{fmc}blSPL={:02}&teeSPL={:02}&snpSPL={:02}&ucodeSPL={:02}",
                    Self::hwid(*product, chip),
                    tcb.bootloader,
                    tcb.tee,
                    tcb.snp,
                    tcb.microcode
                ))
            }
            Self::Vlek { .. } => None,
            Self::Chain { product, .. } => Some(format!("/{kind}/v1/{product}/cert_chain")),
            Self::Crl { product, .. } => Some(format!("/{kind}/v1/{product}/crl")),
        }
    }

    /// Longest form of it worth reading, in bytes. Genuine ones have below 2, 6 and 1 KiB.
    pub(crate) const fn limit(&self) -> usize {
        match self {
            Self::Vcek { .. } | Self::Vlek { .. } => 16 << 10,
            Self::Chain { .. } => 32 << 10,
            Self::Crl { .. } => 96 << 10,
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key();
        match self {
            Self::Vcek { product, chip, tcb } => {
                let hwid = Self::hwid(*product, chip);
                write!(f, "VCEK of {product} chip {} at TCB {tcb}", &hwid[..16.min(hwid.len())])
            }
            Self::Vlek { product, tcb } => write!(f, "VLEK of {product} at TCB {tcb}"),
            Self::Chain { product, .. } => write!(f, "{key} chain of {product}"),
            Self::Crl { product, .. } => write!(f, "{key} revocation list of {product}"),
        }
    }
}

/// Where AMD has it; several if the product line is not known. None for a VLEK, which only the cloud provider has, for a
/// masked chip, and for a simulator's chain.
pub fn urls(request: &EndorsementRequest) -> Vec<String> {
    if request.simulated {
        return Vec::new();
    }
    let amd = Base::amd();
    Item::of(request).iter().filter_map(|item| amd.url(item)).collect()
}

/// An appraisal as `--json` prints it: the judge's own form, with addresses beside what is missing. `simulated`: the caller
/// knows that it is of a simulator, which evidence without its certificates does not say.
pub fn appraisal_json(appraisal: &Appraisal, simulated: bool) -> serde_json::Value {
    let mut value = serde_json::json!(appraisal);
    let missing = value.get_mut("missing").and_then(serde_json::Value::as_array_mut).into_iter().flatten();
    for (entry, request) in missing.zip(appraisal.missing()) {
        entry["urls"] = if simulated { Vec::new() } else { urls(request) }.into();
        entry["simulated"] = (simulated || request.simulated).into();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(kind: EndorsementKind, products: &[ProductLine], reported_tcb: u64) -> EndorsementRequest {
        let mut chip = [0; 64];
        chip[..8].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
        EndorsementRequest {
            kind,
            products: products.to_vec(),
            chip_id: Some(ChipId::new(chip)),
            reported_tcb,
            simulated: false,
        }
    }

    #[test]
    fn every_missing_thing_has_the_address_amd_serves_it_at() {
        use EndorsementKind::{Crl, Intermediate, Leaf, Root};
        use ProductLine::{Genoa, Milan, Turin};
        use SigningKey::{Vcek, Vlek};
        let milan = 0xdb18_0000_0000_0004;
        let hwid = format!("0102030405060708{}", "00".repeat(56));
        let levels = "blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219";
        assert_eq!(urls(&request(Leaf(Vcek), &[Milan], milan)), [format!("{AMD}/vcek/v1/Milan/{hwid}?{levels}")]);
        assert_eq!(urls(&request(Leaf(Vcek), &[Milan, Genoa], milan)).len(), 2, "version 2 does not say which");
        assert_eq!(
            urls(&request(Leaf(Vcek), &[Turin], 0xdb00_0000_1800_0401)),
            [format!("{AMD}/vcek/v1/Turin/0102030405060708?fmcSPL=01&{levels}")]
        );
        assert_eq!(urls(&request(Intermediate(Vlek), &[Milan], 0)), [format!("{AMD}/vlek/v1/Milan/cert_chain")]);
        assert_eq!(urls(&request(Root(Vcek), &[Milan], 0)), [format!("{AMD}/vcek/v1/Milan/cert_chain")]);
        assert_eq!(urls(&request(Crl(Vlek), &[Milan], 0)), [format!("{AMD}/vlek/v1/Milan/crl")]);
        assert_eq!(urls(&request(Leaf(Vlek), &[Milan], 0)), [""; 0], "only the provider has it");
        let masked = EndorsementRequest { chip_id: None, ..request(Leaf(Vcek), &[Milan], milan) };
        assert_eq!(urls(&masked), [""; 0], "a masked chip has no address");
        let simulated = EndorsementRequest { simulated: true, ..request(Crl(Vcek), &[Milan], 0) };
        assert_eq!(urls(&simulated), [""; 0], "AMD has no list of a simulator's");
        let mut long = request(Leaf(Vcek), &[Turin], 0xdb00_0000_1800_0401);
        long.chip_id = Some(ChipId::new([7; 64]));
        assert_eq!(urls(&long), [""; 0], "no Turin chip has 64 bytes");
    }

    #[test]
    fn a_mirror_is_https_or_this_machine() {
        for (text, base) in [
            ("https://mirror.example/amd/", "https://mirror.example/amd"),
            ("https://mirror.example", "https://mirror.example"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://[::1]:8080/", "http://[::1]:8080"),
            ("http://localhost/x", "http://localhost/x"),
        ] {
            assert_eq!(Base::parse(text).unwrap().to_string(), base);
        }
        for text in ["http://mirror.example", "http://10.0.0.1", "http://127.0.0.1.example", "ftp://127.0.0.1"] {
            assert_eq!(Base::parse(text), Err(BaseError::Scheme), "{text}");
        }
        for text in ["https://a:b@mirror.example", "https://mirror.example/?x=1", "https://mirror.example/#x"] {
            assert_eq!(Base::parse(text), Err(BaseError::Parts), "{text}");
        }
        for text in ["", "mirror.example", "https://", "file:///etc"] {
            assert!(Base::parse(text).is_err(), "{text}");
        }
        assert!(Base::amd().is_amd() && !Base::parse("https://mirror.example").unwrap().is_amd());
    }
}
