//! Words of the GHCB protocol that stage0 speaks under SEV-SNP.
//!
//! Source: AMD 56421, SEV-ES Guest-Hypervisor Communication Block Standardization, §2.3.1 (MSR protocol), §2.6 (layout),
//! §4.1 (NAE events). Run in the model of an SNP machine (`scripts/snp-model`), never on hardware.

use coffer_machine::Refusal;

/// GHCB MSR.
pub const MSR: u32 = 0xC001_0130;

/// Ask for the protocol's versions and the C-bit.
pub const INFORMATION_REQUEST: u64 = 0x002;

/// True if `answer` offers [`VERSION`] among its versions.
pub const fn offers_version(answer: u64) -> bool {
    let (least, most) = (answer >> 32 & 0xFFFF, answer >> 48);
    answer & 0xFFF == 0x001 && least <= VERSION as u64 && VERSION as u64 <= most
}

/// A parked processor asks to be held until the host starts it.
pub const RESET_HOLD: u32 = 0x006;

/// Register the GHCB's page: request, for a page-aligned `gpa`.
pub const fn register(gpa: u64) -> u64 {
    gpa | 0x012
}

/// True if `answer` confirms [`register`] of `gpa`.
pub const fn registered(answer: u64, gpa: u64) -> bool {
    answer == gpa | 0x013
}

/// What a page is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum PageState {
    /// The guest's own, encrypted.
    Private = 1,
    /// Readable and writable to the host.
    Shared = 2,
}

/// Page-state change of one 4 KiB page by MSR: request.
pub const fn page_state(gpa: u64, state: PageState) -> u64 {
    (gpa & 0x000F_FFFF_FFFF_F000) | (state as u64) << 52 | 0x014
}

/// True if `answer` says that the change was made.
pub const fn page_state_changed(answer: u64) -> bool {
    answer & 0xFFF == 0x015 && answer >> 32 == 0
}

/// Ask what the hypervisor can do.
pub const FEATURES_REQUEST: u64 = 0x080;

/// True if `answer` offers SEV-SNP (bit 0) and AP creation (bit 1), without which a kernel starts no second processor.
pub const fn offers_snp(answer: u64) -> bool {
    answer & 0xFFF == 0x081 && (answer >> 12) & 0b11 == 0b11
}

/// Whether [`at::EXIT_INFO_1`] of an answer says that the request was understood.
pub const fn answered(exit_info_1: u64) -> bool {
    exit_info_1 as u32 == 0
}

/// End this guest: reason set 7 is ours, the reason is the refusal's number.
pub const fn terminate(refusal: Refusal) -> u64 {
    (refusal as u64) << 16 | 7 << 12 | 0x100
}

/// Offsets inside the GHCB page.
pub mod at {
    /// Guest RAX.
    pub const RAX: usize = 0x1F8;
    /// What the exit is about.
    pub const EXIT_CODE: usize = 0x390;
    /// First word of it.
    pub const EXIT_INFO_1: usize = 0x398;
    /// Second word; in the answer, high half: error.
    pub const EXIT_INFO_2: usize = 0x3A0;
    /// Address of further data.
    pub const SCRATCH: usize = 0x3A8;
    /// One bit per quadword of the save area that holds something.
    pub const VALID_BITMAP: usize = 0x3F0;
    /// 2032 bytes for further data.
    pub const SHARED_BUFFER: usize = 0x800;
    /// Protocol version, u16.
    pub const VERSION: usize = 0xFFA;
    /// Format of the page, u32: 0 is this one.
    pub const USAGE: usize = 0xFFC;
}

/// Protocol version spoken.
pub const VERSION: u16 = 2;
/// IOIO.
pub const EXIT_IOIO: u64 = 0x7B;
/// Page-state change by GHCB.
pub const EXIT_PAGE_STATE: u64 = 0x8000_0010;

/// Size of a port access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// One byte.
    Byte,
    /// Four bytes.
    Long,
}

