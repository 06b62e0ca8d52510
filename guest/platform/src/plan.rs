//! The launch plan: every page that is put into a guest before it runs, in the order it is measured.
//!
//! One module makes it, and everything uses it: the VMM that loads the pages, the secure processor (or its simulator) that
//! measures them, `coffer measure`, which predicts the digest off the host, and the IGVM file.
//! The order is QEMU's: stage0's pages, the sections its own metadata names, one VMSA per virtual CPU. The ROM is not quite the
//! platform's: one of its pages has the hashes of kernel, initrd and command line. An independent tool that knows OVMF
//! firmware computes the same digest of that ROM. A launch into 64-bit mode is the same without the ROM: what stage0's start
//! code would put into the sections lies in them from the start, and the VMSAs are others.
//! A box without a machine has a plan of one page, which is no launch of any processor's: it has no VMSA.

use coffer_machine::{
    entry,
    firmware::SECTIONS,
    map::{HASHES_GPA, MAX_VCPUS, PAGE, PAGE_TABLES_GPA, PARKING_GPA, ROM_GPA, ROM_HASHES, ROM_SIZE, STAGE0_GPA},
    page_tables::page_tables,
};
use coffer_verifier::{
    abi::Measurement,
    measure::{
        BSP_RESET_EIP, CpuSignature, KernelHashes, LaunchDigest, LaunchForm, LongModeVmsa, OvmfError, OvmfMetadata,
        Page, PageType, Section, SectionType, SegmentState, VMSA_GPA, Vmm, Vmsa,
    },
};
use sha2::{Digest as _, Sha256};

/// vCPU type of a guest nobody gave a type.
pub const VCPU_TYPE: &str = "EPYC-Milan";
/// SEV_FEATURES: SNP alone.
pub const GUEST_FEATURES: u64 = 1;
/// POLICY of our launches: SMT allowed, bit 17 must be one, no debug, no migration agent.
pub const GUEST_POLICY: u64 = 0x3_0000;

/// What the one page of a launch without a machine starts with.
const NAMESPACES_LABEL: &[u8] = b"coffer: a box in namespaces, without a machine and without private memory, version 1";
/// Where in it the SHA-256 of the initrd lies, and that of the command line with its NUL.
const NAMESPACES_INITRD: usize = 128;
const NAMESPACES_COMMAND_LINE: usize = 160;
const _: () = assert!(NAMESPACES_LABEL.len() < NAMESPACES_INITRD);

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

/// A file that a guest is launched from. A plan has its hash alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaunchFile<'a> {
    /// All of it.
    Bytes(&'a [u8]),
    /// Its SHA-256, where whoever loads it compares.
    Sha256([u8; 32]),
}

impl LaunchFile<'_> {
    fn sha256(&self) -> [u8; 32] {
        match self {
            Self::Bytes(bytes) => Sha256::digest(bytes).into(),
            Self::Sha256(digest) => *digest,
        }
    }
}

/// What a guest is launched from.
#[derive(Clone, Copy, Debug)]
pub struct LaunchInputs<'a> {
    /// How the guest is entered.
    pub form: LaunchForm,
    /// stage0's ROM image, without hashes.
    pub firmware: &'a [u8],
    /// bzImage.
    pub kernel: LaunchFile<'a>,
    /// cpio archive.
    pub initrd: LaunchFile<'a>,
    /// Kernel command line, without a trailing NUL.
    pub command_line: &'a str,
    /// Virtual CPUs, 1 to [`MAX_VCPUS`].
    pub vcpus: u32,
    /// Their CPUID signature; the same in each type of vCPU where a guest is entered in 64-bit mode, which does not measure it.
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
    rom: Vec<u8>,
    form: LaunchForm,
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
        if inputs.form == LaunchForm::Namespaces {
            let pages = vec![planned(0, PageType::Normal, &namespaces_page(inputs)[..])];
            return Ok(Self { pages, rom: inputs.firmware.to_vec(), form: inputs.form, vcpus: inputs.vcpus });
        }
        let (kernel, initrd) = (inputs.kernel.sha256(), inputs.initrd.sha256());
        let table = KernelHashes::from_digests(kernel, initrd, line_digest(inputs.command_line)).table();
        let mut rom = inputs.firmware.to_vec();
        rom[ROM_HASHES..][..table.len()].copy_from_slice(&table);
        let (mut pages, filled) = match inputs.form {
            LaunchForm::ResetVector => (rom_pages(&rom), Vec::new()),
            LaunchForm::LongMode => (Vec::new(), filled_sections(&rom)),
            LaunchForm::Namespaces => (Vec::new(), Vec::new()),
        };
        for Section { gpa, size, kind } in metadata.sections {
            let page_type = match kind {
                SectionType::SecMemory | SectionType::SvsmCaa | SectionType::KernelHashes => PageType::Zero,
                SectionType::Secrets => PageType::Secrets,
                SectionType::Cpuid => PageType::Cpuid,
            };
            let contents = filled.iter().find(|(at, _)| *at == u64::from(gpa)).map_or(&[][..], |(_, bytes)| bytes);
            let mut contents = contents.chunks(PAGE);
            let gpas = (u64::from(gpa)..u64::from(gpa) + u64::from(size)).step_by(PAGE);
            pages.extend(gpas.map(|gpa| match contents.next() {
                Some(page) if page.iter().any(|byte| *byte != 0) => planned(gpa, PageType::Normal, page),
                _ => planned(gpa, page_type, &[]),
            }));
        }
        for vcpu in 0..inputs.vcpus {
            if let Some(page) = vmsa(inputs, vcpu == 0, metadata.ap_reset_eip) {
                pages.push(planned(VMSA_GPA, PageType::Vmsa, &page[..]));
            }
        }
        Ok(Self { pages, rom, form: inputs.form, vcpus: inputs.vcpus })
    }

    /// How the guest is entered.
    pub fn form(&self) -> LaunchForm {
        self.form
    }

    /// The pages, in the order they are measured.
    pub fn pages(&self) -> &[PlannedPage] {
        &self.pages
    }

    /// Virtual CPUs.
    pub fn vcpus(&self) -> u32 {
        self.vcpus
    }

    /// stage0's ROM image with the hashes in it, for a machine that starts in it.
    pub fn rom(&self) -> &[u8] {
        &self.rom
    }

    /// The page with the hashes of kernel, initrd and command line.
    pub fn hash_page(&self) -> &Page {
        self.rom[ROM_HASHES..].first_chunk().expect("check_is_stage0 counted the ROM's bytes")
    }

    /// The launch digest of this plan.
    pub fn measurement(&self) -> Measurement {
        measure(self.pages.iter().map(|planned| (planned.gpa, planned.page_type, &*planned.page)))
    }
}

