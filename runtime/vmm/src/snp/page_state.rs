//! What a guest asks of its pages, and what it may: pure decisions.
//!
//! A guest asks by a hypercall that KVM makes of its GHCB request. All of its memory may become private; shared may become
//! what its kernel has as RAM, so neither what the launch put in place for the machine's life nor the BIOS area. A page that
//! is touched as what it is not becomes what it was touched as, within the same bounds, as with every monitor that launches such
//! guests: what a page holds is the guest's to check (PVALIDATE), and a host may change it at any time anyway.
//!
//! Trusts: nothing that is asked. Never: lets a request reach memory that is not the guest's.
//! Source: Linux Documentation/virt/kvm/x86/hypercalls.rst, KVM_HC_MAP_GPA_RANGE; KVM API §5, KVM_EXIT_MEMORY_FAULT.

use coffer_machine::map::PAGE;
use coffer_machine::memory::{Ram, Range};

/// The hypercall, `KVM_HC_MAP_GPA_RANGE`.
pub const MAP_GPA_RANGE: u64 = 12;
/// The access that failed was to be private: `KVM_MEMORY_EXIT_FLAG_PRIVATE`.
const TOUCHED_PRIVATE: u64 = 1 << 3;
/// Bit of the attributes: private, `KVM_MAP_GPA_RANGE_ENCRYPTED`.
const ENCRYPTED: u64 = 1 << 4;
/// Bits of the attributes: page size, of which there are three. The count is in pages of 4 KiB all the same.
const PAGE_SIZE: u64 = 0xF;
const LARGEST_PAGE_SIZE: u64 = 2;

/// Whose a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The guest's alone.
    Private,
    /// The host's too.
    Shared,
}

/// A change of pages that may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whole pages of guest memory, at least one.
    pub range: Range,
    /// What they become.
    pub to: State,
}

/// Why the guest ends: nothing stage0 or Linux does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageStateError {
    /// Another hypercall; none was offered.
    #[error("the guest made hypercall {0}, and none but {MAP_GPA_RANGE} leaves KVM")]
    Hypercall(u64),
    /// No page, half a page, or an end past all addresses.
    #[error("the guest asked to change {pages} pages at {gpa:#x}, which is no range of pages")]
    Range {
        /// First address.
        gpa: u64,
        /// Number of 4 KiB pages.
        pages: u64,
    },
    /// Attributes that mean nothing.
    #[error("the guest asked to change pages at {gpa:#x} to attributes {attributes:#x}, which mean nothing")]
    Attributes {
        /// First address.
        gpa: u64,
        /// As asked.
        attributes: u64,
    },
    /// Not its memory.
    #[error("the guest asked to change {:#x} to {:#x}, and its memory ends at {memory:#x}", range.start, range.end)]
    Outside {
        /// As asked.
        range: Range,
        /// Where memory ends.
        memory: u64,
    },
    /// Memory that the launch keeps for itself, or the BIOS area.
    #[error("the guest asked to share {:#x} to {:#x}, of which a part is never shared", range.start, range.end)]
    Kept {
        /// As asked.
        range: Range,
    },
    /// An access that fails again whatever is changed for it.
    #[error(
        "the guest's access to {gpa:#x} failed {MOST_REPEATS} times in a row, though its page is what it was touched as"
    )]
    Unsettled {
        /// Where.
        gpa: u64,
    },
    /// A fault of a kind that this version does not know.
    #[error("the guest's access to {gpa:#x} failed with flags {flags:#x}, which are new")]
    Fault {
        /// Where.
        gpa: u64,
        /// As KVM gave them.
        flags: u64,
    },
}

/// What a hypercall asks for.
///
/// # Errors
/// [`PageStateError`] if the guest ends for it.
pub fn asked(number: u64, arguments: &[u64; 6], ram: Ram) -> Result<Change, PageStateError> {
    let [gpa, pages, attributes, ..] = *arguments;
    if number != MAP_GPA_RANGE {
        return Err(PageStateError::Hypercall(number));
    }
    if attributes & !(PAGE_SIZE | ENCRYPTED) != 0 || attributes & PAGE_SIZE > LARGEST_PAGE_SIZE {
        return Err(PageStateError::Attributes { gpa, attributes });
    }
    let range = pages.checked_mul(PAGE as u64).and_then(|bytes| Range::new(gpa, bytes));
    let range = range.filter(|range| pages > 0 && range.start.is_multiple_of(PAGE as u64));
    let range = range.ok_or(PageStateError::Range { gpa, pages })?;
    if range.end > ram.end {
        return Err(PageStateError::Outside { range, memory: ram.end });
    }
    if attributes & ENCRYPTED != 0 {
        return Ok(Change { range, to: State::Private });
    }
    let usable = ram.usable().into_iter().any(|part| part.start <= range.start && range.end <= part.end);
    if usable { Ok(Change { range, to: State::Shared }) } else { Err(PageStateError::Kept { range }) }
}

