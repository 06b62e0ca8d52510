//! The launch of an OVMF guest, page by page.
//!
//! Source: QEMU `hw/i386/pc_sysfw.c`, `target/i386/sev.c`; sev-snp-measure 0.0.13 for EC2 and GCE.

use super::{
    BSP_RESET_EIP, CpuSignature, KernelHashes, LaunchDigest, LaunchError, OvmfError, OvmfMetadata, PAGE_SIZE, Page,
    PageType, Section, SectionType, TABLE_SIZE, VMSA_GPA, Vmm, Vmsa,
};
use crate::abi::Measurement;

/// The firmware, whole or as much of it as is known.
#[derive(Clone, Copy, Debug)]
pub enum Firmware<'a> {
    /// The whole image; its last byte lies below 4 GiB.
    Image(&'a [u8]),
    /// The end of an image, with the launch digest after all its pages.
    Suffix {
        /// Last pages of the image, where its tables are.
        tail: &'a [u8],
        /// Launch digest after the whole image.
        digest: Measurement,
    },
}

/// All that decides the launch digest of an OVMF guest.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// What the guest starts with.
    pub firmware: Firmware<'a>,
    /// Kernel, initrd and command line, when booted directly.
    pub kernel: Option<KernelHashes>,
    /// vCPUs, at least one.
    pub vcpus: u32,
    /// Their signature.
    pub signature: CpuSignature,
    /// SEV_FEATURES; 1 is SNP alone.
    pub features: u64,
    /// Who loads the pages.
    pub vmm: Vmm,
}

/// Why there is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// The firmware cannot be launched.
    #[error("firmware cannot be measured")]
    Firmware(#[from] OvmfError),
    /// A kernel was given to a firmware that does not check it.
    #[error("kernel given but firmware has no SNP_KERNEL_HASHES section and table")]
    NoKernelHashes,
    /// The hash table does not lie in the page set aside for it.
    #[error("kernel hash table at {gpa:#x} is not inside its section of one page")]
    HashTablePlace {
        /// Address of the table.
        gpa: u32,
    },
    /// No vCPU, or more than SNP guests have.
    #[error("{found} vCPUs, must be 1 to 4096")]
    Vcpus {
        /// Number given.
        found: u32,
    },
    /// A page address is wrong.
    #[error(transparent)]
    Launch(#[from] LaunchError),
}

/// Launch digest of an OVMF guest: firmware, metadata sections in table order, one VMSA per vCPU.
///
/// # Errors
/// [`MeasureError`].
pub fn measure_ovmf(launch: &Launch<'_>) -> Result<Measurement, MeasureError> {
    if !(1..=MAX_VCPUS).contains(&launch.vcpus) {
        return Err(MeasureError::Vcpus { found: launch.vcpus });
    }
    let (tail, mut digest) = match launch.firmware {
        Firmware::Image(image) => (image, LaunchDigest::new()),
        Firmware::Suffix { tail, digest } => (tail, LaunchDigest::resume(digest)),
    };
    let metadata = OvmfMetadata::parse(tail)?;
    if let Firmware::Image(image) = launch.firmware {
        let (pages, _) = image.as_chunks::<PAGE_SIZE>();
        let start = FOUR_GIB - image.len() as u64;
        for (gpa, page) in (start..).step_by(PAGE_SIZE).zip(pages) {
            digest.extend(PageType::Normal, gpa, page)?;
        }
    }
    let hashes = kernel_hashes_page(&metadata, launch.kernel.as_ref())?;
    // EC2 loads the CPUID page after all other sections.
    let late = |section: &&Section| launch.vmm == Vmm::Ec2 && section.kind == SectionType::Cpuid;
    let early = |section: &&Section| !late(section);
    for section in metadata.sections.iter().filter(early).chain(metadata.sections.iter().filter(late)) {
        add_section(&mut digest, section, hashes.as_deref(), launch.vmm)?;
    }
    for vcpu in 0..launch.vcpus {
        let eip = if vcpu == 0 { BSP_RESET_EIP } else { metadata.ap_reset_eip };
        let vmsa = Vmsa { vmm: launch.vmm, eip, signature: launch.signature, features: launch.features };
        digest.extend(PageType::Vmsa, VMSA_GPA, &vmsa.page())?;
    }
    Ok(digest.finish())
}

fn kernel_hashes_page(
    metadata: &OvmfMetadata,
    kernel: Option<&KernelHashes>,
) -> Result<Option<Box<Page>>, MeasureError> {
    let Some(kernel) = kernel else { return Ok(None) };
    let mut sections = metadata.sections.iter().filter(|section| section.kind == SectionType::KernelHashes);
    let (section, table) = sections.next().zip(metadata.hash_table).ok_or(MeasureError::NoKernelHashes)?;
    let misplaced = MeasureError::HashTablePlace { gpa: table.gpa };
    if sections.next().is_some() || section.size as usize != PAGE_SIZE || (table.size as usize) < TABLE_SIZE {
        return Err(misplaced);
    }
    let offset = table.gpa.checked_sub(section.gpa).ok_or(misplaced.clone())?;
    kernel.page(offset as usize).map(Some).ok_or(misplaced)
}

fn add_section(
    digest: &mut LaunchDigest,
    section: &Section,
    hashes: Option<&Page>,
    vmm: Vmm,
) -> Result<(), LaunchError> {
    let (gpa, pages) = (u64::from(section.gpa), u64::from(section.size) / PAGE_SIZE as u64);
    match (section.kind, hashes) {
        (SectionType::KernelHashes, Some(page)) => digest.extend(PageType::Normal, gpa, page),
        (SectionType::SecMemory, _) if vmm == Vmm::Gce => digest.extend_contentless(PageType::Unmeasured, gpa, pages),
        (SectionType::SecMemory | SectionType::SvsmCaa | SectionType::KernelHashes, _) => {
            digest.extend_contentless(PageType::Zero, gpa, pages)
        }
        (SectionType::Secrets, _) => digest.extend_contentless(PageType::Secrets, gpa, pages),
        (SectionType::Cpuid, _) => digest.extend_contentless(PageType::Cpuid, gpa, pages),
    }
}

const FOUR_GIB: u64 = 1 << 32;
const MAX_VCPUS: u32 = 4096;

#[cfg(test)]
mod tests;
