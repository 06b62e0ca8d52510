//! What is missing to decide about a report, typed. Where to fetch it is for the caller to say: no address stands here.

use core::fmt;

use crate::{
    Code, Reason,
    abi::{ChipId, ProductLine, Report, SigningKey, TcbVersion},
};

/// What is missing to decide about a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndorsementKind {
    /// The leaf.
    Leaf(SigningKey),
    /// ASK (for VCEKs) or ASVK (for VLEKs).
    Intermediate(SigningKey),
    /// The root.
    Root(SigningKey),
    /// Revocation list.
    Crl(SigningKey),
}

impl EndorsementKind {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Leaf(SigningKey::Vlek) => "VLEK certificate",
            Self::Leaf(_) => "VCEK certificate",
            Self::Intermediate(SigningKey::Vlek) => "ASVK certificate",
            Self::Intermediate(_) => "ASK certificate",
            Self::Root(_) => "ARK certificate",
            Self::Crl(_) => "certificate revocation list",
        }
    }

    /// The kind of leaf in whose chain it stands.
    pub const fn signing_key(self) -> SigningKey {
        match self {
            Self::Leaf(key) | Self::Intermediate(key) | Self::Root(key) | Self::Crl(key) => key,
        }
    }
}

impl serde::Serialize for EndorsementKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Names exactly what to fetch.
///
/// As JSON the TCB is an object of levels, as in claims, or null where the raw field cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndorsementRequest {
    /// What is missing.
    pub kind: EndorsementKind,
    /// Product lines it may be of; one, where the report or a certificate tells.
    pub products: Vec<ProductLine>,
    /// The chip the leaf must be of; none if the report masks it.
    pub chip_id: Option<ChipId>,
    /// REPORTED_TCB, the raw field, whose reading depends on the product; see [`Self::tcb`].
    pub reported_tcb: u64,
    /// It belongs to a chain under a root that is none of AMD's, so AMD has none.
    pub simulated: bool,
}

impl EndorsementRequest {
    /// What `report` needs of one kind. `product`: its line, where known from elsewhere than the report.
    pub fn for_report(report: &Report, kind: EndorsementKind, product: Option<ProductLine>) -> Self {
        let chip = report.chip_id();
        Self {
            kind,
            products: product.map_or_else(|| products_of(report), |known| vec![known]),
            chip_id: Some(chip).filter(|chip| !chip.is_zero()),
            reported_tcb: report.reported_tcb_raw(),
            simulated: false,
        }
    }

    /// The TCB the leaf must be certified for, read as this product line writes it; none if it cannot be.
    pub fn tcb(&self, product: ProductLine) -> Option<TcbVersion> {
        TcbVersion::from_raw(self.reported_tcb, product.tcb_layout()).ok()
    }
}

/// Product lines a report may be of.
pub(crate) fn products_of(report: &Report) -> Vec<ProductLine> {
    let chip = report.chip_id();
    match report.product() {
        Some(one) => vec![one],
        // Version 2 reports do not name their product; a CHIP_ID of eight bytes is Turin's.
        None if chip.as_bytes()[8..].iter().all(|byte| *byte == 0) && !chip.is_zero() => vec![ProductLine::Turin],
        None => vec![ProductLine::Milan, ProductLine::Genoa],
    }
}

impl serde::Serialize for EndorsementRequest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct View<'a> {
            kind: EndorsementKind,
            products: &'a [ProductLine],
            chip_id: Option<ChipId>,
            reported_tcb: Option<TcbVersion>,
            simulated: bool,
        }
        // Products that a report leaves open write it alike.
        let reported_tcb = self.products.first().and_then(|product| self.tcb(*product));
        let Self { kind, products, chip_id, simulated, .. } = self;
        View { kind: *kind, products, chip_id: *chip_id, reported_tcb, simulated: *simulated }.serialize(serializer)
    }
}

impl fmt::Display for EndorsementRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        for (index, product) in self.products.iter().enumerate() {
            write!(f, " {} {product}", if index == 0 { "for" } else { "or" })?;
        }
        Ok(())
    }
}

/// Everything that is missing, at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingEndorsements {
    /// One or more.
    pub requests: Vec<EndorsementRequest>,
    /// What was given, in words.
    pub given: String,
}

impl MissingEndorsements {
    pub(crate) fn reason(&self) -> Reason {
        let is_vlek = |one: &EndorsementRequest| one.kind == EndorsementKind::Leaf(SigningKey::Vlek);
        let hint = match (self.requests.iter().any(is_vlek), self.requests.iter().all(is_vlek)) {
            (true, true) => {
                "a VLEK certificate is the cloud provider's to give, in the certificate table of the extended report: have the guest send \
                 that with its evidence"
            }
            (true, false) => {
                "a VLEK certificate is the cloud provider's to give, in the certificate table of the extended report: have the guest send \
                 that with its evidence; the rest is at AMD's key distribution service (KDS)"
            }
            _ => "take them from their issuer's key distribution service (KDS), or have them sent with the evidence",
        };
        Reason::new(Code::EndorsementMissing, &self.given, self, hint)
    }
}

impl fmt::Display for MissingEndorsements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, request) in self.requests.iter().enumerate() {
            write!(f, "{}{request}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_reads_the_tcb_level_by_level() {
        let request = |products: &[ProductLine], reported_tcb| EndorsementRequest {
            kind: EndorsementKind::Leaf(SigningKey::Vcek),
            products: products.to_vec(),
            chip_id: None,
            reported_tcb,
            simulated: false,
        };
        let json = |request| serde_json::to_value(request).unwrap()["reported_tcb"].take();
        let milan = request(&[ProductLine::Milan, ProductLine::Genoa], 0x7308_0000_0000_0003);
        assert_eq!(json(milan), serde_json::json!({ "bootloader": 3, "tee": 0, "snp": 8, "microcode": 115 }));
        let turin = request(&[ProductLine::Turin], 0x4900_0000_0402_0101);
        let levels = serde_json::json!({ "fmc": 1, "bootloader": 1, "tee": 2, "snp": 4, "microcode": 73 });
        assert_eq!(json(turin), levels);
        assert_eq!(json(request(&[ProductLine::Milan], 0x0000_0100_0000_0000)), serde_json::Value::Null);
    }
}
