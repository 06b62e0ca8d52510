//! What a virtual processor says of itself: what KVM offers, with the numbers that differ from one to the next.
//!
//! Source: Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E; KVM API §4.46.

use kvm_bindings::kvm_cpuid_entry2;

/// Puts in who this processor is and how many there are: each is a core of one package.
pub fn adapt(entries: &mut [kvm_cpuid_entry2], id: u32, count: u32, deadline_timer: bool) {
    // Bits of a processor's number within the package.
    let bits = count.next_power_of_two().trailing_zeros();
    for entry in entries {
        match entry.function {
            0x1 => {
                entry.ebx = entry.ebx & 0x0000_FFFF | id << 24 | count << 16;
                entry.ecx |= HYPERVISOR;
                set(&mut entry.ecx, TSC_DEADLINE, deadline_timer);
                set(&mut entry.edx, HTT, count > 1);
            }
            0x4 => {
                // Caches of the first and second level are a core's own, the third is the package's.
                let sharing = if entry.eax >> 5 & 7 >= 3 { count - 1 } else { 0 };
                entry.eax = entry.eax & 0x0000_3FFF | sharing << 14 | (count - 1).min(63) << 26;
            }
            0xB | 0x1F => {
                let (shift, at_level, level) = match entry.index {
                    0 => (0, 1, LEVEL_THREAD),
                    1 => (bits, count, LEVEL_CORE),
                    _ => (0, 0, 0),
                };
                (entry.eax, entry.ebx, entry.ecx, entry.edx) = (shift, at_level, entry.index | level << 8, id);
            }
            0x8000_0008 => entry.ecx = bits << 12 | (count - 1),
            0x8000_001D => {
                let sharing = if entry.eax >> 5 & 7 >= 3 { count - 1 } else { 0 };
                entry.eax = entry.eax & !(0xFFF << 14) | sharing << 14;
            }
            0x8000_001E => {
                entry.eax = id;
                entry.ebx = id & 0xFF;
                entry.ecx = 0;
            }
            _ => {}
        }
    }
}

fn set(word: &mut u32, bit: u32, on: bool) {
    *word = if on { *word | bit } else { *word & !bit };
}

/// Leaf 1, ECX: KVM's local APIC has the mode, and this is a guest.
const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, EDX: the count of processors means something.
const HTT: u32 = 1 << 28;
const LEVEL_THREAD: u32 = 1;
const LEVEL_CORE: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, index: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, index, eax: 0x60, ebx: u32::MAX, ecx: 0, edx: 0, ..Default::default() }
    }

    #[test]
    fn each_processor_has_its_number_and_all_agree_on_their_count() {
        for id in 0..3 {
            let mut all = [entry(1, 0), entry(0xB, 0), entry(0xB, 1), entry(0x8000_0008, 0), entry(0x8000_001E, 0)];
            adapt(&mut all, id, 3, true);
            assert_eq!((all[0].ebx >> 24, all[0].ebx >> 16 & 0xFF), (id, 3));
            assert_eq!(all[0].edx & HTT, HTT);
            assert_eq!((all[1].eax, all[1].ebx, all[1].ecx, all[1].edx), (0, 1, 0x100, id));
            assert_eq!((all[2].eax, all[2].ebx, all[2].ecx, all[2].edx), (2, 3, 0x201, id));
            assert_eq!(all[3].ecx, 0x2002);
            assert_eq!(all[4].eax, id);
        }
    }

    #[test]
    fn one_processor_is_alone() {
        let mut all = [entry(1, 0), entry(0xB, 1)];
        all[0].edx = HTT;
        adapt(&mut all, 0, 1, false);
        assert_eq!((all[0].edx & HTT, all[1].eax, all[1].ebx), (0, 0, 1));
    }
}
