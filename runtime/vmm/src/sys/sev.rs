//! The SEV-SNP commands of KVM, under the names of its header, and attributes of `/dev/kvm`.
//!
//! Source: Linux arch/x86/include/uapi/asm/kvm.h; Documentation/virt/kvm/x86/amd-memory-encryption.rst, KVM_SEV_INIT2
//! and §18 to §20.

use std::fs::File;
use std::os::fd::AsRawFd as _;

use coffer_machine::map::PAGE;
use kvm_bindings::{
    kvm_create_guest_memfd, kvm_device_attr, kvm_memory_attributes, kvm_sev_cmd, kvm_sev_init,
    kvm_sev_snp_launch_finish, kvm_sev_snp_launch_start, kvm_sev_snp_launch_update, kvm_userspace_memory_region2,
    sev_cmd_id_KVM_SEV_INIT2, sev_cmd_id_KVM_SEV_SNP_LAUNCH_FINISH, sev_cmd_id_KVM_SEV_SNP_LAUNCH_START,
    sev_cmd_id_KVM_SEV_SNP_LAUNCH_UPDATE,
};
use kvm_ioctls::{Kvm, VmFd};

use crate::snp::firmware::Status;
use crate::snp::host::{Finish, Page, PageKind, Refused};

// The kernel reads and writes this many bytes whatever a crate says; sizes and places are those of its header.
const _: () = assert!(size_of::<kvm_sev_cmd>() == 24 && std::mem::offset_of!(kvm_sev_cmd, error) == 16);
const _: () = assert!(size_of::<kvm_sev_init>() == 48 && std::mem::offset_of!(kvm_sev_init, ghcb_version) == 12);
const _: () = assert!(size_of::<kvm_sev_snp_launch_start>() == 64);
const _: () = assert!(size_of::<kvm_sev_snp_launch_update>() == 64);
const _: () = assert!(std::mem::offset_of!(kvm_sev_snp_launch_update, type_) == 24);
const _: () = assert!(size_of::<kvm_sev_snp_launch_finish>() == 88);
const _: () = assert!(std::mem::offset_of!(kvm_sev_snp_launch_finish, host_data) == 19);
const _: () = assert!(std::mem::offset_of!(kvm_sev_snp_launch_finish, flags) == 54);
const _: () = assert!(size_of::<kvm_create_guest_memfd>() == 64 && size_of::<kvm_memory_attributes>() == 32);
const _: () = assert!(size_of::<kvm_userspace_memory_region2>() == 160);
const _: () = assert!(size_of::<kvm_device_attr>() == 24 && size_of::<Page>() == PAGE && align_of::<Page>() == PAGE);
const _: () = assert!(sev_cmd_id_KVM_SEV_INIT2 == 22 && sev_cmd_id_KVM_SEV_SNP_LAUNCH_START == 100);
const _: () = assert!(sev_cmd_id_KVM_SEV_SNP_LAUNCH_UPDATE == 101 && sev_cmd_id_KVM_SEV_SNP_LAUNCH_FINISH == 102);

/// KVM_GET_DEVICE_ATTR, `_IOW(0xAE, 0xE2, struct kvm_device_attr)`.
const GET_DEVICE_ATTR: libc::c_ulong = 0x4018_AEE2;

/// An attribute of `/dev/kvm`; `None` where this kernel has no such one.
pub fn attribute(system: &Kvm, group: u32, which: u64) -> Option<u64> {
    let mut value = 0_u64;
    let asked = kvm_device_attr { flags: 0, group, attr: which, addr: &raw mut value as u64 };
    // SAFETY: the kernel reads `asked`, which lives, and writes the eight bytes that its address names.
    let done = unsafe { libc::ioctl(system.as_raw_fd(), GET_DEVICE_ATTR, &raw const asked) };
    (done == 0).then_some(value)
}

/// One command: `data` is its structure, of the length the kernel has for it.
///
/// # Safety
/// `T` is what the kernel reads and writes for `id`, and every address in it names memory that lives and is as long as the
/// kernel takes it for.
unsafe fn command<T>(vm: &VmFd, firmware: &File, id: u32, data: &mut T) -> Result<(), Refused> {
    let mut asked = kvm_sev_cmd {
        id,
        data: std::ptr::from_mut(data) as u64,
        error: 0,
        sev_fd: firmware.as_raw_fd().cast_unsigned(),
        ..Default::default()
    };
    vm.encrypt_op_sev(&mut asked).map_err(|error| Refused { errno: error.errno(), firmware: Status::of(asked.error) })
}

/// KVM_SEV_INIT2.
pub fn initialise(vm: &VmFd, firmware: &File, vmsa_features: u64, ghcb_version: u16) -> Result<(), Refused> {
    let mut init = kvm_sev_init { vmsa_features, ghcb_version, ..Default::default() };
    // SAFETY: the structure of this command; no address in it.
    unsafe { command(vm, firmware, sev_cmd_id_KVM_SEV_INIT2, &mut init) }
}