/// The whole ROM, where it lies below 4 GiB.
fn rom_pages(rom: &[u8]) -> Vec<PlannedPage> {
    let (pages, _) = rom.as_chunks::<PAGE>();
    pages.iter().zip((ROM_GPA..).step_by(PAGE)).map(|(page, gpa)| planned(gpa, PageType::Normal, page)).collect()
}

/// What a monitor that enters stage0 in 64-bit mode loads in place of what start code would write: page tables, image,
/// page of hashes, parking page, each with its address.
fn filled_sections(rom: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let (image, rest) = rom.split_at(ROM_HASHES);
    let (hashes, parking) = rest.split_at(PAGE);
    vec![
        (PAGE_TABLES_GPA, page_tables(true).to_vec()),
        (STAGE0_GPA, image.to_vec()),
        (HASHES_GPA, hashes.to_vec()),
        (PARKING_GPA, parking.to_vec()),
    ]
}

/// All that stands for a box without a machine: what it is, init, and the command line with the workload's digest. Its kernel is
/// the host's and measured by nobody.
fn namespaces_page(inputs: &LaunchInputs<'_>) -> Box<Page> {
    let mut page = Box::new([0; PAGE]);
    page[..NAMESPACES_LABEL.len()].copy_from_slice(NAMESPACES_LABEL);
    page[NAMESPACES_INITRD..][..32].copy_from_slice(&inputs.initrd.sha256());
    page[NAMESPACES_COMMAND_LINE..][..32].copy_from_slice(&line_digest(inputs.command_line));
    page
}

/// SHA-256 of a command line with its NUL.
fn line_digest(command_line: &str) -> [u8; 32] {
    Sha256::new().chain_update(command_line).chain_update([0]).finalize().into()
}

/// The state a processor starts in, where there is one.
fn vmsa(inputs: &LaunchInputs<'_>, first: bool, ap_reset_eip: u32) -> Option<Box<Page>> {
    let page = match inputs.form {
        LaunchForm::ResetVector => {
            let eip = if first { BSP_RESET_EIP } else { ap_reset_eip };
            Vmsa { vmm: Vmm::Qemu, eip, signature: inputs.signature, features: GUEST_FEATURES }.page()
        }
        LaunchForm::LongMode => {
            let state = |it: entry::Segment| {
                let entry::Segment { selector, attributes, limit } = it;
                SegmentState { selector, attributes, limit }
            };
            let vmsa = LongModeVmsa {
                code: state(entry::CODE),
                data: state(entry::DATA),
                ldtr: state(entry::LDTR),
                tr: state(entry::TR),
                cr0: entry::CR0,
                cr3: entry::cr3(true),
                cr4: entry::CR4,
                efer: entry::EFER,
                rflags: entry::RFLAGS,
                rip: if first { entry::FIRST_RIP } else { entry::PARKED_RIP },
                features: GUEST_FEATURES,
            };
            vmsa.page()
        }
        LaunchForm::Namespaces => return None,
    };
    Some(page)
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
    let taken = firmware[ROM_HASHES..][..PAGE].iter().filter(|byte| **byte != 0).count();
    differs("bytes in its page for hashes", taken.to_string(), 0.to_string())?;
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
mod tests;
