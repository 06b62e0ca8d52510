//! What AMD puts into each kind of certificate, with our organisation name.
//!
//! Source: AMD 57230 §3 (VCEK certificate), the genuine ARK, ASK, ASVK, VCEK and VLEK of all three product lines.

use coffer_verifier::abi::{ChipId, ProductLine, TcbVersion};

use super::DerError;
use super::certificate::{Extension, PssEncoding, Template, Validity};
use super::crl::Revoked;
use super::der::{bits, explicit, ia5, implicit, integer, octets, oid, sequence, yes};
use super::extensions::{authority_key_id, key_id};
use super::name::{KeyKind, Name};

/// Serial number of an authority, as AMD numbers its own.
pub fn serial(kind: KeyKind, product: ProductLine) -> Vec<u8> {
    let line = match product {
        ProductLine::Milan => 1,
        ProductLine::Genoa => 2,
        ProductLine::Turin => 3,
    };
    match kind {
        KeyKind::Ark => vec![line, 0, 0],
        // AMD revoked 020001, its first of the Genoa line.
        KeyKind::Ask => vec![line, 0, if product == ProductLine::Genoa { 2 } else { 1 }],
        KeyKind::Asvk => vec![line, 1, 1],
        KeyKind::Vcek | KeyKind::Vlek => vec![0],
    }
}

/// What AMD's list of a product line has revoked so far: of Genoa, its first ASK, on 31 October 2022. No simulated certificate
/// ever had that number.
pub fn revoked(product: ProductLine) -> Vec<Revoked> {
    match product {
        ProductLine::Genoa => vec![Revoked { serial: vec![2, 0, 1], at: 1_667_217_600 }],
        ProductLine::Milan | ProductLine::Turin => Vec::new(),
    }
}

/// Self-signed root.
pub fn ark_template(product: ProductLine, validity: Validity, spki: &[u8]) -> Result<Template, DerError> {
    let name = Name::of(KeyKind::Ark, product);
    let extensions = vec![
        Extension { oid: "2.5.29.15", critical: true, value: bits(1, &[0x06])? },
        Extension { oid: "2.5.29.14", critical: false, value: octets(&key_id(spki))? },
        Extension { oid: "2.5.29.19", critical: true, value: sequence(&[&yes()?])? },
        crl_distribution_point("vcek", product)?,
    ];
    Ok(authority(KeyKind::Ark, product, name, validity, spki, extensions))
}

/// Certifies VCEKs.
pub fn ask_template(
    product: ProductLine,
    validity: Validity,
    spki: &[u8],
    ark_spki: &[u8],
) -> Result<Template, DerError> {
    intermediate(KeyKind::Ask, "vcek", product, validity, spki, ark_spki)
}

/// Certifies VLEKs.
pub fn asvk_template(
    product: ProductLine,
    validity: Validity,
    spki: &[u8],
    ark_spki: &[u8],
) -> Result<Template, DerError> {
    intermediate(KeyKind::Asvk, "vlek", product, validity, spki, ark_spki)
}

fn intermediate(
    kind: KeyKind,
    path: &str,
    product: ProductLine,
    validity: Validity,
    spki: &[u8],
    ark_spki: &[u8],
) -> Result<Template, DerError> {
    let extensions = vec![
        Extension { oid: "2.5.29.14", critical: false, value: octets(&key_id(spki))? },
        Extension { oid: "2.5.29.35", critical: false, value: authority_key_id(ark_spki)? },
        Extension { oid: "2.5.29.19", critical: true, value: sequence(&[&yes()?, &integer(&[0])?])? },
        Extension { oid: "2.5.29.15", critical: true, value: USAGE_CERT_SIGN.to_vec() },
        crl_distribution_point(path, product)?,
    ];
    Ok(authority(kind, product, Name::of(KeyKind::Ark, product), validity, spki, extensions))
}

fn authority(
    kind: KeyKind,
    product: ProductLine,
    issuer: Name,
    validity: Validity,
    spki: &[u8],
    extensions: Vec<Extension>,
) -> Template {
    Template {
        serial: serial(kind, product),
        issuer,
        subject: Name::of(kind, product),
        validity,
        spki: spki.to_vec(),
        extensions,
        inner_algorithm: PssEncoding::WithTrailer,
        outer_algorithm: PssEncoding::WithTrailer,
    }
}

/// Chip key of `chip` at `tcb`.
pub fn vcek_template(
    product: ProductLine,
    validity: Validity,
    spki: &[u8],
    tcb: TcbVersion,
    chip: &ChipId,
) -> Result<Template, DerError> {
    let name = if product == ProductLine::Milan { "Milan-B0" } else { product.name() };
    let mut extensions = leaf_extensions(product, name, tcb)?;
    extensions.push(Extension { oid: HWID, critical: false, value: chip.as_bytes()[..product.hwid_len()].to_vec() });
    Ok(leaf(KeyKind::Vcek, KeyKind::Ask, product, validity, spki, extensions))
}

