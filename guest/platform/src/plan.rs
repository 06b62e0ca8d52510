//! The launch plan: every page that is put into a guest before it runs, in the order it is measured.
//!
//! One module makes it, and everything uses it: the VMM that loads the pages, the secure processor (or its simulator) that
//! measures them, `coffer measure`, which predicts the digest off the host, and the IGVM file.
//! The order is QEMU's: stage0's pages, the sections its own metadata names, one VMSA per virtual CPU. An independent tool
//! that knows OVMF firmware computes the same digest.

use coffer_machine::{
    firmware::SECTIONS,
    map::{HASHES_GPA, MAX_VCPUS, PAGE, ROM_GPA, ROM_SIZE},
};
use coffer_verifier::{
    abi::Measurement,
    measure::{
        BSP_RESET_EIP, CpuSignature, HashTableArea, KernelHashes, LaunchDigest, OvmfError, OvmfMetadata, Page,
        PageType, Section, SectionType, VMSA_GPA, Vmm, Vmsa,
    },
};

/// vCPU type of a guest nobody gave a type.
pub const VCPU_TYPE: &str = "EPYC-Milan";
/// SEV_FEATURES: SNP alone.
pub const GUEST_FEATURES: u64 = 1;
/// POLICY of our launches: SMT allowed, bit 17 must be one, no debug, no migration agent.
pub const GUEST_POLICY: u64 = 0x3_0000;

/// One page of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedPage {
    /// Guest physical address.
    pub gpa: u64,
    /// PAGE_TYPE.
    pub page_type: PageType,
    /// Contents; what the secure processor fills (secrets, CPUID) is zero here and not measured.
    pub page: Box<Page>,
}

/// What a guest is launched from.
#[derive(Clone, Copy, Debug)]
pub struct LaunchInputs<'a> {
    /// stage0's ROM image.
    pub firmware: &'a [u8],
    /// bzImage.
    pub kernel: &'a [u8],
    /// cpio archive.
    pub initrd: &'a [u8],
    /// Kernel command line, without a trailing NUL.
    pub command_line: &'a str,
    /// Virtual CPUs, 1 to [`MAX_VCPUS`].
    pub vcpus: u32,
    /// Their CPUID signature.
    pub signature: CpuSignature,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The machine model has no place for that many.
    #[error("{found} virtual CPUs, expected 1 to {MAX_VCPUS}")]
    Vcpus {
        /// Number asked for.
        found: u32,
    },
    /// A NUL would end the command line before what follows it.
    #[error("the kernel command line holds a NUL byte")]
    CommandLine,
    /// The firmware is no launchable image.
    #[error("stage0 cannot be launched")]
    Firmware(#[from] OvmfError),
    /// The firmware is launchable, but is not stage0 of this machine model.
    #[error("firmware has {what} {found}, this machine model {expected}")]
    NotStage0 {
        /// Which part.
        what: &'static str,
        /// What it says.
        found: String,
        /// What stage0 of this version says.
        expected: String,
    },
}

/// Pages in the order they are measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchPlan {
    pages: Vec<PlannedPage>,
    vcpus: u32,
}

