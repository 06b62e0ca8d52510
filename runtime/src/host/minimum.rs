//! The platform's TCB beside the minima that this version ships: those of the built-in policy `strict`.
//!
//! The same numbers a relying party with that policy asks for, so an operator sees a refusal before a guest does.

use coffer_verifier::abi::TcbVersion;
use coffer_verifier::{Accept, EvidencePolicy, TcbMinimum, TcbRule};
use serde::Serialize;

use super::Processor;

/// One part of a TCB_VERSION beside its minimum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Level {
    /// `bootloader`, `tee`, `snp`, `microcode` or `fmc`.
    pub part: &'static str,
    /// What runs.
    pub current: u8,
    /// What reports say.
    pub reported: u8,
    /// Least level to report; zero where none is asked for.
    pub minimum: u8,
    /// Whether the reported level reaches it.
    pub enough: bool,
}

/// What is asked of this very processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Minimum {
    /// All entries that match it: one that is stricter does not lift another.
    entries: Vec<TcbMinimum>,
}

impl Minimum {
    /// From the built-in policy. None where it has no entry for the processor, which then is refused.
    pub fn of(processor: &Processor) -> Option<Self> {
        let Accept::Only(all) = EvidencePolicy::strict().tcb else { return None };
        let matches = |entry: &TcbMinimum| {
            Some(entry.product) == processor.product
                && entry.model.is_none_or(|model| model == processor.model)
                && entry.stepping.is_none_or(|stepping| stepping == processor.stepping)
        };
        let entries: Vec<_> = all.into_iter().filter(matches).collect();
        (!entries.is_empty()).then_some(Self { entries })
    }

    /// AMD's bulletins that the numbers come from.
    pub fn source(&self) -> String {
        self.entries.iter().map(|entry| entry.source.as_str()).collect::<Vec<_>>().join(", ")
    }

    fn least(&self, part: impl Fn(&TcbRule) -> u8) -> u8 {
        self.entries.iter().map(|entry| part(&entry.reported)).max().unwrap_or_default()
    }
}

/// Every part of both versions, with what `minimum` asks for.
pub fn levels(current: TcbVersion, reported: TcbVersion, minimum: Option<&Minimum>) -> Vec<Level> {
    let least = |part: fn(&TcbRule) -> u8| minimum.map_or(0, |minimum| minimum.least(part));
    let level =
        |part, current, reported, minimum| Level { part, current, reported, minimum, enough: reported >= minimum };
    let mut levels = vec![
        level("bootloader", current.bootloader, reported.bootloader, least(|rule| rule.bootloader)),
        level("tee", current.tee, reported.tee, least(|rule| rule.tee)),
        level("snp", current.snp, reported.snp, least(|rule| rule.snp)),
        level("microcode", current.microcode, reported.microcode, least(|rule| rule.microcode)),
    ];
    if let (Some(current), Some(reported)) = (current.fmc, reported.fmc) {
        levels.insert(0, level("fmc", current, reported, least(|rule| rule.fmc)));
    }
    levels
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_verifier::abi::ProductLine;

    fn genoa(model: u8, stepping: u8) -> Processor {
        Processor { product: Some(ProductLine::Genoa), family: 0x19, model, stepping, ..Processor::default() }
    }

    #[test]
    fn a_processor_gets_the_numbers_of_its_model_and_stepping() {
        let tcb = |snp, microcode| TcbVersion { fmc: None, bootloader: 0, tee: 0, snp, microcode };
        let b1 = Minimum::of(&genoa(0x11, 1)).unwrap();
        let short = levels(tcb(0x1b, 0x56), tcb(0x1b, 0x55), Some(&b1));
        let wrong: Vec<_> = short.iter().filter(|level| !level.enough).collect();
        assert_eq!(wrong.len(), 1);
        assert_eq!((wrong[0].part, wrong[0].reported, wrong[0].minimum), ("microcode", 0x55, 0x56));
        assert!(levels(tcb(0x1b, 0x56), tcb(0x1b, 0x56), Some(&b1)).iter().all(|level| level.enough));
        let b2 = Minimum::of(&genoa(0x11, 2)).unwrap();
        assert!(levels(tcb(0x1b, 0x51), tcb(0x1b, 0x51), Some(&b2)).iter().all(|level| level.enough));
        assert!(b1.source().contains("AMD-SB-"));
    }

    #[test]
    fn a_processor_without_an_entry_has_no_minimum() {
        assert!(Minimum::of(&genoa(0x11, 9)).is_none());
        assert!(Minimum::of(&Processor::default()).is_none());
    }

    #[test]
    fn fmc_is_shown_where_there_is_one() {
        let turin = TcbVersion { fmc: Some(1), bootloader: 1, tee: 1, snp: 4, microcode: 0x51 };
        assert_eq!(levels(turin, turin, None)[0].part, "fmc");
    }
}
