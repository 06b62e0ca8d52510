//! Where things go in guest memory, from claims of the host that are clamped to the machine model.

use coffer_machine::{
    Refusal,
    map::{
        COMMAND_LINE_LIMIT, CPUID_GPA, HASHES_GPA, HIGH_MEMORY_GPA, KERNEL_GPA, NO_STACK_GPA, PAGE, PAGE_TABLES_GPA,
        PAGE_TABLES_SIZE, PARKING_GPA, SECRETS_GPA, SHARED_SIZE, SHARED_WINDOW_GPA, SHARED_WINDOW_SIZE, STAGE0_GPA,
        STAGE0_SIZE,
    },
    memory::{Ram, Range},
};

use crate::bzimage::BzImage;

/// What SEV-SNP's PVALIDATE is still to be done for before the first copy: RAM and the BIOS area, without the pages that the
/// launch put in place, those that are shared with the host, `handed_over`, which the host still shares, and the page that
/// never is ([`NO_STACK_GPA`]).
pub fn unvalidated(ram: Ram, handed_over: Option<Range>) -> [Range; 7] {
    let behind_window = SHARED_WINDOW_GPA + SHARED_SIZE;
    let handed_over = handed_over.unwrap_or(Range { start: ram.end, end: ram.end });
    [
        Range { start: 0, end: PAGE_TABLES_GPA },
        Range { start: PAGE_TABLES_GPA + PAGE_TABLES_SIZE, end: NO_STACK_GPA },
        Range { start: NO_STACK_GPA + PAGE as u64, end: SECRETS_GPA },
        Range { start: PARKING_GPA + PAGE as u64, end: STAGE0_GPA },
        Range { start: STAGE0_GPA + STAGE0_SIZE, end: SHARED_WINDOW_GPA },
        // A hand-over's area lies behind the window (`Handover::shared_area`).
        Range { start: behind_window, end: handed_over.start },
        Range { start: handed_over.end, end: ram.end },
    ]
}

// Secrets, CPUID, hashes and parking page are launched, and nothing lies between them.
const _: () = assert!(CPUID_GPA == SECRETS_GPA + PAGE as u64 && HASHES_GPA == CPUID_GPA + PAGE as u64);
const _: () = assert!(PARKING_GPA == HASHES_GPA + PAGE as u64 && STAGE0_GPA == HIGH_MEMORY_GPA);

// What keeps clear of the shared window keeps clear of stage0 as well.
const _: () = assert!(STAGE0_GPA + STAGE0_SIZE <= SHARED_WINDOW_GPA);

/// Where the copies go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The kernel's file, so that its protected-mode part lies at [`KERNEL_GPA`].
    pub kernel: Range,
    /// The initrd; empty if there is none.
    pub initrd: Range,
}

/// Places kernel and initrd.
///
/// # Errors
/// [`Refusal::NoRoom`] if they do not fit, or `command_line_bytes` (with the NUL) is more than the kernel reads.
pub fn place(
    ram: Ram,
    kernel: &BzImage,
    kernel_bytes: usize,
    initrd_bytes: usize,
    command_line_bytes: usize,
) -> Result<Placement, Refusal> {
    if command_line_bytes > COMMAND_LINE_LIMIT.min(kernel.command_line_limit.saturating_add(1)) {
        return Err(Refusal::NoRoom);
    }
    layout(ram, kernel, kernel_bytes as u64, initrd_bytes as u64).ok_or(Refusal::NoRoom)
}

