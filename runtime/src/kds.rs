//! Where AMD's key distribution service (KDS) has what a verification lacked. The verifier names what is missing; addresses
//! are made here.
//!
//! Never: fetches, and names no address for a chain that is not AMD's.
//! Source: AMD 57230, "VCEK certificate request" and "Certificate chain request".

use coffer_verifier::abi::{ProductLine, SigningKey};
use coffer_verifier::{Appraisal, EndorsementKind, EndorsementRequest};

const KDS: &str = "https://kdsintf.amd.com";

/// Where AMD has it; several if the product line is not known. None for a VLEK, which only the cloud provider has, for a
/// masked chip, and for a simulator's chain.
pub fn urls(request: &EndorsementRequest) -> Vec<String> {
    if request.simulated {
        return Vec::new();
    }
    let of = |line: &ProductLine| match request.kind {
        EndorsementKind::Leaf(SigningKey::Vcek) => vcek_url(request, *line),
        EndorsementKind::Leaf(_) => None,
        EndorsementKind::Intermediate(key) | EndorsementKind::Root(key) => {
            Some(format!("{KDS}/{}/v1/{line}/cert_chain", path(key)))
        }
        EndorsementKind::Crl(key) => Some(format!("{KDS}/{}/v1/{line}/crl", path(key))),
    };
    request.products.iter().filter_map(of).collect()
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

fn path(key: SigningKey) -> &'static str {
    match key {
        SigningKey::Vlek => "vlek",
        SigningKey::Vcek | SigningKey::None => "vcek",
    }
}

/// A masked CHIP_ID has no address.
fn vcek_url(request: &EndorsementRequest, product: ProductLine) -> Option<String> {
    let (chip, tcb) = (request.chip_id?, request.tcb(product)?);
    let hwid = hex::encode(&chip.as_bytes()[..product.hwid_len()]);
    let fmc = tcb.fmc.map(|fmc| format!("fmcSPL={fmc:02}&")).unwrap_or_default();
    Some(format!(
        "{KDS}/vcek/v1/{product}/{hwid}?{fmc}blSPL={:02}&teeSPL={:02}&snpSPL={:02}&ucodeSPL={:02}",
        tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_verifier::abi::ChipId;

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
        assert_eq!(urls(&request(Leaf(Vcek), &[Milan], milan)), [format!("{KDS}/vcek/v1/Milan/{hwid}?{levels}")]);
        assert_eq!(urls(&request(Leaf(Vcek), &[Milan, Genoa], milan)).len(), 2, "version 2 does not say which");
        assert_eq!(
            urls(&request(Leaf(Vcek), &[Turin], 0xdb00_0000_1800_0401)),
            [format!("{KDS}/vcek/v1/Turin/0102030405060708?fmcSPL=01&{levels}")]
        );
        assert_eq!(urls(&request(Intermediate(Vlek), &[Milan], 0)), [format!("{KDS}/vlek/v1/Milan/cert_chain")]);
        assert_eq!(urls(&request(Root(Vcek), &[Milan], 0)), [format!("{KDS}/vcek/v1/Milan/cert_chain")]);
        assert_eq!(urls(&request(Crl(Vlek), &[Milan], 0)), [format!("{KDS}/vlek/v1/Milan/crl")]);
        assert_eq!(urls(&request(Leaf(Vlek), &[Milan], 0)), [""; 0], "only the provider has it");
        let masked = EndorsementRequest { chip_id: None, ..request(Leaf(Vcek), &[Milan], milan) };
        assert_eq!(urls(&masked), [""; 0], "a masked chip has no address");
        let simulated = EndorsementRequest { simulated: true, ..request(Crl(Vcek), &[Milan], 0) };
        assert_eq!(urls(&simulated), [""; 0], "AMD has no list of a simulator's");
    }
}