/// KVM_SEV_SNP_LAUNCH_START.
pub fn start(vm: &VmFd, firmware: &File, policy: u64) -> Result<(), Refused> {
    let mut start = kvm_sev_snp_launch_start { policy, ..Default::default() };
    // SAFETY: the structure of this command; no address in it.
    unsafe { command(vm, firmware, sev_cmd_id_KVM_SEV_SNP_LAUNCH_START, &mut start) }
}

/// KVM_SEV_SNP_LAUNCH_UPDATE; bytes that are left.
pub fn update(vm: &VmFd, firmware: &File, gpa: u64, kind: PageKind, pages: &mut [Page]) -> Result<u64, Refused> {
    let mut update = of_pages(gpa, kind, pages);
    // SAFETY: the structure of this command; its address is that of `pages`, which are borrowed for writing, and its length
    // theirs. Any byte the kernel writes is a byte.
    unsafe { command(vm, firmware, sev_cmd_id_KVM_SEV_SNP_LAUNCH_UPDATE, &mut update)? };
    Ok(update.len)
}

/// The structure. Zero pages are read from nowhere.
fn of_pages(gpa: u64, kind: PageKind, pages: &mut [Page]) -> kvm_sev_snp_launch_update {
    kvm_sev_snp_launch_update {
        gfn_start: gpa / PAGE as u64,
        uaddr: if kind == PageKind::Zero { 0 } else { pages.as_mut_ptr() as u64 },
        len: size_of_val(pages) as u64,
        type_: kind as u8,
        ..Default::default()
    }
}

/// KVM_SEV_SNP_LAUNCH_FINISH.
pub fn finish(vm: &VmFd, firmware: &File, finish: &Finish) -> Result<(), Refused> {
    let mut last = of_finish(finish);
    // SAFETY: the structure of this command; its addresses are those of the two blocks, 96 and 4096 bytes, which the kernel
    // only reads, and which `finish` keeps.
    unsafe { command(vm, firmware, sev_cmd_id_KVM_SEV_SNP_LAUNCH_FINISH, &mut last) }
}

fn of_finish(finish: &Finish) -> kvm_sev_snp_launch_finish {
    let mut last = kvm_sev_snp_launch_finish { host_data: finish.host_data, ..Default::default() };
    if let Some(identity) = &finish.identity {
        last.id_block_uaddr = identity.block.as_ptr() as u64;
        last.id_auth_uaddr = identity.auth.0.as_ptr() as u64;
        last.id_block_en = 1;
        last.auth_key_en = identity.author_key.into();
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snp::host::Identity;

    #[test]
    fn an_update_names_frame_address_length_and_type() {
        let mut pages = [Page::ZERO, Page::ZERO];
        let at = pages.as_ptr() as u64;
        let update = of_pages(0x10_0000, PageKind::Normal, &mut pages);
        assert_eq!((update.gfn_start, update.uaddr, update.len, update.type_, update.flags), (0x100, at, 0x2000, 1, 0));
        assert_eq!(update.uaddr % 4096, 0);
        let zero = of_pages(0x10_0000, PageKind::Zero, &mut pages);
        assert_eq!((zero.uaddr, zero.len, zero.type_), (0, 0x2000, 3));
        assert_eq!((PageKind::Secrets as u8, PageKind::Cpuid as u8), (5, 6));
    }

    #[test]
    fn a_finish_names_blocks_only_where_there_are_some() {
        let plain = of_finish(&Finish { host_data: [7; 32], identity: None });
        assert_eq!((plain.id_block_en, plain.auth_key_en, plain.vcek_disabled, plain.flags), (0, 0, 0, 0));
        assert_eq!((plain.id_block_uaddr, plain.id_auth_uaddr, plain.host_data), (0, 0, [7; 32]));
        for author_key in [false, true] {
            let identity = Identity { block: Box::new([1; 96]), auth: Box::new(Page::ZERO), author_key };
            let finish = Finish { host_data: [0; 32], identity: Some(identity) };
            let last = of_finish(&finish);
            let identity = finish.identity.as_ref().unwrap();
            assert_eq!((last.id_block_en, last.auth_key_en), (1, author_key.into()));
            assert_eq!(last.id_block_uaddr, identity.block.as_ptr() as u64);
            assert_eq!(last.id_auth_uaddr, identity.auth.0.as_ptr() as u64);
        }
    }

    #[test]
    fn a_kernel_without_an_attribute_has_none() {
        let Ok(system) = Kvm::new() else { return };
        assert_eq!(attribute(&system, 77, 77), None);
    }
}
