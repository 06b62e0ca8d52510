//! The state in which a processor enters stage0 in 64-bit mode: what a monitor sets, and what a launch of that form measures.
//!
//! The first processor starts at stage0's image, the others of an SEV-SNP launch in the parking page, all with this state,
//! general registers of zero, and limits of 0 for GDT and IDT.
//! Source: `guest/stage0`, start.s, `entry64`; AMD APM volume 2, chapters 4 and 14, Table B-4 (attributes).

use crate::map::{C_BIT, PAGE_TABLES_GPA, PARKING_64, PARKING_GPA, STAGE0_GPA};

/// A segment register, of base 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Selector, in stage0's own descriptor table.
    pub selector: u16,
    /// Bits from 0 on: type (4), S, DPL (2), P, AVL, L, D/B, G.
    pub attributes: u16,
    /// Limit in bytes.
    pub limit: u32,
}

impl Segment {
    /// Type, bits 0 to 3.
    pub const fn kind(&self) -> u8 {
        self.attributes as u8 & 0xF
    }

    /// One of the bits from 4 on.
    pub const fn bit(&self, bit: u32) -> u8 {
        (self.attributes >> bit & 1) as u8
    }
}

/// CS: code of 64-bit mode.
pub const CODE: Segment = Segment { selector: 0x10, attributes: 0xA9B, limit: u32::MAX };
/// DS, ES, FS, GS and SS.
pub const DATA: Segment = Segment { selector: 0x18, attributes: 0xC93, limit: u32::MAX };
/// LDTR, as at reset.
pub const LDTR: Segment = Segment { selector: 0, attributes: 0x82, limit: 0xFFFF };
/// TR, as at reset: a busy task state segment.
pub const TR: Segment = Segment { selector: 0, attributes: 0x8B, limit: 0xFFFF };

/// CR0: PE, ET, NE, PG.
pub const CR0: u64 = 0x8000_0031;
/// CR4: PAE.
pub const CR4: u64 = 0x20;
/// EFER: LME, LMA.
pub const EFER: u64 = 0x500;
/// RFLAGS: the bit that is always one; no interrupts.
pub const RFLAGS: u64 = 2;
/// RIP of the first processor.
pub const FIRST_RIP: u64 = STAGE0_GPA;
/// RIP of every other processor of an SEV-SNP launch.
pub const PARKED_RIP: u64 = PARKING_GPA + PARKING_64;

/// CR3: stage0's page tables; `encrypted`: with the C-bit, for SEV-SNP.
pub const fn cr3(encrypted: bool) -> u64 {
    PAGE_TABLES_GPA | (encrypted as u64) << C_BIT
}
