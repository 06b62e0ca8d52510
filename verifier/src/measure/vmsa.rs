//! A vCPU's save area as three launchers fill it.
//!
//! Source: AMD APM volume 2, Table B-4; KVM from Linux 6.10 on; QEMU `target/i386/sev.c`.

use core::str::FromStr;

use super::{CpuSignature, PAGE_SIZE, Page};

/// Where the boot processor starts.
pub const BSP_RESET_EIP: u32 = 0xFFFF_FFF0;

/// Who launches the guest, which shows in its VMSA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vmm {
    /// QEMU on KVM.
    Qemu,
    /// Amazon EC2.
    Ec2,
    /// Google Compute Engine.
    Gce,
}

impl FromStr for Vmm {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "qemu" => Ok(Self::Qemu),
            "ec2" => Ok(Self::Ec2),
            "gce" => Ok(Self::Gce),
            _ => Err(format!("VMM {name:?} is unknown; known are qemu, ec2, gce")),
        }
    }
}

/// What a VMSA is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vmsa {
    /// Whose start state it is.
    pub vmm: Vmm,
    /// Start address: [`BSP_RESET_EIP`], or the AP address of the firmware's SEV-ES reset block.
    pub eip: u32,
    /// CPU signature.
    pub signature: CpuSignature,
    /// SEV_FEATURES; 1 is SNP alone.
    pub features: u64,
}

impl Vmsa {
    /// The page that is measured.
    pub fn page(&self) -> Box<Page> {
        let mut page = Box::new([0; PAGE_SIZE]);
        let ec2 = self.vmm == Vmm::Ec2;
        let boot_processor = self.eip == BSP_RESET_EIP;
        let cs_attributes = if ec2 && boot_processor { 0x9a } else { 0x9b };
        let (ss_attributes, tr_attributes) = if ec2 { (0x92, 0x83) } else { (0x93, 0x8b) };

        segment(&mut page, 0x00, 0, 0x93, 0xffff, 0); // ES
        segment(&mut page, 0x10, 0xf000, cs_attributes, 0xffff, u64::from(self.eip & 0xffff_0000)); // CS
        segment(&mut page, 0x20, 0, ss_attributes, 0xffff, 0); // SS
        segment(&mut page, 0x30, 0, 0x93, 0xffff, 0); // DS
        segment(&mut page, 0x40, 0, 0x93, 0xffff, 0); // FS
        segment(&mut page, 0x50, 0, 0x93, 0xffff, 0); // GS
        segment(&mut page, 0x60, 0, 0, 0xffff, 0); // GDTR
        segment(&mut page, 0x70, 0, 0x82, 0xffff, 0); // LDTR
        segment(&mut page, 0x80, 0, 0, 0xffff, 0); // IDTR
        segment(&mut page, 0x90, 0, tr_attributes, 0xffff, 0); // TR

        word(&mut page, 0xd0, 0x1000); // EFER.SVME
        word(&mut page, 0x148, 0x40); // CR4.MCE
        word(&mut page, 0x158, 0x10); // CR0.ET
        word(&mut page, 0x160, 0x400); // DR7
        word(&mut page, 0x168, 0xffff_0ff0); // DR6
        word(&mut page, 0x170, 0x2); // RFLAGS
        word(&mut page, 0x178, u64::from(self.eip & 0xffff)); // RIP
        let (pat, rdx) = match self.vmm {
            Vmm::Qemu => (0x0007_0406_0007_0406, u64::from(self.signature.0)),
            Vmm::Ec2 => (0x0007_0406_0007_0406, 0x600),
            Vmm::Gce => (0x0007_0106, 0x600),
        };
        word(&mut page, 0x268, pat); // G_PAT
        word(&mut page, 0x310, rdx); // RDX
        word(&mut page, 0x3b0, self.features); // SEV_FEATURES
        word(&mut page, 0x3e8, 0x1); // XCR0
        if self.vmm == Vmm::Qemu {
            page[0x408..0x40c].copy_from_slice(&0x1f80_u32.to_le_bytes()); // MXCSR
            page[0x410..0x412].copy_from_slice(&0x37f_u16.to_le_bytes()); // x87 FCW
        }
        page
    }
}

pub(super) fn segment(page: &mut Page, at: usize, selector: u16, attributes: u16, limit: u32, base: u64) {
    page[at..at + 2].copy_from_slice(&selector.to_le_bytes());
    page[at + 2..at + 4].copy_from_slice(&attributes.to_le_bytes());
    page[at + 4..at + 8].copy_from_slice(&limit.to_le_bytes());
    page[at + 8..at + 16].copy_from_slice(&base.to_le_bytes());
}

pub(super) fn word(page: &mut Page, at: usize, value: u64) {
    page[at..at + 8].copy_from_slice(&value.to_le_bytes());
}
