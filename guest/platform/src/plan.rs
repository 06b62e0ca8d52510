//! The launch plan: every page that is put into a guest before it runs, in the order it is measured.
//!
//! One module makes it, and everything uses it: the VMM that loads the pages, the secure processor (or its simulator) that
//! measures them, and `coffer measure`, which predicts the digest off the host.
//! Today the kernel is booted by QEMU itself, so what stands for kernel, initrd and command line is the page with their
//! hashes, as QEMU's own kernel-hashes page does; firmware of ours that checks them joins the plan later.

use coffer_verifier::{
    abi::Measurement,
    measure::{BSP_RESET_EIP, CpuSignature, KernelHashes, LaunchDigest, Page, PageType, VMSA_GPA, Vmm, Vmsa},
};

use crate::{
    acpi,
    machine::{ACPI_GPA, CPUID_GPA, HASHES_GPA, MAX_VCPUS, PAGE, SECRETS_GPA},
};

/// vCPU type whose signature stands in the VMSA.
pub const VCPU_TYPE: &str = "EPYC-Milan";
/// SEV_FEATURES: SNP alone.
const GUEST_FEATURES: u64 = 1;

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
    /// bzImage.
    pub kernel: &'a [u8],
    /// cpio archive.
    pub initrd: &'a [u8],
    /// Kernel command line, without a trailing NUL.
    pub command_line: &'a str,
    /// Virtual CPUs, 1 to [`MAX_VCPUS`].
    pub vcpus: u32,
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
}

/// Pages in the order they are measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchPlan {
    pages: Vec<PlannedPage>,
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
        let mut pages: Vec<PlannedPage> = acpi::tables(inputs.vcpus)
            .chunks(PAGE)
            .enumerate()
            .map(|(index, chunk)| planned(ACPI_GPA + (index * PAGE) as u64, PageType::Normal, chunk))
            .collect();
        let hashes = KernelHashes::of(inputs.kernel, inputs.initrd, inputs.command_line.as_bytes());
        pages.push(planned(HASHES_GPA, PageType::Normal, &hashes.table()));
        pages.push(planned(SECRETS_GPA, PageType::Secrets, &[]));
        pages.push(planned(CPUID_GPA, PageType::Cpuid, &[]));
        // Until firmware of ours sets an AP start address, every vCPU is measured in its reset state.
        let signature: CpuSignature = VCPU_TYPE.parse().expect("the table of vCPU types has our own");
        let vmsa = Vmsa { vmm: Vmm::Qemu, eip: BSP_RESET_EIP, signature, features: GUEST_FEATURES }.page();
        for _ in 0..inputs.vcpus {
            pages.push(planned(VMSA_GPA, PageType::Vmsa, &vmsa[..]));
        }
        Ok(Self { pages })
    }

    /// The pages, in the order they are measured.
    pub fn pages(&self) -> &[PlannedPage] {
        &self.pages
    }

    /// The launch digest of this plan.
    pub fn measurement(&self) -> Measurement {
        let mut digest = LaunchDigest::new();
        for planned in &self.pages {
            digest.extend(planned.page_type, planned.gpa, &planned.page).expect("planned addresses are page aligned");
        }
        digest.finish()
    }
}

fn planned(gpa: u64, page_type: PageType, contents: &[u8]) -> PlannedPage {
    let mut page = Box::new([0; PAGE]);
    page[..contents.len()].copy_from_slice(contents);
    PlannedPage { gpa, page_type, page }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const INPUTS: LaunchInputs<'_> =
        LaunchInputs { kernel: b"kernel", initrd: b"initrd", command_line: "coffer.tee=simulated", vcpus: 1 };

    #[test]
    fn every_input_is_measured() {
        let variants = [
            INPUTS,
            LaunchInputs { kernel: b"kernel2", ..INPUTS },
            LaunchInputs { initrd: b"initrd2", ..INPUTS },
            LaunchInputs { command_line: "coffer.tee=none", ..INPUTS },
            LaunchInputs { command_line: "coffer.tee=simulated ", ..INPUTS },
            LaunchInputs { vcpus: 2, ..INPUTS },
        ];
        let digests: HashSet<_> =
            variants.iter().map(|inputs| LaunchPlan::new(inputs).unwrap().measurement()).collect();
        assert_eq!(digests.len(), variants.len());
        assert_eq!(LaunchPlan::new(&INPUTS).unwrap().measurement(), LaunchPlan::new(&INPUTS).unwrap().measurement());
    }

    #[test]
    fn pages_do_not_overlap() {
        let plan = LaunchPlan::new(&LaunchInputs { vcpus: MAX_VCPUS, ..INPUTS }).unwrap();
        let own: Vec<_> = plan.pages().iter().filter(|page| page.page_type != PageType::Vmsa).map(|p| p.gpa).collect();
        assert_eq!(own.iter().collect::<HashSet<_>>().len(), own.len());
    }

    #[test]
    fn refuses_what_the_machine_model_has_no_place_for() {
        assert!(LaunchPlan::new(&LaunchInputs { vcpus: 0, ..INPUTS }).is_err());
        assert!(LaunchPlan::new(&LaunchInputs { vcpus: MAX_VCPUS + 1, ..INPUTS }).is_err());
        assert_eq!(LaunchPlan::new(&LaunchInputs { command_line: "a\0b", ..INPUTS }), Err(PlanError::CommandLine));
    }
}
