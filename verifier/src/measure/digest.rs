//! The launch digest itself: one SHA-384 chain over PAGE_INFO structures.

use sha2::{Digest, Sha384};

use crate::abi::Measurement;

/// Bytes of a measured page.
pub const PAGE_SIZE: usize = 4096;

/// Contents of one page.
pub type Page = [u8; PAGE_SIZE];

/// The GPA under which every VMSA page is measured, whatever its place in memory.
pub const VMSA_GPA: u64 = 0xFFFF_FFFF_F000;

/// PAGE_TYPE of SNP_LAUNCH_UPDATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PageType {
    /// Contents are measured.
    Normal = 1,
    /// A vCPU's save area; contents are measured.
    Vmsa = 2,
    /// A page of zeros.
    Zero = 3,
    /// Encrypted, its contents not measured.
    Unmeasured = 4,
    /// The secrets page, filled by the secure processor.
    Secrets = 5,
    /// The CPUID page, checked by the secure processor.
    Cpuid = 6,
}

impl PageType {
    /// From the PAGE_TYPE byte.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Normal,
            2 => Self::Vmsa,
            3 => Self::Zero,
            4 => Self::Unmeasured,
            5 => Self::Secrets,
            6 => Self::Cpuid,
            _ => return None,
        })
    }

    /// True if the page's bytes enter the digest.
    pub const fn measures_contents(self) -> bool {
        matches!(self, Self::Normal | Self::Vmsa)
    }
}

/// Permission masks of the lower-privileged VMPLs; all zero in every launcher known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VmplPermissions {
    /// VMPL 1.
    pub vmpl1: u8,
    /// VMPL 2.
    pub vmpl2: u8,
    /// VMPL 3.
    pub vmpl3: u8,
}

/// Why a page cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The address is not on a page boundary.
    #[error("guest address {gpa:#x} is not a multiple of 4096")]
    Unaligned {
        /// Address given.
        gpa: u64,
    },
}

/// Running launch digest: 48 zero bytes, then one step per page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchDigest([u8; 48]);

impl Default for LaunchDigest {
    fn default() -> Self {
        Self::new()
    }
}

impl LaunchDigest {
    /// As after SNP_LAUNCH_START.
    pub const fn new() -> Self {
        Self([0; 48])
    }

    /// Goes on from a digest taken earlier, such as one published for a firmware image.
    pub const fn resume(digest: Measurement) -> Self {
        Self(*digest.as_bytes())
    }

    /// Extends the digest by one page, as SNP_LAUNCH_UPDATE does, with no permission for VMPL 1 to 3.
    ///
    /// `gpa`: guest physical address in bytes, a multiple of 4096; for VMSA pages it is [`VMSA_GPA`]. `page`: its contents,
    /// which count for [`PageType::measures_contents`] only.
    ///
    /// # Errors
    /// [`LaunchError::Unaligned`]; the digest is unchanged.
    ///
    /// Source: SNP ABI, SNP_LAUNCH_UPDATE, PAGE_INFO.
    pub fn extend(&mut self, page_type: PageType, gpa: u64, page: &Page) -> Result<(), LaunchError> {
        self.extend_with(page_type, gpa, page, VmplPermissions::default())
    }

    /// [`LaunchDigest::extend`] with permissions for VMPL 1 to 3.
    ///
    /// # Errors
    /// [`LaunchError::Unaligned`]; the digest is unchanged.
    pub fn extend_with(
        &mut self,
        page_type: PageType,
        gpa: u64,
        page: &Page,
        permissions: VmplPermissions,
    ) -> Result<(), LaunchError> {
        let contents = if page_type.measures_contents() { Sha384::digest(page).into() } else { [0; 48] };
        self.step(page_type, gpa, &contents, permissions)
    }

    /// Extends by consecutive pages whose contents are not measured, `count` of them from `gpa` on.
    pub(super) fn extend_contentless(&mut self, page_type: PageType, gpa: u64, count: u64) -> Result<(), LaunchError> {
        for index in 0..count {
            let at = gpa.wrapping_add(index.wrapping_mul(PAGE_SIZE as u64));
            self.step(page_type, at, &[0; 48], VmplPermissions::default())?;
        }
        Ok(())
    }

    fn step(
        &mut self,
        page_type: PageType,
        gpa: u64,
        contents: &[u8; 48],
        permissions: VmplPermissions,
    ) -> Result<(), LaunchError> {
        if !gpa.is_multiple_of(PAGE_SIZE as u64) {
            return Err(LaunchError::Unaligned { gpa });
        }
        let mut info = [0; PAGE_INFO_SIZE];
        info[..48].copy_from_slice(&self.0);
        info[48..96].copy_from_slice(contents);
        info[96..98].copy_from_slice(&(PAGE_INFO_SIZE as u16).to_le_bytes());
        info[98] = page_type as u8;
        // 99: IMI_PAGE, no migration image here.
        info[100] = permissions.vmpl3;
        info[101] = permissions.vmpl2;
        info[102] = permissions.vmpl1;
        info[104..].copy_from_slice(&gpa.to_le_bytes());
        self.0 = Sha384::digest(info).into();
        Ok(())
    }

    /// The digest so far.
    pub const fn current(&self) -> Measurement {
        Measurement::new(self.0)
    }

    /// The digest SNP_LAUNCH_FINISH fixes.
    pub const fn finish(self) -> Measurement {
        Measurement::new(self.0)
    }
}

const PAGE_INFO_SIZE: usize = 0x70;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_an_unaligned_address_and_leaves_the_digest_alone() {
        let mut digest = LaunchDigest::new();
        let refused = digest.extend(PageType::Normal, 0x1001, &[0; PAGE_SIZE]);
        assert_eq!(refused, Err(LaunchError::Unaligned { gpa: 0x1001 }));
        assert_eq!(digest, LaunchDigest::new());
    }

    #[test]
    fn address_type_contents_and_permissions_each_change_the_digest() {
        let page = [7; PAGE_SIZE];
        let of = |page_type, gpa, page: &Page, permissions| {
            let mut digest = LaunchDigest::new();
            digest.extend_with(page_type, gpa, page, permissions).unwrap();
            digest.finish()
        };
        let none = VmplPermissions::default();
        let all = [
            of(PageType::Normal, 0, &page, none),
            of(PageType::Normal, 0x1000, &page, none),
            of(PageType::Vmsa, 0, &page, none),
            of(PageType::Zero, 0, &page, none),
            of(PageType::Normal, 0, &[8; PAGE_SIZE], none),
            of(PageType::Normal, 0, &page, VmplPermissions { vmpl1: 1, ..none }),
            of(PageType::Normal, 0, &page, VmplPermissions { vmpl2: 1, ..none }),
            of(PageType::Normal, 0, &page, VmplPermissions { vmpl3: 1, ..none }),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(all[index + 1..].iter().all(|other| other != one));
        }
        assert_eq!(
            of(PageType::Secrets, 0, &page, none),
            of(PageType::Secrets, 0, &[0; PAGE_SIZE], none),
            "contents of a secrets page are not measured"
        );
    }

    #[test]
    fn resumes_where_it_stopped() {
        let mut whole = LaunchDigest::new();
        whole.extend(PageType::Normal, 0, &[1; PAGE_SIZE]).unwrap();
        let mut resumed = LaunchDigest::resume(whole.current());
        whole.extend(PageType::Zero, 0x1000, &[0; PAGE_SIZE]).unwrap();
        resumed.extend(PageType::Zero, 0x1000, &[0; PAGE_SIZE]).unwrap();
        assert_eq!(whole.finish(), resumed.finish());
    }
}