/// EXIT_INFO_1 of an IOIO exit.
pub const fn ioio(port: u16, width: Width, input: bool) -> u64 {
    let size = match width {
        Width::Byte => 1 << 4,
        Width::Long => 1 << 6,
    };
    // Bit 9: 64-bit addresses.
    (port as u64) << 16 | 1 << 9 | size | input as u64
}

/// Byte and bit of [`at::VALID_BITMAP`] for a quadword of the save area.
pub const fn valid_bit(offset: usize) -> (usize, u8) {
    let quadword = offset / 8;
    (at::VALID_BITMAP + quadword / 8, 1 << (quadword % 8))
}

/// Entries of one page-state change request.
pub const PAGE_STATE_ENTRIES: usize = 253;

/// Header of a page-state change request: entries `first` to `last`.
pub const fn page_state_header(first: u16, last: u16) -> u64 {
    first as u64 | (last as u64) << 16
}

/// What a hypervisor says to a page-state change request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All entries were worked on.
    Done,
    /// The next entry to work on; the guest asks again.
    At(u16),
}

/// Reads an answer: the header as the hypervisor left it, for a request whose next entry was `current` and whose last is
/// `last`. `None` if it went back or past the end, or changed what is not its own.
pub const fn page_states_changed(header: u64, current: u16, last: u16) -> Option<Progress> {
    let next = header as u16;
    if header >> 16 != last as u64 || next < current || next > last + 1 {
        return None;
    }
    Some(if next > last { Progress::Done } else { Progress::At(next) })
}

/// One entry: 512 pages of 4 KiB from a 2 MiB boundary, or one page.
pub const fn page_state_entry(gpa: u64, state: PageState, large: bool) -> u64 {
    (gpa & 0x000F_FFFF_FFFF_F000) | (state as u64) << 52 | (large as u64) << 56
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_bits_of_the_specification() {
        assert_eq!(register(0x20_0000), 0x20_0012);
        assert!(registered(0x20_0013, 0x20_0000) && !registered(0x20_1013, 0x20_0000));
        assert_eq!(page_state(0x20_1000, PageState::Shared), 0x0020_0000_0020_1014);
        assert!(page_state_changed(0x15) && !page_state_changed(0x1_0000_0015) && !page_state_changed(0x14));
        assert!(offers_version(0x0002_0001_3300_0001) && offers_version(0x0002_0002_3300_0001));
        assert!(!offers_version(0x0001_0001_3300_0001) && !offers_version(0x0003_0003_3300_0001));
        assert!(!offers_version(0x0002_0001_3300_0003));
        assert!(offers_snp(0x3081) && !offers_snp(0x1081) && !offers_snp(0x3080));
        assert_eq!(terminate(Refusal::KernelHash), 0x2_7100);
        assert_eq!(ioio(0x3F8, Width::Byte, false), 0x3F8_0210);
        assert_eq!(ioio(0x514, Width::Long, true), 0x514_0241);
        assert_eq!(valid_bit(at::RAX), (0x3F0 + 7, 1 << 7));
        assert_eq!(page_state_entry(0x40_0000, PageState::Private, true), 0x0110_0000_0040_0000);
        assert_eq!(page_state_header(0, 252), 0x00FC_0000);
        assert!(answered(0) && answered(0x1_0000_0000) && !answered(2));
    }

    #[test]
    fn a_hypervisor_may_stop_early_but_not_go_back_or_change_the_end() {
        assert_eq!(page_states_changed(page_state_header(5, 9), 0, 9), Some(Progress::At(5)));
        assert_eq!(page_states_changed(page_state_header(5, 9), 5, 9), Some(Progress::At(5)));
        assert_eq!(page_states_changed(page_state_header(10, 9), 5, 9), Some(Progress::Done));
        for header in [page_state_header(4, 9), page_state_header(11, 9), page_state_header(10, 8), 1 << 32 | 0x9_000A]
        {
            assert_eq!(page_states_changed(header, 5, 9), None, "{header:#x}");
        }
    }
}