/// What an access asks for that KVM could not let happen.
///
/// # Errors
/// [`PageStateError`] if the guest ends for it.
pub fn touched(flags: u64, gpa: u64, size: u64, ram: Ram) -> Result<Change, PageStateError> {
    if flags & !TOUCHED_PRIVATE != 0 {
        return Err(PageStateError::Fault { gpa, flags });
    }
    let pages = size / PAGE as u64;
    if !size.is_multiple_of(PAGE as u64) {
        return Err(PageStateError::Range { gpa, pages });
    }
    let attributes = if flags & TOUCHED_PRIVATE != 0 { ENCRYPTED } else { 0 };
    asked(MAP_GPA_RANGE, &[gpa, pages, attributes, 0, 0, 0], ram)
}

/// Accesses of one processor that failed in a row.
#[derive(Debug, Default)]
pub struct Repeats {
    last: Option<Change>,
    count: u32,
}

impl Repeats {
    /// Counts one for which this change is to be done.
    ///
    /// # Errors
    /// [`PageStateError::Unsettled`] if it has been the same too often: doing it changes nothing.
    pub fn again(&mut self, change: Change) -> Result<Change, PageStateError> {
        self.count = if self.last.replace(change) == Some(change) { self.count + 1 } else { 1 };
        if self.count < MOST_REPEATS { Ok(change) } else { Err(PageStateError::Unsettled { gpa: change.range.start }) }
    }
}

/// How often the same access may fail in a row. Another processor may have changed the page meanwhile, so once is not it.
const MOST_REPEATS: u32 = 64;

#[cfg(test)]
mod tests {
    use coffer_machine::map::{
        CPUID_GPA, HIGH_MEMORY_GPA, LOW_MEMORY_GPA, MAX_RAM, MIN_RAM, PAGE_TABLES_GPA, PARKING_GPA, SECRETS_GPA,
        SHARED_WINDOW_GPA,
    };
    use proptest::prelude::*;

    use super::*;

    const RAM: Ram = Ram { end: 64 << 20 };

    fn ask(gpa: u64, pages: u64, attributes: u64) -> Result<Change, PageStateError> {
        asked(MAP_GPA_RANGE, &[gpa, pages, attributes, 0, 0, 0], RAM)
    }

    #[test]
    fn pages_are_counted_in_4_kib_whatever_size_is_named() {
        for size in 0..=2 {
            let change = ask(SHARED_WINDOW_GPA, 3, size).unwrap();
            assert_eq!((change.range.end - change.range.start, change.to), (3 * 4096, State::Shared));
            assert_eq!(ask(SHARED_WINDOW_GPA, 3, ENCRYPTED | size).unwrap().to, State::Private);
        }
    }

    #[test]
    fn all_of_memory_may_become_private_and_nothing_behind_it() {
        let pages = RAM.end >> 12;
        assert_eq!(ask(0, pages, ENCRYPTED).unwrap().range, Range { start: 0, end: RAM.end });
        assert!(matches!(ask(0, pages + 1, ENCRYPTED), Err(PageStateError::Outside { .. })));
        assert!(matches!(ask(RAM.end, 1, ENCRYPTED), Err(PageStateError::Outside { .. })));
        assert!(matches!(ask(RAM.end, 1, 0), Err(PageStateError::Outside { .. })));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for (gpa, pages) in [(0x20_0000, 0), (0x20_0800, 1), (0, 1 << 52), (0, u64::MAX), (!0xFFF, 1), (!0xFFF, 2)] {
            assert!(matches!(ask(gpa, pages, ENCRYPTED), Err(PageStateError::Range { .. })), "{gpa:#x} {pages:#x}");
        }
    }

    #[test]
    fn attributes_that_mean_nothing_are_refused() {
        for attributes in [3, 0xF, 1 << 5, u64::MAX, ENCRYPTED | 3] {
            assert!(matches!(ask(0x20_0000, 1, attributes), Err(PageStateError::Attributes { .. })), "{attributes:#x}");
        }
    }

