//! The second I/O APIC: 24 redirection entries and nothing else.
//!
//! KVM's in-kernel I/O APIC has 24 inputs and there is one of it; the transports hang on this one. Each entry the guest
//! writes becomes an MSI route, which a transport's event raises without leaving the kernel. The machine's tables say edge
//! triggered, so that no end of interrupt comes back here, and as on the real chip an edge at a masked input is lost.
//! Source: Intel 82093AA data sheet §3; `docs/measured-boot.md`, "Why two I/O APICs".

use coffer_machine::devices::{IO_APIC_INPUTS, LOCAL_APIC};

const INPUTS: usize = IO_APIC_INPUTS as usize;

/// Where an input's interrupt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Address of the message.
    pub address: u32,
    /// Its data.
    pub data: u32,
}

/// The registers.
#[derive(Clone, Debug)]
pub struct IoApic {
    selected: u8,
    entries: [u64; INPUTS],
}

impl Default for IoApic {
    fn default() -> Self {
        Self { selected: 0, entries: [MASKED; INPUTS] }
    }
}

impl IoApic {
    /// Reads a register.
    pub fn read(&self, offset: u64) -> u32 {
        match (offset, self.selected) {
            (SELECT, selected) => selected.into(),
            (WINDOW, IDENTITY | ARBITRATION) => SECOND << 24,
            (WINDOW, VERSION) => (IO_APIC_INPUTS - 1) << 16 | 0x11,
            (WINDOW, selected) => Self::entry(selected).map_or(0, |(entry, high)| half(self.entries[entry], high)),
            _ => 0,
        }
    }

    /// Writes a register, and says whether a route changed.
    pub fn write(&mut self, offset: u64, word: u32) -> bool {
        match offset {
            SELECT => self.selected = word as u8,
            WINDOW => {
                if let Some((entry, high)) = Self::entry(self.selected) {
                    let before = self.route(entry);
                    let (shift, kept) = if high { (32, u64::from(u32::MAX)) } else { (0, u64::from(u32::MAX) << 32) };
                    let writable = u64::from(word) << shift & !READ_ONLY;
                    self.entries[entry] = self.entries[entry] & kept | writable;
                    return before != self.route(entry);
                }
            }
            _ => {}
        }
        false
    }

    fn entry(selected: u8) -> Option<(usize, bool)> {
        let index = selected.checked_sub(FIRST_ENTRY)?;
        let entry = usize::from(index / 2);
        (entry < INPUTS).then_some((entry, index % 2 == 1))
    }

    /// Where each input that is not masked leads.
    pub fn routes(&self) -> impl Iterator<Item = (usize, Route)> {
        (0..INPUTS).filter_map(|input| Some((input, self.route(input)?)))
    }

    fn route(&self, input: usize) -> Option<Route> {
        let entry = *self.entries.get(input)?;
        if entry & MASKED != 0 {
            return None;
        }
        let destination = (entry >> 56) as u32;
        let logical = (entry >> 11) as u32 & 1;
        let address = LOCAL_APIC | destination << 12 | logical << 2;
        // Vector and delivery mode stand in both at the same place; the trigger mode does not.
        let level = (entry >> 15) as u32 & 1;
        Some(Route { address, data: (entry & 0x7FF) as u32 | level << 15 | level << 14 })
    }
}

fn half(entry: u64, high: bool) -> u32 {
    if high { (entry >> 32) as u32 } else { entry as u32 }
}

const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;
const IDENTITY: u8 = 0;
const VERSION: u8 = 1;
const ARBITRATION: u8 = 2;
const FIRST_ENTRY: u8 = 0x10;
/// Identity, as the machine's tables have it.
const SECOND: u32 = 1;
const MASKED: u64 = 1 << 16;
/// Delivery status, remote interrupt request.
const READ_ONLY: u64 = 1 << 12 | 1 << 14;

#[cfg(test)]
mod tests {
    use super::*;

    fn write(chip: &mut IoApic, register: u8, word: u32) -> bool {
        chip.write(SELECT, register.into());
        chip.write(WINDOW, word)
    }

    #[test]
    fn an_entry_is_a_route_once_it_is_not_masked() {
        let mut chip = IoApic::default();
        assert_eq!(chip.routes().count(), 0);
        assert!(!write(&mut chip, 0x10 + 2 * 3 + 1, 5 << 24), "masked: nothing changed");
        assert!(write(&mut chip, 0x10 + 2 * 3, 0x31));
        let route = Route { address: LOCAL_APIC | 5 << 12, data: 0x31 };
        assert_eq!(chip.routes().collect::<Vec<_>>(), [(3, route)]);
        assert!(!write(&mut chip, 0x10 + 2 * 3, 0x31), "the same again");
        assert!(write(&mut chip, 0x10 + 2 * 3, 0x1_0031));
        assert_eq!(chip.routes().count(), 0);
    }

    #[test]
    fn logical_lowest_priority_and_level_become_what_a_message_says() {
        let mut chip = IoApic::default();
        write(&mut chip, 0x11, 0xFF << 24);
        write(&mut chip, 0x10, 0x8941);
        let route = Route { address: LOCAL_APIC | 0xFF << 12 | 4, data: 0xC141 };
        assert_eq!(chip.routes().next(), Some((0, route)));
    }

    #[test]
    fn it_says_what_it_is_keeps_what_may_be_written_and_survives_any_register() {
        let mut chip = IoApic::default();
        chip.write(SELECT, 1);
        assert_eq!(chip.read(WINDOW) >> 16 & 0xFF, 23);
        chip.write(SELECT, 0);
        assert_eq!(chip.read(WINDOW), 1 << 24);
        for register in 0..=u8::MAX {
            write(&mut chip, register, u32::MAX);
            chip.read(WINDOW);
        }
        chip.write(SELECT, 0x10);
        assert_eq!(chip.read(WINDOW), !(READ_ONLY as u32));
        for offset in [4, 8, 0x20, 0x40, u64::MAX] {
            assert_eq!((chip.read(offset), chip.write(offset, 1)), (0, false));
        }
    }
}