fn layout(ram: Ram, kernel: &BzImage, kernel_bytes: u64, initrd_bytes: u64) -> Option<Placement> {
    let file = Range::new(KERNEL_GPA.checked_sub(kernel.setup_bytes as u64)?, kernel_bytes)?;
    let running = Range::new(KERNEL_GPA, kernel.init_size)?;
    let kernel_end = running.end.max(file.end);
    let limit = ram.end.min(kernel.initrd_max.saturating_add(1));
    let start = limit.checked_sub(initrd_bytes)? & !(PAGE as u64 - 1);
    let initrd = Range::new(start, initrd_bytes)?;
    let fits = file.start >= SHARED_WINDOW_GPA + SHARED_WINDOW_SIZE
        && kernel_end <= ram.end
        && initrd.start >= kernel_end
        && initrd.end <= ram.end;
    fits.then_some(Placement { kernel: file, initrd })
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_machine::firmware::SECTIONS;
    use proptest::prelude::*;

    const KERNEL: BzImage = BzImage {
        setup_bytes: 0x4000,
        init_size: 60 << 20,
        command_line_limit: 2047,
        initrd_max: 0x7FFF_FFFF,
        header_end: 0x26C,
    };

    #[test]
    fn every_page_but_one_up_to_the_end_of_ram_is_validated_once_by_launch_or_by_stage0() {
        let ram = Ram::claimed(256 << 20).unwrap();
        let launched = SECTIONS.iter().map(|it| Range::new(it.gpa.into(), it.size.into()).unwrap());
        for handed_over in [None, Range::new(0x800_0000, 24 << 20), Range::new(0xF00_0000, 16 << 20)] {
            let mut all = std::vec::Vec::from(unvalidated(ram, handed_over));
            all.extend(launched.clone().chain(handed_over));
            all.push(Range::new(SHARED_WINDOW_GPA, SHARED_SIZE).unwrap());
            all.push(Range::new(NO_STACK_GPA, PAGE as u64).unwrap());
            all.retain(|range| range.start < range.end);
            all.sort_by_key(|range| range.start);
            assert!(all.iter().all(|range| range.start % PAGE as u64 == 0 && range.end % PAGE as u64 == 0));
            let ends = all.iter().map(|range| range.end).take(all.len() - 1);
            assert!(all[1..].iter().map(|range| range.start).eq(ends), "neither a gap nor a page twice: {all:x?}");
            assert_eq!((all[0].start, all[all.len() - 1].end), (0, ram.end));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let ram = Ram::claimed(256 << 20).unwrap();
        assert!(place(ram, &KERNEL, 14 << 20, 12 << 20, 200).is_ok());
        assert_eq!(place(ram, &KERNEL, 14 << 20, 190 << 20, 200), Err(Refusal::NoRoom));
        assert_eq!(place(ram, &KERNEL, 300 << 20, 0, 200), Err(Refusal::NoRoom));
        assert_eq!(place(ram, &KERNEL, 14 << 20, usize::MAX, 200), Err(Refusal::NoRoom));
        assert_eq!(place(ram, &KERNEL, 14 << 20, 0, 2049), Err(Refusal::NoRoom));
        let short = BzImage { command_line_limit: 255, ..KERNEL };
        assert_eq!(place(ram, &short, 14 << 20, 0, 257), Err(Refusal::NoRoom));
        assert!(place(ram, &short, 14 << 20, 0, 256).is_ok());
        let low = BzImage { initrd_max: 100 << 20, ..KERNEL };
        assert!(place(ram, &low, 14 << 20, 12 << 20, 1).unwrap().initrd.end <= (100 << 20) + 1);
    }

    proptest! {
        #[test]
        fn nothing_overlaps_whatever_is_claimed(
            megabytes in 32_u64..3100, setup in 1_usize..256, init in 0_u64..1 << 32,
            kernel_bytes in 0_usize..1 << 33, initrd_bytes in 0_usize..1 << 33, initrd_max in any::<u32>(),
        ) {
            let kernel = BzImage { setup_bytes: setup * 512, init_size: init, initrd_max: initrd_max.into(), ..KERNEL };
            let Ok(ram) = Ram::claimed(megabytes << 20) else { return Ok(()) };
            let Ok(placed) = place(ram, &kernel, kernel_bytes, initrd_bytes, 1) else { return Ok(()) };
            let own = Range { start: 0, end: STAGE0_GPA + STAGE0_SIZE };
            let window = Range::new(SHARED_WINDOW_GPA, SHARED_WINDOW_SIZE).unwrap();
            let running = Range::new(KERNEL_GPA, init).unwrap();
            for range in [placed.kernel, placed.initrd] {
                prop_assert!(!range.overlaps(own) && !range.overlaps(window) && range.end <= ram.end);
            }
            prop_assert!(!placed.kernel.overlaps(placed.initrd) && !running.overlaps(placed.initrd));
            prop_assert!(running.end <= ram.end);
        }
    }
}