    #[test]
    fn what_the_launch_keeps_is_never_shared_not_even_as_a_part() {
        for gpa in [0, PAGE_TABLES_GPA, SECRETS_GPA, CPUID_GPA, PARKING_GPA, LOW_MEMORY_GPA - 4096] {
            assert_eq!(ask(gpa, 1, 0), Err(PageStateError::Kept { range: Range::new(gpa, 4096).unwrap() }));
            assert!(ask(gpa, 1, ENCRYPTED).is_ok());
        }
        assert!(ask(LOW_MEMORY_GPA, 1, 0).is_ok() && ask(HIGH_MEMORY_GPA, 1, 0).is_ok());
        assert!(ask(LOW_MEMORY_GPA - 4096, 2, 0).is_err() && ask(HIGH_MEMORY_GPA - 4096, 2, 0).is_err());
    }

    #[test]
    fn another_hypercall_ends_the_guest() {
        assert_eq!(asked(11, &[0; 6], RAM), Err(PageStateError::Hypercall(11)));
    }

    #[test]
    fn a_page_becomes_what_it_was_touched_as_within_the_bounds_of_a_request() {
        let page = Range::new(SHARED_WINDOW_GPA, 4096).unwrap();
        for (flags, to) in [(0, State::Shared), (TOUCHED_PRIVATE, State::Private)] {
            assert_eq!(touched(flags, page.start, 4096, RAM), Ok(Change { range: page, to }));
            assert!(matches!(touched(flags, RAM.end, 4096, RAM), Err(PageStateError::Outside { .. })));
            for (gpa, size) in [(page.start, 0), (page.start, 4095), (page.start, 4097), (page.start + 1, 4096)] {
                assert!(matches!(touched(flags, gpa, size, RAM), Err(PageStateError::Range { .. })), "{gpa:#x} {size}");
            }
        }
        assert!(matches!(touched(0, SECRETS_GPA, 4096, RAM), Err(PageStateError::Kept { .. })), "never shared");
        assert_eq!(touched(9, 0x5000, 4096, RAM), Err(PageStateError::Fault { gpa: 0x5000, flags: 9 }));
    }

    #[test]
    fn an_access_that_no_change_settles_ends_the_guest() {
        let mut repeats = Repeats::default();
        let one = touched(0, SHARED_WINDOW_GPA, 4096, RAM).unwrap();
        let other = touched(TOUCHED_PRIVATE, SHARED_WINDOW_GPA, 4096, RAM).unwrap();
        for _ in 0..1000 {
            assert_eq!(
                (repeats.again(one), repeats.again(other)),
                (Ok(one), Ok(other)),
                "to and fro is the guest's affair"
            );
        }
        let settled = (0..1000).take_while(|_| repeats.again(one).is_ok()).count();
        assert_eq!(settled, 63);
        assert_eq!(repeats.again(one), Err(PageStateError::Unsettled { gpa: SHARED_WINDOW_GPA }));
    }

    proptest! {
        #[test]
        fn no_request_reaches_what_is_not_the_guests(
            number in prop_oneof![Just(MAP_GPA_RANGE), any::<u64>()],
            gpa in prop_oneof![any::<u64>(), 0..MAX_RAM, (0..MAX_RAM >> 12).prop_map(|page| page << 12)],
            pages in prop_oneof![any::<u64>(), 0..1_u64 << 20], attributes in prop_oneof![any::<u64>(), 0..0x20_u64],
            megabytes in (MIN_RAM >> 20)..(MAX_RAM >> 20),
        ) {
            let Ok(ram) = Ram::claimed(megabytes << 20) else { return Ok(()) };
            if let Ok(change) = touched(attributes, gpa, pages.wrapping_mul(4096), ram) {
                prop_assert!(change.range.start == gpa && gpa % 4096 == 0 && change.range.end <= ram.end);
                let private = attributes == TOUCHED_PRIVATE;
                prop_assert_eq!(change.to, if private { State::Private } else { State::Shared });
            }
            if let Ok(change) = asked(number, &[gpa, pages, attributes, 0, 0, 0], ram) {
                prop_assert_eq!((change.range.start, change.range.end), (gpa, gpa + pages * 4096));
                prop_assert!(gpa % 4096 == 0 && pages > 0 && change.range.end <= ram.end);
                let launched = Range { start: SECRETS_GPA, end: PARKING_GPA + 4096 };
                prop_assert!(change.to == State::Private || !change.range.overlaps(launched));
            }
        }
    }
}