impl LaunchPlan {
    /// Plans a launch.
    ///
    /// # Errors
    /// [`PlanError`] names the input.
    pub fn new(inputs: &LaunchInputs<'_>) -> Result<Self, PlanError> {
        if !(1..=MAX_VCPUS).contains(&inputs.vcpus) {
            return Err(PlanError::Vcpus { found: inputs.vcpus });
        }
        if inputs.command_line.contains('\0') {
            return Err(PlanError::CommandLine);
        }
        let metadata = check_is_stage0(inputs.firmware)?;
        let (rom, _) = inputs.firmware.as_chunks::<PAGE>();
        let mut pages: Vec<PlannedPage> = rom
            .iter()
            .zip((ROM_GPA..).step_by(PAGE))
            .map(|(page, gpa)| PlannedPage { gpa, page_type: PageType::Normal, page: Box::new(*page) })
            .collect();
        let hashes = KernelHashes::of(inputs.kernel, inputs.initrd, inputs.command_line.as_bytes());
        for Section { gpa, size, kind } in metadata.sections {
            let page_type = match kind {
                SectionType::KernelHashes => {
                    pages.push(planned(gpa.into(), PageType::Normal, &hashes.table()));
                    continue;
                }
                SectionType::SecMemory | SectionType::SvsmCaa => PageType::Zero,
                SectionType::Secrets => PageType::Secrets,
                SectionType::Cpuid => PageType::Cpuid,
            };
            let gpas = (u64::from(gpa)..u64::from(gpa) + u64::from(size)).step_by(PAGE);
            pages.extend(gpas.map(|gpa| planned(gpa, page_type, &[])));
        }
        for vcpu in 0..inputs.vcpus {
            let eip = if vcpu == 0 { BSP_RESET_EIP } else { metadata.ap_reset_eip };
            let vmsa = Vmsa { vmm: Vmm::Qemu, eip, signature: inputs.signature, features: GUEST_FEATURES };
            pages.push(planned(VMSA_GPA, PageType::Vmsa, &vmsa.page()[..]));
        }
        Ok(Self { pages, vcpus: inputs.vcpus })
    }

    /// The pages, in the order they are measured.
    pub fn pages(&self) -> &[PlannedPage] {
        &self.pages
    }

    /// Virtual CPUs.
    pub fn vcpus(&self) -> u32 {
        self.vcpus
    }

    /// The page with the hashes of kernel, initrd and command line.
    pub fn hash_page(&self) -> &Page {
        let found = self.pages.iter().find(|planned| planned.gpa == HASHES_GPA);
        &found.expect("check_is_stage0 found its section").page
    }

    /// The launch digest of this plan.
    pub fn measurement(&self) -> Measurement {
        measure(self.pages.iter().map(|planned| (planned.gpa, planned.page_type, &*planned.page)))
    }
}

/// Launch digest over pages in this order.
pub(crate) fn measure<'a>(pages: impl Iterator<Item = (u64, PageType, &'a Page)>) -> Measurement {
    let mut digest = LaunchDigest::new();
    for (gpa, page_type, page) in pages {
        digest.extend(page_type, gpa, page).expect("planned addresses are page aligned");
    }
    digest.finish()
}

/// stage0, VMM and init agree on addresses because all take them from one crate; a ROM from elsewhere must agree too.
/// Gives what the ROM says about its launch.
///
/// # Errors
/// [`PlanError::Firmware`], [`PlanError::NotStage0`].
pub fn check_is_stage0(firmware: &[u8]) -> Result<OvmfMetadata, PlanError> {
    let metadata = OvmfMetadata::parse(firmware)?;
    let differs = |what, found: String, expected: String| {
        if found == expected { Ok(()) } else { Err(PlanError::NotStage0 { what, found, expected }) }
    };
    differs("bytes", firmware.len().to_string(), ROM_SIZE.to_string())?;
    let found: Vec<_> = metadata.sections.iter().map(|it| (it.gpa, it.size, it.kind as u32)).collect();
    let expected = SECTIONS.map(|it| (it.gpa, it.size, it.kind));
    differs("launch sections", format!("{found:x?}"), format!("{expected:x?}"))?;
    let table = Some(HashTableArea { gpa: HASHES_GPA as u32, size: PAGE as u32 });
    differs("hash table area", format!("{:x?}", metadata.hash_table), format!("{table:x?}"))?;
    let parked = u64::from(metadata.ap_reset_eip) >= ROM_GPA;
    differs("application processors parked in the ROM", parked.to_string(), true.to_string())?;
    Ok(metadata)
}

fn planned(gpa: u64, page_type: PageType, contents: &[u8]) -> PlannedPage {
    let mut page = Box::new([0; PAGE]);
    page[..contents.len()].copy_from_slice(contents);
    PlannedPage { gpa, page_type, page }
}

#[cfg(test)]
pub(crate) mod tests;
