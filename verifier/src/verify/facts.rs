//! A leaf and a report that are said to belong together.

use super::error::VerifyError;
use crate::{Code, abi::Report, chain::LeafFacts, trail::Trail};

/// What the leaf certifies against what the report says. `found` is always the report's side, `expected` the leaf's.
pub(super) fn check_facts(report: &Report, leaf: &LeafFacts, trail: &mut Trail) -> Result<(), VerifyError> {
    if report.signing_key() != leaf.key {
        return Err(VerifyError::SigningKey { stated: report.signing_key(), certified: leaf.key });
    }
    trail.pass(Code::SigningKey, report.signing_key(), format_args!("{}, as the leaf is one", leaf.key));
    if let Some(stated) = report.product()
        && stated != leaf.product
    {
        return Err(VerifyError::Product { stated, certified: leaf.product });
    }
    match report.product() {
        Some(stated) => {
            trail.pass(Code::Product, stated, format_args!("{}, as the {} certifies", leaf.product, leaf.key));
        }
        None => trail.skip(
            Code::Product,
            format!("a version 2 report does not state its product; its {} says {}", leaf.key, leaf.product),
        ),
    }
    let tcbs = report.tcbs(leaf.product).map_err(crate::abi::ReportError::from)?;
    if tcbs.reported != leaf.tcb {
        return Err(VerifyError::Tcb { key: leaf.key, reported: tcbs.reported, certified: leaf.tcb });
    }
    trail.pass(Code::Tcb, tcbs.reported, format_args!("{}, as the {} certifies", leaf.tcb, leaf.key));
    let chip = report.chip_id();
    match &leaf.hwid {
        Some(hwid) => {
            let (id, rest) = chip.as_bytes().split_at(leaf.product.hwid_len());
            // A masked CHIP_ID is all zero; then the signature alone ties the report to the certified chip.
            if !chip.is_zero() && (id != hwid || rest.iter().any(|byte| *byte != 0)) {
                return Err(VerifyError::ChipId { reported: Box::new(chip), certified: hwid.clone() });
            }
            if chip.is_zero() {
                trail.skip(
                    Code::ChipId,
                    "the report masks its CHIP_ID: the signature alone ties it to the certified chip",
                );
            } else {
                trail.pass(Code::ChipId, chip, format_args!("{}, as the VCEK certifies", hex::encode(hwid)));
            }
        }
        None => trail.skip(
            Code::ChipId,
            format!("a VLEK certifies no chip but a provider: {}", leaf.csp_id.as_deref().unwrap_or("not named")),
        ),
    }
    Ok(())
}
