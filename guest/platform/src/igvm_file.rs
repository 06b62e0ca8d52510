//! A launch plan as an IGVM file, for VMMs that take one.
//!
//! IGVM has no zero page type: its loaders add zeros as normal pages, which measures differently. An IGVM launch therefore
//! has a digest of its own, and [`write`] gives it beside the file.
//! Source: Independent Guest Virtual Machine file format, crate `igvm_defs`.

use coffer_machine::map::PAGE;
use coffer_verifier::{abi::Measurement, measure::PageType};
use igvm::{
    IgvmDirectiveHeader, IgvmFile, IgvmInitializationHeader, IgvmPlatformHeader, IgvmRevision, snp_defs::SevVmsa,
};
use igvm_defs::{IGVM_VHS_SUPPORTED_PLATFORM, IgvmPageDataFlags, IgvmPageDataType, IgvmPlatformType};
use zerocopy::FromBytes;

use crate::plan::{GUEST_POLICY, LaunchPlan, measure};

/// Why there is no IGVM file.
#[derive(Debug, thiserror::Error)]
#[error("the launch plan does not fit an IGVM file: {0}")]
pub struct IgvmError(String);

const SNP: u32 = 1;

/// Writes the plan; gives the file and the launch digest of a guest launched from it.
///
/// # Errors
/// [`IgvmError`] has the format library's words.
pub fn write(plan: &LaunchPlan) -> Result<(Vec<u8>, Measurement), IgvmError> {
    if !plan.form().is_machine() {
        return Err(IgvmError("a box in namespaces has no machine that could load it".into()));
    }
    let mut vcpu = 0;
    let mut directives = Vec::with_capacity(plan.pages().len());
    for planned in plan.pages() {
        let data = |data_type, data: &[u8]| IgvmDirectiveHeader::PageData {
            gpa: planned.gpa,
            compatibility_mask: SNP,
            flags: IgvmPageDataFlags::new(),
            data_type,
            data: data.to_vec(),
        };
        directives.push(match planned.page_type {
            PageType::Normal => data(IgvmPageDataType::NORMAL, &planned.page[..]),
            PageType::Zero => data(IgvmPageDataType::NORMAL, &[]),
            PageType::Secrets => data(IgvmPageDataType::SECRETS, &[]),
            PageType::Cpuid => data(IgvmPageDataType::CPUID_DATA, &[]),
            PageType::Unmeasured => return Err(IgvmError("the plan has an unmeasured page".into())),
            PageType::Vmsa => {
                let (vmsa, _) =
                    SevVmsa::read_from_prefix(&planned.page[..]).map_err(|error| IgvmError(error.to_string()))?;
                let vp_index = vcpu;
                vcpu += 1;
                IgvmDirectiveHeader::SnpVpContext {
                    gpa: planned.gpa,
                    compatibility_mask: SNP,
                    vp_index,
                    vmsa: Box::new(vmsa),
                }
            }
        });
    }
    let platform = IgvmPlatformHeader::SupportedPlatform(IGVM_VHS_SUPPORTED_PLATFORM {
        compatibility_mask: SNP,
        highest_vtl: 0,
        platform_type: IgvmPlatformType::SEV_SNP,
        platform_version: 1,
        shared_gpa_boundary: 0,
    });
    let policy = IgvmInitializationHeader::GuestPolicy { policy: GUEST_POLICY, compatibility_mask: SNP };
    let fail = |error: igvm::Error| IgvmError(error.to_string());
    let file = IgvmFile::new(IgvmRevision::V1, vec![platform], vec![policy], directives).map_err(fail)?;
    let mut bytes = Vec::new();
    file.serialize(&mut bytes).map_err(fail)?;
    Ok((bytes, measurement(plan)))
}

/// The launch digest of the plan's IGVM form.
fn measurement(plan: &LaunchPlan) -> Measurement {
    measure(plan.pages().iter().map(|planned| {
        let page_type = if planned.page_type == PageType::Zero { PageType::Normal } else { planned.page_type };
        (planned.gpa, page_type, &*planned.page)
    }))
}

const _: () = assert!(size_of::<SevVmsa>() <= PAGE);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        plan::LaunchInputs,
        sample::{inputs, rom},
    };
    use coffer_verifier::measure::LaunchDigest;
    use zerocopy::IntoBytes;

    /// What a loader that knows nothing of the plan makes of the file, page by page.
    fn loaded(bytes: &[u8]) -> Measurement {
        let read = IgvmFile::new_from_binary(bytes, None).unwrap();
        let mut digest = LaunchDigest::new();
        for directive in read.directives() {
            let (page_type, gpa, data) = match directive {
                IgvmDirectiveHeader::PageData { gpa, data_type, data, .. } => {
                    let page_type = match *data_type {
                        IgvmPageDataType::SECRETS => PageType::Secrets,
                        IgvmPageDataType::CPUID_DATA => PageType::Cpuid,
                        _ => PageType::Normal,
                    };
                    (page_type, *gpa, data.clone())
                }
                IgvmDirectiveHeader::SnpVpContext { gpa, vmsa, .. } => (PageType::Vmsa, *gpa, vmsa.as_bytes().to_vec()),
                other => panic!("unexpected directive {other}"),
            };
            let mut page = [0; PAGE];
            page[..data.len()].copy_from_slice(&data);
            digest.extend(page_type, gpa, &page).unwrap();
        }
        digest.finish()
    }

    #[test]
    fn a_loader_that_reads_the_file_gets_the_digest_that_was_promised() {
        let rom = rom(3);
        for vcpus in [1, 4] {
            let plan = LaunchPlan::new(&LaunchInputs { vcpus, ..inputs(&rom) }).unwrap();
            let (bytes, measurement) = write(&plan).unwrap();
            assert_eq!(loaded(&bytes), measurement);
            assert_ne!(measurement, plan.measurement(), "zero pages are normal pages in an IGVM launch");
        }
    }

    #[test]
    fn one_changed_byte_of_the_file_changes_the_digest_or_is_refused() {
        let rom = rom(3);
        let plan = LaunchPlan::new(&inputs(&rom)).unwrap();
        let (bytes, measurement) = write(&plan).unwrap();
        let at = bytes.windows(4).position(|window| window == b"ASEV").unwrap();
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert_ne!(loaded(&changed), measurement);
        changed = bytes;
        changed[40] ^= 1;
        assert!(IgvmFile::new_from_binary(&changed, None).is_err(), "headers carry a checksum");
    }
}