/// Loaded key of provider `csp_id` at `tcb`.
pub fn vlek_template(
    product: ProductLine,
    validity: Validity,
    spki: &[u8],
    tcb: TcbVersion,
    csp_id: &str,
) -> Result<Template, DerError> {
    let mut extensions = leaf_extensions(product, product.name(), tcb)?;
    extensions.push(Extension { oid: CSP_ID, critical: false, value: ia5(csp_id)? });
    Ok(leaf(KeyKind::Vlek, KeyKind::Asvk, product, validity, spki, extensions))
}

fn leaf(
    kind: KeyKind,
    issuer: KeyKind,
    product: ProductLine,
    validity: Validity,
    spki: &[u8],
    extensions: Vec<Extension>,
) -> Template {
    Template {
        serial: serial(kind, product),
        issuer: Name::of(issuer, product),
        subject: Name::of(kind, product),
        validity,
        spki: spki.to_vec(),
        extensions,
        inner_algorithm: PssEncoding::WithoutTrailer,
        outer_algorithm: PssEncoding::WithoutTrailer,
    }
}

fn leaf_extensions(product: ProductLine, name: &str, tcb: TcbVersion) -> Result<Vec<Extension>, DerError> {
    let turin = product == ProductLine::Turin;
    let mut extensions = vec![
        Extension { oid: "1.3.6.1.4.1.3704.1.1", critical: false, value: integer(&[u8::from(turin)])? },
        Extension { oid: "1.3.6.1.4.1.3704.1.2", critical: false, value: ia5(name)? },
    ];
    let levels: &[(&'static str, u8)] = if turin {
        &[
            (FMC_SPL, tcb.fmc.unwrap_or_default()),
            (BOOTLOADER_SPL, tcb.bootloader),
            (TEE_SPL, tcb.tee),
            (SNP_SPL, tcb.snp),
            (SPL_5, 0),
            (SPL_6, 0),
            (SPL_7, 0),
            (MICROCODE_SPL, tcb.microcode),
        ]
    } else {
        &[
            (BOOTLOADER_SPL, tcb.bootloader),
            (TEE_SPL, tcb.tee),
            (SPL_4, 0),
            (SPL_5, 0),
            (SPL_6, 0),
            (SPL_7, 0),
            (SNP_SPL, tcb.snp),
            (MICROCODE_SPL, tcb.microcode),
        ]
    };
    for (oid, level) in levels {
        extensions.push(Extension { oid, critical: false, value: integer(&[*level])? });
    }
    Ok(extensions)
}

/// DER SubjectPublicKeyInfo of a P-384 key. `point`: uncompressed, 97 bytes.
pub fn ec_public_key(point: &[u8]) -> Result<Vec<u8>, DerError> {
    let algorithm = sequence(&[&oid("1.2.840.10045.2.1")?, &oid("1.3.132.0.34")?])?;
    sequence(&[&algorithm, &bits(0, point)?])
}

/// AMD's URL path on a host that can never be reached: simulated keys must not send anybody to AMD.
fn crl_distribution_point(path: &str, product: ProductLine) -> Result<Extension, DerError> {
    let url = implicit(6, format!("https://kds.simulated.invalid/{path}/v1/{product}/crl").as_bytes())?;
    let value = sequence(&[&sequence(&[&explicit(0, &explicit(0, &url)?)?])?])?;
    Ok(Extension { oid: "2.5.29.31", critical: false, value })
}

/// keyCertSign as AMD writes it: one unused bit where DER would have two.
const USAGE_CERT_SIGN: [u8; 4] = [0x03, 0x02, 0x01, 0x04];
/// Chip id, raw bytes in extnValue.
pub const HWID: &str = "1.3.6.1.4.1.3704.1.4";
/// Provider of a VLEK.
pub const CSP_ID: &str = "1.3.6.1.4.1.3704.1.5";
/// Patch levels.
pub const BOOTLOADER_SPL: &str = "1.3.6.1.4.1.3704.1.3.1";
pub const TEE_SPL: &str = "1.3.6.1.4.1.3704.1.3.2";
pub const SNP_SPL: &str = "1.3.6.1.4.1.3704.1.3.3";
pub const SPL_4: &str = "1.3.6.1.4.1.3704.1.3.4";
pub const SPL_5: &str = "1.3.6.1.4.1.3704.1.3.5";
pub const SPL_6: &str = "1.3.6.1.4.1.3704.1.3.6";
pub const SPL_7: &str = "1.3.6.1.4.1.3704.1.3.7";
pub const MICROCODE_SPL: &str = "1.3.6.1.4.1.3704.1.3.8";
pub const FMC_SPL: &str = "1.3.6.1.4.1.3704.1.3.9";
